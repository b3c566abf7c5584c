"""What the doctor says: findings with counts and examples, and the measurements behind them.

Owns the shape of the report, in Python and as JSON, and how its numbers are cut. It finds nothing itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiebreak.doctor.facts import Unit
from tiebreak.doctor.rules import RULES, SEVERITIES, Action, Of, Severity
from tiebreak.reporting.notebook import BAD, GOOD, card

SCHEMA = 1


@dataclass(frozen=True)
class Example:
    """Where to look: file, line, and a few words of what stands there."""

    file: str
    line: int
    excerpt: str

    def as_dict(self) -> dict[str, Any]:
        """Return the example for JSON."""
        return {"file": self.file, "line": self.line, "excerpt": self.excerpt}


@dataclass(frozen=True)
class Finding:
    """One rule that found something: how much, of what, where, and what to do."""

    code: str
    count: int
    of: Of
    share: float
    """`count` over all there are of that kind (0..1)."""
    examples: tuple[Example, ...] = ()
    detail: str = ""
    """What was measured, in words, where a count does not say it."""
    severity: Severity | None = None
    """Where it differs from the rule's own."""

    @property
    def grade(self) -> Severity:
        """How grave the finding is."""
        return self.severity or RULES[self.code].severity

    @property
    def action(self) -> Action:
        """What `clean` does about it unless told otherwise."""
        return RULES[self.code].action

    def as_dict(self) -> dict[str, Any]:
        """Return the finding for JSON, with the words of its rule."""
        rule = RULES[self.code]
        return {
            "code": self.code,
            "severity": self.grade,
            "title": rule.title,
            "count": self.count,
            "of": self.of,
            "share": round(self.share, 6),
            "detail": self.detail,
            "examples": [example.as_dict() for example in self.examples],
            "remedy": rule.remedy,
            "action": self.action,
        }


@dataclass(frozen=True)
class AuditReport:
    """Everything that the doctor found in some files of preference data."""

    files: tuple[Mapping[str, Any], ...]
    """Each with path, sha256, format, title, num_records, held_out_by_name."""
    read: Mapping[str, Any]
    """How they were read, as `tiebreak.config.reading` says it: what it takes to read them so again."""
    counts: Mapping[str, Any]
    """unit, pairs or completions; num_records = num_used_records + num_dropped; num_pairs (or num_completions,
    num_liked, num_disliked), num_prompts, num_groups, num_ties, num_duplicates, …"""
    findings: tuple[Finding, ...]
    measurements: Mapping[str, Any] = field(default_factory=dict)
    """words, histograms, shortcut, agreement, label_noise, prompts, licences, split; tokens where a model was named."""

    def of_severity(self, severity: Severity) -> list[Finding]:
        """Return the findings of one severity."""
        return [finding for finding in self.findings if finding.grade == severity]

    @property
    def errors(self) -> list[Finding]:
        """Findings that would ruin a run."""
        return self.of_severity("error")

    @property
    def unit(self) -> Unit:
        """What was examined: pairs, or completions on their own."""
        found: Unit = self.counts["unit"]
        return found

    @property
    def names_heldout(self) -> bool:
        """Whether held-out pairs have files of their own, so that none are split off by a share."""
        return self.measurements["split"]["heldout_share"] is None

    def _repr_html_(self) -> str:
        """Return what a notebook shows: how much was read, and each finding with where it begins."""
        counts, num = self.counts, len(self.errors)
        badge = (f"{num} error{'s' * (num != 1)}", BAD) if num else ("no errors", GOOD)
        examples = f"{counts[f'num_{self.unit}']} {self.unit}"
        told = f"{counts['num_used_records']} of {counts['num_records']} records used, {examples}"
        rows = [
            (one.grade, f"{RULES[one.code].title} ({one.code})", f"{one.count} {one.of}", _first(one.examples))
            for one in self.findings
        ]
        title = f"doctor: {', '.join(str(file['path']) for file in self.files)}"
        return card(title, badge, [told], ("", "finding", "how many", "where"), rows)

    def as_dict(self) -> dict[str, Any]:
        """Return the report for JSON."""
        return {
            "schema": SCHEMA,
            "files": [dict(file) for file in self.files],
            "read": dict(self.read),
            **self.counts,
            "severities": {severity: len(self.of_severity(severity)) for severity in SEVERITIES},
            "findings": [finding.as_dict() for finding in self.findings],
            **self.measurements,
        }


def _first(examples: Sequence[Example]) -> str:
    return f"{examples[0].file}:{examples[0].line}" if examples else ""


def rounded(value: float | None) -> float | None:
    """Return four decimals, and None for what could not be measured, which JSON has no number for."""
    return None if value is None or np.isnan(value) else round(float(value), 4)


def spread(values: NDArray[Any], percents: Sequence[int] = (99,)) -> dict[str, float]:
    """Return mean, median, some percentiles and the largest of some lengths; zeros where there is none."""
    if not len(values):
        return {"mean": 0.0, "median": 0.0, **{f"p{percent}": 0.0 for percent in percents}, "max": 0}
    return {
        "mean": round(float(values.mean()), 1),
        "median": float(np.median(values)),
        **{f"p{percent}": float(np.percentile(values, percent)) for percent in percents},
        "max": int(values.max()),
    }
