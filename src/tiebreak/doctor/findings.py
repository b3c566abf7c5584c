"""From the facts of all judgements to findings: which of them break which rule.

Owns the thresholds. Pure: columns in, hits out; no text is read here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tiebreak.doctor.facts import Facts, Rows, Unit
from tiebreak.doctor.labels import graph
from tiebreak.doctor.labels.agreement import Alpha
from tiebreak.doctor.labels.annotators import Annotators
from tiebreak.doctor.labels.noise import LabelNoise
from tiebreak.doctor.labels.shortcut import Shortcut, TooFew
from tiebreak.doctor.rules import Of, Severity
from tiebreak.doctor.texts import near
from tiebreak.doctor.texts.flaws import TEXT_RULES

Ints = NDArray[np.int64]

FEW_PROMPTS = 100
MANY_TIES = 0.2
LENGTH_SHORTCUT, SHORTCUT = 0.65, 0.75
LOW_ALPHA = 0.4
LOW_CONFIDENCE = 0.6
NOISY = 0.05
SUSPECTED = 0.8
NON_COMMERCIAL = {"nc", "noncommercial", "non", "research"}
"""Words of licences that forbid common uses."""


@dataclass(frozen=True)
class Hit:
    """What one rule found: the rows of the facts concerned, and the words for people."""

    code: str
    count: int
    of: Of
    total: int
    rows: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """Rows that `clean` acts on; empty for rules about a whole file."""
    shown: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """Rows to show as examples, in this order, where they are other than `rows`."""
    excerpts: Mapping[int, str] = field(default_factory=dict)
    """Row to words that stand for it, where its text must not be shown as it is."""
    detail: str = ""
    severity: Severity | None = None


def pair_hits(facts: Facts) -> Iterator[Hit]:
    """Yield what single pairs, and pairs beside each other, do wrong."""
    yield from _repeats(facts)
    yield from _judgements(facts)


def row_hits(facts: Rows) -> Iterator[Hit]:
    """Yield what is wrong with single judgements of any kind, and with where they stand."""
    yield from _leaks(facts)
    yield from _marks(facts)


def on_rows(code: str, rows: Ints, facts: Rows, **words: object) -> Iterator[Hit]:
    """Yield a finding about some rows, where there are any."""
    if len(rows):
        yield Hit(code, len(rows), facts.unit, facts.num_rows, np.asarray(rows, np.int64), **words)  # type: ignore[arg-type]


def _repeats(facts: Facts) -> Iterator[Hit]:
    keys = (facts.prompt_key, facts.chosen_key, facts.rejected_key)
    against = graph.contradictions(*keys)
    detail = f"{against.num_groups} couples of completions" if against.num_groups else ""
    yield from on_rows("contradiction", against.pairs, facts, detail=detail)
    circles = graph.cycles(*keys, facts.strength)
    knots = "one knot" if circles.num_groups == 1 else f"{circles.num_groups} knots"
    told = f"{circles.num_on_circles} pairs lie on circles, in {knots}; without these none is left"
    yield from on_rows("cycle", circles.pairs, facts, detail=told)
    again = graph.duplicates(*keys)
    yield from on_rows("duplicate", again, facts)
    same = np.flatnonzero((facts.chosen_norm == facts.rejected_norm) & (facts.chosen_key != facts.rejected_key))
    yield from on_rows("near_identical", same, facts)
    cluster = near.clusters(facts.signatures)
    # The first of a cluster stays; exact copies and reversals have rules of their own.
    alike = np.flatnonzero(cluster != np.arange(len(cluster)))
    alike = np.setdiff1d(alike, np.concatenate([again, against.pairs]))
    yield from on_rows("near_duplicate", alike, facts)
    spread = graph.clusters(facts.prompt_key)
    repeated = [number for size, number in spread.histogram if size > 1]
    if repeated:
        detail = f"{spread.num_pairs} pairs weigh like {spread.effective:.0f} prompts; at most {spread.largest} on one"
        yield Hit("repeated_prompt", sum(repeated), "prompts", spread.num_prompts, detail=detail)


def _judgements(facts: Facts) -> Iterator[Hit]:
    scored = ~np.isnan(facts.chosen_score) & ~np.isnan(facts.rejected_score)
    soft = facts.soft_label
    inverted = (scored & (facts.chosen_score < facts.rejected_score)) | (soft < 0.5) | (facts.margin < 0)
    yield from on_rows("inverted_score", np.flatnonzero(inverted), facts)
    tied = np.flatnonzero(((scored & (facts.chosen_score == facts.rejected_score)) | (soft == 0.5)) & ~inverted)
    if len(tied) + facts.num_tied_dropped:
        more = f"{facts.num_tied_dropped} of them in records that are dropped anyway" if facts.num_tied_dropped else ""
        num_records = facts.num_records
        yield Hit("tied_score", len(tied) + facts.num_tied_dropped, "records", num_records, tied, detail=more)
    doubtful = np.flatnonzero((soft > 0.5) & (soft < LOW_CONFIDENCE))
    yield from on_rows("low_confidence", doubtful, facts)


def _leaks(facts: Rows) -> Iterator[Hit]:
    """Yield rows of the larger split whose prompt, group or near-copy of it is in another split, too."""
    stated = facts.split >= 0
    if len(np.unique(facts.split[stated])) < 2:
        return
    sizes = np.bincount(facts.split[stated])
    largest = facts.split == int(sizes.argmax())
    prompts = np.isin(facts.prompt_key, facts.prompt_key[stated & ~largest])
    groups = (facts.group >= 0) & np.isin(facts.group, facts.group[stated & ~largest])
    leaked = np.flatnonzero(largest & (prompts | groups))
    yield from on_rows("leak", leaked, facts, detail="given splits: " + ", ".join(facts.split_names))
    cluster = near.clusters(facts.prompt_signatures)
    alike = largest & np.isin(cluster, cluster[stated & ~largest])
    yield from on_rows("near_leak", np.setdiff1d(np.flatnonzero(alike), leaked), facts)


def _marks(facts: Rows) -> Iterator[Hit]:
    """Yield what the rules on single texts saw; the words shown are theirs, with secrets masked."""
    for code in TEXT_RULES:
        marks = [mark for mark in facts.marks if mark.code == code]
        words = {mark.row: f"{mark.field}: {mark.excerpt}" for mark in reversed(marks)}
        kinds = [f"{kind} ({count})" for (of, kind), count in facts.num_marks.items() if of == code]
        shown = np.array(sorted(words), dtype=np.int64)
        yield from on_rows(code, facts.marked(code), facts, shown=shown, excerpts=words, detail=", ".join(kinds[:8]))


# ------------------------------------------------------------------------------------------------------- the whole file


def few_prompts(facts: Rows) -> Iterator[Hit]:
    """Yield a finding where there are too few prompts, or groups of them, to learn from and to measure on."""
    num_prompts = len(np.unique(facts.prompt_key))
    groups = np.unique(facts.group[facts.group >= 0])
    if facts.num_rows and num_prompts < FEW_PROMPTS:
        yield Hit("few_prompts", num_prompts, "prompts", num_prompts, detail=f"{num_prompts} prompts")
    elif 0 < len(groups) < FEW_PROMPTS and (facts.group >= 0).all():
        detail = f"{num_prompts} prompts in only {len(groups)} groups, which is what the split goes by"
        yield Hit("few_prompts", len(groups), "prompts", num_prompts, detail=detail)


def many_ties(facts: Rows) -> Iterator[Hit]:
    """Yield a finding where so many records are dropped as ties that their verdicts may have been misread."""
    count = facts.num_dropped.get("tie", 0)
    if count > MANY_TIES * facts.num_records:
        yield Hit("many_ties", count, "records", facts.num_records, detail=f"more than {MANY_TIES:.0%} of all records")


def lone_thumbs(num_lone: int, facts: Rows) -> Iterator[Hit]:
    """Yield a finding where most records hold a completion that was judged by itself and finds no partner."""
    if num_lone > 0.5 * facts.num_records:
        detail = "the loss kto learns from each on its own, with data.pairing none"
        yield Hit("lone_thumbs", num_lone, "records", facts.num_records, detail=detail)


TELLS: Mapping[Unit, tuple[str, str]] = {
    "pairs": ("length alone finds the chosen side in", "the surface finds the chosen side in"),
    "completions": (
        "a liked completion is longer than a disliked one in",
        "the surface tells a liked completion from a disliked one in",
    ),
}
"""What the accuracies of length and of all features are shares of."""


def shortcut_hits(found: Shortcut | TooFew, unit: Unit) -> Iterator[Hit]:
    """Yield a finding where surface features tell the label better than they should."""
    if isinstance(found, TooFew):
        return
    shares = (("shortcut_length", found.length, LENGTH_SHORTCUT), ("shortcut", found.together, SHORTCUT))
    for (code, share, limit), what in zip(shares, TELLS[unit], strict=True):
        if share.low > limit or share.high < 1 - limit:
            detail = f"{what} {share.value:.1%} ({share.low:.1%} … {share.high:.1%})"
            yield Hit(code, found.num_rows, unit, found.num_given, detail=detail)


def agreement_hits(alpha: Alpha | None, annotators: Annotators | None, names: Sequence[str]) -> Iterator[Hit]:
    """Yield findings about annotators who do not agree."""
    if alpha is not None and alpha.high < LOW_ALPHA:
        detail = (
            f"Krippendorff's alpha {alpha.value:.2f} ({alpha.low:.2f} … {alpha.high:.2f}); 1 is agreement, 0 chance"
        )
        yield Hit("low_agreement", alpha.num_items, "pairs", alpha.num_items, detail=detail)
    if annotators is not None and annotators.unreliable.any():
        worst = [names[code] for code in annotators.names[annotators.unreliable]]
        detail = ", ".join(worst[:5])
        yield Hit("unreliable_annotator", len(worst), "annotators", len(annotators.names), detail=detail)


def noise_hits(noise: LabelNoise, rows: Ints, num_pairs: int) -> Iterator[Hit]:
    """Yield a finding where labels look flipped; `rows` are the pairs that `noise.suspicion` speaks of."""
    surest = noise.surest
    if surest is not None and surest.low > NOISY:
        detail = f"about {surest.value:.0%} ({surest.low:.0%} … {surest.high:.0%}) by {surest.source}: {surest.note}"
        yield Hit("label_noise", round(surest.value * num_pairs), "pairs", num_pairs, detail=detail)
    else:
        return  # without proven noise most suspects would be sound pairs: docs/experiments.md
    suspected = np.flatnonzero(np.nan_to_num(noise.suspicion, nan=0.0) > SUSPECTED)
    if len(suspected):
        order = suspected[np.argsort(-noise.suspicion[suspected], kind="stable")]
        yield Hit("suspected_flip", len(suspected), "pairs", len(rows), rows[suspected], shown=rows[order])


def licence_hits(counts: Mapping[str, int], facts: Rows) -> Iterator[Hit]:
    """Yield a finding where rows state several licences, or one that forbids common uses."""
    limited = [name for name in counts if set(name.lower().replace("-", " ").split()) & NON_COMMERCIAL]
    if limited or len(counts) > 1:
        detail = ", ".join(f"{name} ({count})" for name, count in counts.items())
        severity: Severity = "warning" if limited else "info"
        yield Hit("licence", sum(counts.values()), facts.unit, facts.num_rows, detail=detail, severity=severity)
