"""What becomes of the doctor's findings in a run: errors are refused, warnings told, shortcuts named by the verdict.

Owns which findings stop a run, and which a verdict has to name. What is found, and how grave it is, is the doctor's to
say.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tiebreak.config import DataConfig, LossConfig, command, in_quotes
from tiebreak.doctor.report import AuditReport, Finding
from tiebreak.doctor.rules import FINAL_RULES, READING_RULES, RULES
from tiebreak.errors import ConfigError, DataError, nearest
from tiebreak.progress import Progress


def heed(audit: AuditReport, data: DataConfig, progress: Progress) -> None:
    """Refuse data that the doctor finds an error in, unless the configuration allows that error by its code."""
    unknown = [code for code in data.allow if code not in RULES]
    if unknown:
        raise ConfigError(f"data.allow: '{unknown[0]}' is no rule of the doctor.{nearest(unknown[0], RULES)}")
    # Preparation leaves out what is held out, so a prompt in both files does no harm here.
    harmless = {"leak"} if audit.names_heldout else set()
    allowed = {*data.allow, *harmless} - FINAL_RULES
    errors = [finding for finding in audit.errors if finding.code not in allowed]
    if errors:
        worst = errors[0]
        where = "".join(f"; {example.file}:{example.line}: {example.excerpt}" for example in worst.examples[:1])
        more = f" (and {', '.join(finding.code for finding in errors[1:])})" if errors[1:] else ""
        check, clean = (in_quotes(command(verb, audit.read, *out)) for verb, *out in (("check",), ("clean", "OUT")))
        lone = [RULES[finding.code].remedy for finding in audit.findings if finding.code == "lone_thumbs"]
        final = [RULES[finding.code].remedy for finding in errors if finding.code in FINAL_RULES]
        codes = ", ".join(finding.code for finding in errors)
        ways = (final or lone)[:1] or [f"mend with {clean}, or go on with data.allow: [{codes}]"]
        raise DataError(f"{data.train_paths}: {_said(worst)}{where}{more}; see {check}; {ways[0]}")
    for file in audit.files:
        if file["held_out_by_name"]:
            progress.warn(f"{file['path']}: held out by its name, and not trained on")
    told = [finding for finding in audit.findings if finding.grade != "info" and finding.code not in READING_RULES]
    for finding in told:
        progress.warn(_said(finding))


def heed_loss(audit: AuditReport, loss: LossConfig) -> None:
    """Raise DataError where examples lack what the objective reads of what annotators said, with the first of them."""
    wanted = [(fact, f"states no {fact.replace('_', ' ')}, which {loss.name} reads") for fact in loss.facts]
    if loss.needs_margins_above_zero:
        wanted += [("margin_above_zero", f"states a margin that is not above zero, of which {loss.name} takes the log")]
    if not loss.takes_weights:
        wanted += [("weight_of_one", f"has a weight of its own, and {loss.name} mixes the {audit.unit} of a step")]
    for name, told in wanted:
        lacking = audit.measurements["stated"][name]
        if num := lacking["num_lacking"]:
            total, unit = audit.counts[f"num_{audit.unit}"], audit.unit
            raise DataError(
                f"{lacking['first']}: {told}; {num} of {total} {unit} are so: leave them out, or take another loss"
            )


def shortcuts(audit: Mapping[str, Any]) -> list[str]:
    """Return in words, of audit.json, each way to win on held-out pairs without getting better."""
    return [
        f"the doctor warned of a shortcut: {finding['detail'] or finding['title']}"
        for finding in audit.get("findings", ())
        if finding["code"] in ("shortcut_length", "shortcut")
    ]


def _said(finding: Finding) -> str:
    detail = f" ({finding.detail})" if finding.detail else ""
    return f"{finding.code}: {finding.count} {finding.of}: {RULES[finding.code].title}{detail}"
