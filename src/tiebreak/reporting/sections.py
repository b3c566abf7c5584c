"""The sections of a run's page, as a table: what each is called, what it is made of, and what its template is told.

Owns their order and their content. A section whose files a run does not hold is left out. A new one is a row and a
template, sections/KEY.html.j2.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from markupsafe import Markup

from tiebreak.config import dump_config, leaves, settings_of, train_with
from tiebreak.config.yaml_text import write_yaml
from tiebreak.errors import TiebreakError
from tiebreak.reporting.answers import compared, courses
from tiebreak.reporting.capability_card import by_group
from tiebreak.reporting.contents import Contents
from tiebreak.reporting.curves import Figure
from tiebreak.reporting.figures import drawn
from tiebreak.reporting.numbers import INTERVALS, amount
from tiebreak.reporting.visible import visible
from tiebreak.runs import Run

Told = Mapping[str, Any]
MOST_ROWS, MOST_TEXT = 50, 600


@dataclass(frozen=True)
class Section:
    """A part of the page; `content` returns what its template is told, None where a run has nothing to say of it."""

    key: str
    title: str
    files: str
    """What it is made of, by the names of a run's files."""
    content: Callable[[Contents, Told | None, Sequence[Figure]], Told | None]
    """Of a run, its capability card where it was measured, and its figures."""


def _diagnosed(run: Contents, _card: Told | None, _figures: Sequence[Figure]) -> Told | None:
    return None if run.diagnoses is None else {"diagnoses": run.diagnoses[:MOST_ROWS]}


def _card(_run: Contents, card: Told | None, _figures: Sequence[Figure]) -> Told | None:
    return card and {"card": card, "groups": by_group(card), "intervals": INTERVALS}


def _judged(run: Contents, _card: Told | None, _figures: Sequence[Figure]) -> Told | None:
    return {"judge": run.evaluation["judge"]} if run.evaluation and run.evaluation.get("judge") else None


def _curves(_run: Contents, _card: Told | None, figures: Sequence[Figure]) -> Told | None:
    parts: dict[str, list[Told]] = {}
    for number, figure in enumerate(figures):
        # The only markup that is trusted: drawn here, from numbers.
        svg = Markup(drawn(figure).svg)  # noqa: S704
        parts.setdefault(figure.part, []).append(asdict(figure) | {"number": number, "svg": svg})
    return {"parts": list(parts.items())} if parts else None


def _answers(run: Contents, _card: Told | None, _figures: Sequence[Figure]) -> Told | None:
    shown, left_out = compared(run.samples, run.judgements)
    rule = run.run.config.evaluation.rule
    names = ("changed", "better", "worse")
    counts = [(name, num) for name in names if (num := sum(name in one.marks for one in shown))]
    return {"shown": shown, "left_out": left_out, "rule": rule, "counts": counts} if shown else None


def _looks(run: Contents, _card: Told | None, _figures: Sequence[Figure]) -> Told | None:
    shown, left_out = courses(run.looks)
    return {"courses": shown, "left_out": left_out} if shown else None


def _history(run: Contents, _card: Told | None, _figures: Sequence[Figure]) -> Told:
    """Return what befell a run: attempts, accepted changes, rollbacks, what was set aside, warnings by attempt."""
    manifest, quarantine = run.manifest, run.run.quarantine_folder
    warnings: dict[str, list[str]] = {}
    for one in manifest.get("warnings") or ():
        warnings.setdefault(str(one["text"]), []).append(str(one["attempt"]))
    for text in (run.evaluation or {}).get("warnings") or ():
        warnings.setdefault(str(text), []).append("evaluate")
    facts = {
        "attempts": int(manifest.get("num_attempts", 1)),
        "accepted": [str(part) for part in manifest.get("accepted") or ()],
        "num_rollbacks": manifest.get("num_rollbacks") or 0,
        "rollbacks": [row for row in run.metrics if "rollback" in row][:MOST_ROWS],
        "quarantined": sorted(path.name for path in quarantine.iterdir()) if quarantine.is_dir() else [],
        "ended": manifest.get("error"),
        "stopped": manifest.get("stopped"),
        "best": manifest.get("best"),
        "artefact_step": manifest.get("artefact_step"),
        "warnings": [*islice(warnings.items(), MOST_ROWS)] if "warnings" in manifest else None,
        "more_warnings": max(0, len(warnings) - MOST_ROWS),
    }
    return {"history": facts}


