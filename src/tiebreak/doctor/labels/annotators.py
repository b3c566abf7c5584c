"""Which annotators cannot be relied upon, and which ones prefer a position to a completion.

Owns the comparison of one annotator with the rest; how much all of them agree is told by `agreement`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiebreak.doctor.labels.agreement import Floats, Ints, Ratings
from tiebreak.maths.intervals import wilson

MIN_COMPARED = 20
SHORTFALL = 0.1
"""An annotator is unreliable whose agreement is surely this much below the median of the others."""
BIASED = (0.4, 0.6)
"""Shares of the first position that the interval must exclude before an annotator is called biased."""


@dataclass(frozen=True)
class Annotators:
    """One entry an annotator: agreement with the majority of the others, and how often the first completion wins.

    Bounds are Wilson's at 95 % for all annotators together (Bonferroni), so that among many honest ones hardly any is
    called unreliable by chance. NaN where nothing could be compared.
    """

    names: Ints
    num_votes: Ints
    num_compared: Ints
    agreement: Floats
    low: Floats
    high: Floats
    unreliable: NDArray[np.bool_]
    num_placed: Ints
    first_share: Floats
    first_low: Floats
    first_high: Floats
    position_biased: NDArray[np.bool_]

    def as_dict(self, limit: int = 20) -> dict[str, Any]:
        """Return counts and the `limit` annotators who agree least, for JSON."""
        order = np.argsort(self.agreement, kind="stable")[:limit]
        return {
            "num_annotators": len(self.names),
            "num_unreliable": int(self.unreliable.sum()),
            "num_position_biased": int(self.position_biased.sum()),
            "lowest": [self._row(int(i)) for i in order],
        }

    def _row(self, index: int) -> dict[str, Any]:
        row = {name: column[index].item() for name, column in vars(self).items()}
        return {name: None if value != value else value for name, value in row.items()}  # noqa: PLR0124  NaN


def annotator_reliability(ratings: Ratings, first: NDArray[np.float64] | None = None) -> Annotators:
    """Compare every vote with the strict majority of the other votes on its item (leave one out).

    Where the others are split, or there are none, the vote is not compared. `first` goes with the caller's rows: 1
    where the vote went to the completion that was shown first, 0 for the second, NaN for ties and unknown positions.
    Unreliable: at least MIN_COMPARED votes compared, two others as well judged to compare with, and the upper bound
    below the others' median by SHORTFALL, or below both that median and one half.
    """
    majority = _majority_of_others(ratings)
    named = ratings.annotators >= 0
    compared, agree = named & (majority >= 0), majority == ratings.categories
    num_compared, agreement = _shares_of(ratings, compared, agree)
    low, high = _bounds(agreement, num_compared)
    places = np.full(len(named), np.nan) if first is None else np.asarray(first, dtype=np.float64)[ratings.rows]
    num_placed, share = _shares_of(ratings, named & ~np.isnan(places), places == 1)
    first_low, first_high = _bounds(share, num_placed)
    return Annotators(
        ratings.names,
        np.bincount(ratings.annotators[named], minlength=len(ratings.names)),
        num_compared,
        agreement,
        low,
        high,
        _unreliable(agreement, high, num_compared),
        num_placed,
        share,
        first_low,
        first_high,
        (num_placed >= MIN_COMPARED) & ((first_high < BIASED[0]) | (first_low > BIASED[1])),
    )


def _majority_of_others(ratings: Ratings) -> Ints:
    """Return for each row the category that most others of the item gave; −1 where there is no strict majority."""
    counts = ratings.counts()
    if not counts.size:
        return np.zeros(0, dtype=np.int64)
    order = np.argsort(counts, axis=1, kind="stable")[:, ::-1][:, :3]
    ranked = np.pad(np.take_along_axis(counts, order, 1), ((0, 0), (0, 3 - order.shape[1])))[ratings.items]
    places = np.pad(order, ((0, 0), (0, 3 - order.shape[1])), constant_values=-1)[ratings.items]
    # A row takes one vote from its own category; the best of the others is then among the three most frequent ones.
    others = ranked - (places == ratings.categories[:, None])
    best = others.max(1)
    found = np.take_along_axis(places, others.argmax(1)[:, None], 1)[:, 0]
    return np.where((best > 0) & ((others == best[:, None]).sum(1) == 1), found, -1)


def _shares_of(ratings: Ratings, counted: NDArray[np.bool_], hits: NDArray[np.bool_]) -> tuple[Ints, Floats]:
    people, num_people = ratings.annotators[counted], len(ratings.names)
    num = np.bincount(people, minlength=num_people)
    hit = np.bincount(people, weights=hits[counted], minlength=num_people)
    return num, np.where(num > 0, hit / np.maximum(num, 1), np.nan)


def _bounds(shares: Floats, num: Ints) -> tuple[Floats, Floats]:
    low, high = wilson(shares, num, 1 - 0.05 / max(int((num > 0).sum()), 1))
    return low, high


def _unreliable(agreement: Floats, high: Floats, num_compared: Ints) -> NDArray[np.bool_]:
    judged = np.flatnonzero(num_compared >= MIN_COMPARED)
    flags = np.zeros(len(agreement), dtype=np.bool_)
    if len(judged) >= 3:
        median, bound = _median_of_others(agreement[judged]), high[judged]
        flags[judged] = (bound < median - SHORTFALL) | (bound < np.minimum(median, 0.5))
    return flags


def _median_of_others(values: Floats) -> Floats:
    """Return for each value the median of all the others."""
    order = np.argsort(values, kind="stable")
    rank = np.empty(len(values), dtype=np.int64)
    rank[order] = np.arange(len(values))
    ends = [(len(values) - 2) // 2, (len(values) - 1) // 2]
    middle = [values[order][end + (rank <= end)] for end in ends]
    return np.asarray((middle[0] + middle[1]) / 2, dtype=np.float64)
