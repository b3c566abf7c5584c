"""Whether data are what they were: two audits side by side, each number with a test of whether it moved by chance.

Owns which numbers of audit.json tell of drift, and how large a change is worth a word. Pure: two audits in, rows out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

from tiebreak.maths.intervals import wilson
from tiebreak.maths.paired import holm
from tiebreak.maths.two_samples import Apart, of_intervals, smirnov

Audit = Mapping[str, Any]
ALPHA = 0.05
LEAST_DISTANCE, LEAST_SHARE, LEAST_AGREEMENT = 0.1, 0.03, 0.1
"""What counts as a change, where there are so many pairs that anything is beyond chance: a tenth of all texts on the
other side of some length, 3 points of a share, a tenth of agreement."""


@dataclass(frozen=True)
class Drift:
    """A number of the data, in two audits."""

    key: str
    name: str
    unit: str
    """words, points (of a score) or share."""
    first: float
    other: float
    size: float
    """Greatest distance of two distributions (0..1), or the difference of two estimates."""
    p: float
    """That of no difference, corrected for all that were asked (Holm)."""
    moved: bool
    """Beyond chance, and by enough to matter."""

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return asdict(self)


def drift(first: Audit, other: Audit) -> list[Drift]:
    """Return what can be told of two audits of the same unit; those that have nothing to compare give none.

    The two are taken for independent samples. Where they share records, as data that grew do, a p-value is too large.
    """
    return judged([*_lengths(first, other), *_estimates(first, other)])


def judged(found: Sequence[tuple[Drift, float]]) -> list[Drift]:
    """Return rows that say whether they moved, by Holm over all of them and by the least size of each that matters."""
    return [
        replace(one, p=p, moved=p < ALPHA and abs(one.size) >= least)
        for (one, least), p in zip(found, holm([one.p for one, _ in found]), strict=True)
    ]


def _lengths(first: Audit, other: Audit) -> Iterator[tuple[Drift, float]]:
    """Yield the distributions that both keep: words of each text, and the margins that annotators stated."""
    pair = first, other
    words = [one["histograms"]["words"] for one in pair]
    for side in words[0]:
        if side != "edges" and all(sum(one.get(side, ())) for one in words):
            apart = smirnov(_both(words, "edges"), _both(words, side), _cases(pair))
            medians = [float(one["words"][side]["median"]) for one in pair]
            yield _row(f"words/{side}", f"words of {side} (median)", "words", medians, apart), LEAST_DISTANCE
    margins = [one["histograms"].get("margin") for one in pair]
    if all(one and sum(one["counts"]) for one in margins):
        apart = smirnov((_edges(margins[0]), _edges(margins[1])), _both(margins, "counts"), _cases(pair))
        means = [one["mean"] if "mean" in one else _mean(one["edges"], one["counts"]) for one in margins]
        how = "mean" if all("mean" in one for one in margins) else "mean, by the middles of bins"
        yield _row("margin", f"stated margin ({how})", "points", means, apart), LEAST_DISTANCE


def _estimates(first: Audit, other: Audit) -> Iterator[tuple[Drift, float]]:
    """Yield the numbers that both keep with an interval, and the shares that have one by their number of cases."""
    for key, name, place, value, least in _ESTIMATES:
        sides = [_at(one, place) for one in (first, other)]
        if all(one and one.get(value) is not None and one.get("low") is not None for one in sides):
            told = [(float(one[value]), float(one["low"]), float(one["high"])) for one in sides]
            yield _row(key, name, "share", [one[0] for one in told], of_intervals(*told)), least
    shares = [float(one["chosen_longer_share"]) for one in (first, other) if "chosen_longer_share" in one]
    if len(shares) == 2:
        told = []
        for share, num in zip(shares, _cases((first, other)), strict=True):
            low, high = wilson(share, num)
            told.append((share, float(low), float(high)))
        yield _row("chosen_longer", "chosen is longer", "share", shares, of_intervals(*told)), LEAST_SHARE


_ESTIMATES = (
    ("shortcut/length", "length alone predicts the label", ("shortcut", "length"), "accuracy", LEAST_SHARE),
    ("shortcut/features", "surface predicts the label", ("shortcut", "features"), "accuracy", LEAST_SHARE),
    ("agreement", "annotators agree (alpha)", ("agreement",), "krippendorff_alpha", LEAST_AGREEMENT),
    ("label_noise", "labels flipped (estimate)", ("label_noise",), "estimate", LEAST_SHARE),
)


def _row(key: str, name: str, unit: str, values: Sequence[float], apart: Apart) -> Drift:
    return Drift(key, name, unit, float(values[0]), float(values[1]), round(apart.size, 4), apart.p, moved=False)


def _both(two: Sequence[Mapping[str, Any]], key: str) -> tuple[list[float], list[float]]:
    return [*map(float, two[0][key])], [*map(float, two[1][key])]


def _edges(margins: Mapping[str, Any]) -> list[float]:
    """Return edges of bins that do not hold their upper one: audits of before, without a mean, ended at the maximum."""
    *edges, last = map(float, margins["edges"])
    return [*edges, last if "mean" in margins else math.nextafter(last, math.inf)]


def _cases(two: tuple[Audit, Audit]) -> tuple[float, float]:
    """Return how many independent prompts each is of."""
    first, other = (max(1.0, float(one["prompts"]["effective"])) for one in two)
    return first, other


def _at(audit: Audit, place: Sequence[str]) -> Mapping[str, Any]:
    found: Any = audit
    for key in place:
        found = (found or {}).get(key)
    return found or {}


def _mean(edges: Sequence[float], counts: Sequence[float]) -> float:
    middles = [(low + high) / 2 for low, high in pairwise(edges)]
    return float(sum(middle * num for middle, num in zip(middles, counts, strict=True)) / sum(counts))