def _data(run: Contents, _card: Told | None, _figures: Sequence[Figure]) -> Told | None:
    return run.data and {"data": run.data, "dropped": run.dropped[:20]}


def _found(run: Contents, _card: Told | None, _figures: Sequence[Figure]) -> Told:
    """Return the doctor's findings as rows of their table; None where the run holds no audit."""
    if run.audit is None:
        return {"findings": None}
    grades = ("error", "warning", "info")
    findings = [
        {
            **{key: visible(found.get(key) or "", MOST_TEXT) for key in ("code", "title", "detail", "remedy")},
            "grade": found["severity"],
            "examples": [
                {key: visible(example.get(key, ""), MOST_TEXT) for key in ("file", "line", "excerpt")}
                for example in found["examples"][:3]
            ],
            "amount": amount(found),
            "width": f"{100 * min(1.0, max(0.0, found['share'])):.1f}%",
        }
        for found in sorted(run.audit["findings"], key=lambda found: grades.index(found["severity"]))
    ]
    return {"findings": findings}


def _settings(run: Contents, _card: Told | None, _figures: Sequence[Figure]) -> Told:
    usual = {name: leaf.default for name, leaf in leaves()}
    changed = [
        (key, write_yaml(value, inline=True), write_yaml(_plain(usual[key]), inline=True) if key in usual else "")
        for key, value in settings_of(run.run.config).items()
    ]
    return {"changed": changed, "config": dump_config(run.run.config)}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value if isinstance(value, str | int | float | list) else None


def _lineage(run: Contents, _card: Told | None, _figures: Sequence[Figure]) -> Told:
    return {"stages": ancestors(run.run)}


def _again(run: Contents, _card: Told | None, _figures: Sequence[Figure]) -> Told:
    """Return the commands that repeat a run into a folder beside it: with its own file of settings, and without."""
    place, config, day = run.run.path.absolute(), run.run.config, run.manifest.get("template_date")
    # The date that a template wrote is the run's, and not a setting of its file.
    told = {"model.chat_template_date": day} if day else {}
    told["output.dir"] = f"{place}-again"
    return {
        "short": train_with(str(place / run.run.config_file.name), told),
        "whole": train_with(os.devnull, settings_of(config) | told),
    }


def _made(run: Contents, _card: Told | None, _figures: Sequence[Figure]) -> Told | None:
    return {} if run.evaluation or "versions" in run.manifest else None


SECTIONS = (
    Section("diagnoses", "Diagnoses", "diagnoses.json", _diagnosed),
    Section("card", "Capability card", "capability.json, measures.jsonl, evaluation.json", _card),
    Section("judge", "Who says whether answers got better", "evaluation.json, judgements.jsonl", _judged),
    Section("curves", "Training", "metrics.jsonl, evidence.jsonl, samples.jsonl", _curves),
    Section("answers", "Answers to held-out prompts", "samples.jsonl, judgements.jsonl", _answers),
    Section("looks", "How an answer changed on the way", "looks/", _looks),
    Section("history", "What happened on the way", "run.json, metrics.jsonl, evaluation.json", _history),
    Section("data", "Data", "data.json, dropped.jsonl", _data),
    Section("findings", "What the doctor found in the data", "audit.json", _found),
    Section("settings", "Settings", "config.yaml", _settings),
    Section("lineage", "Where it comes from", "run.json of each run", _lineage),
    Section("repeat", "How to repeat it", "config.yaml, run.json", _again),
    Section("made", "How it was made", "run.json", _made),
)
"""In the order of the page."""


def ancestors(run: Run, most: int = 20) -> list[dict[str, str]]:
    """Return this run and those whose policy it started from, the youngest first, as facts; the last is no run of ours.

    What a run started from may have been moved or deleted since: then its name is all that is known.
    """
    found: list[dict[str, str]] = []
    seen: set[Path] = set()
    while len(found) < most:
        try:
            manifest, config = run.manifest, run.config
        except TiebreakError:
            break
        name, place = run.path.resolve().name, run.path.resolve()
        seen.add(place)
        verdict = str(manifest.get("verdict") or manifest.get("status"))
        found.append(
            {"name": name, "learned": config.loss.name, "from": str(manifest.get("model")), "verdict": verdict}
        )
        folder = Path(str(manifest.get("model_folder")))
        run = Run(folder.parent)
        if folder.name != run.policy_folder.name or folder.parent.resolve() in seen or not run.manifest_file.is_file():
            break
    return found
