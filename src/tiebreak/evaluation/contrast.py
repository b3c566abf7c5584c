"""Two runs on what both measured: the same items, after training, and how far the second lies from the first.

Owns which items are the same, the paired difference, and when it may be called one. Pure: rows in, numbers out. Whether
two runs measured a thing alike (the same objective, as many tokens) is known to whoever reads their settings.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from tiebreak.config.gate import ON_PAIRS
from tiebreak.evaluation.rows import SHARE, Row
from tiebreak.maths.paired import holm, resampled
from tiebreak.maths.stats import Estimate

ALPHA, LEAST = 0.05, 0.0005


@dataclass(frozen=True)
class Items:
    """What a run measured of one thing: its row, and what each item is, wherever and whenever it is measured."""

    row: Row
    ids: Sequence[str]


@dataclass(frozen=True)
class Contrast:
    """One measure of two runs on the items that both have."""

    key: str
    name: str
    unit: str
    better: str
    num: int
    """Items that both measured."""
    num_prompts: int
    num_alone: tuple[int, int]
    """Items that one of them measured alone."""
    first: float
    other: float
    """Means over the common items."""
    difference: Estimate
    """Other less first, paired; of tokens the log of the ratio."""
    has_interval: bool
    """False where all differences are alike, and nothing is known of how large they may be: its ends are then none."""
    p: float
    p_adjusted: float
    """By Holm over all contrasts that were made together."""

    @property
    def says(self) -> str:
        """`better`, `worse` or `moved` where the difference is beyond chance, else `not told apart`.

        `the same` where it is sure, and so small that three digits do not show it.
        """
        if abs(self.difference.mean) < LEAST:
            return "the same" if self.p_adjusted < ALPHA else "not told apart"
        if self.p_adjusted >= ALPHA:
            return "not told apart"
        if self.better == "neither":
            return "moved"
        return "better" if (self.difference.mean > 0) == (self.better == "higher") else "worse"

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        found = asdict(self) | {"num_alone": list(self.num_alone), "says": self.says}
        if not self.has_interval:
            found["difference"] |= {"low": None, "high": None}
        return found


def items_of(rows: Sequence[Row], evidence: Sequence[Mapping[str, Any]]) -> dict[str, Items]:
    """Return what a run measured, by key. Pairs are told by their ids in evidence.jsonl, answers by their prompts.

    A measure of pairs that its evidence does not fit is left out: which pair is which is then not known.
    """
    pairs, prompts = ([str(row[key]) for row in evidence] for key in ("pair_id", "prompt_id"))
    found = {}
    for row in rows:
        if row.key not in ON_PAIRS:
            found[row.key] = Items(row, told_apart(row.prompts))
        elif list(row.prompts) == prompts:
            found[row.key] = Items(row, told_apart(pairs))
    return found


def told_apart(ids: Sequence[str]) -> list[str]:
    """Return ids of which the second and later uses are counted."""
    seen: Counter[str] = Counter()
    found = []
    for one in ids:
        found.append(f"{one} {seen[one]}" if seen[one] else one)
        seen[one] += 1
    return found


def contrast(first: Items, other: Items, seed: int) -> Contrast | None:
    """Return the paired difference on the items of both, clustered by prompt; None where they share none.

    The interval is that of the gate (`maths.paired`). No p-value is below what so many prompts of one sign can show,
    2 / 2^n: of values without known ends, a few that agree would pass for certainty otherwise.
    """
    row, where = first.row, {one: at for at, one in enumerate(other.ids)}
    common = [(at, where[one]) for at, one in enumerate(first.ids) if one in where]
    if not common:
        return None
    before, after = [row.after[at] for at, _ in common], [other.row.after[at] for _, at in common]
    prompts = [row.prompts[at] for at, _ in common]
    changes = Row(row.key, row.name, row.unit, row.better, prompts, before, after).changes
    drawn = resampled(changes, prompts, (-1.0, 1.0) if row.unit == SHARE else None, seed)
    p = max(drawn.p_value(0.0), min(1.0, 2.0 ** (1 - drawn.num_clusters))) if any(changes) else 1.0
    return Contrast(
        row.key,
        row.name,
        row.unit,
        row.better,
        len(common),
        drawn.num_clusters,
        (len(first.ids) - len(common), len(other.ids) - len(common)),
        sum(before) / len(before),
        sum(after) / len(after),
        drawn.interval(),
        drawn.has_width,
        p,
        p,
    )


def on_their_own(items: Items, side: Literal["before", "after"], seed: int) -> Estimate:
    """Return the mean of all items of one run, for runs that measured others."""
    row = items.row
    ends = (0.0, 1.0) if row.unit == SHARE else None
    return resampled(row.after if side == "after" else row.before, row.prompts, ends, seed).interval()


def adjusted(some: Sequence[Contrast]) -> list[Contrast]:
    """Return contrasts with p-values that may be held against one alpha for all of them (Holm 1979)."""
    return [replace(one, p_adjusted=p) for one, p in zip(some, holm([one.p for one in some]), strict=True)]
