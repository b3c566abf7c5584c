"""Which annotators cannot be relied upon.

Owns the comparison of one annotator with the rest; how much all of them agree is told by `agreement`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiebreak.doctor.labels.agreement import Floats, Ints, Ratings
from tiebreak.doctor.report import rounded
from tiebreak.maths.intervals import wilson

MIN_COMPARED = 20
SHORTFALL = 0.1
"""An annotator is unreliable whose agreement is surely this much below the median of the others."""


@dataclass(frozen=True)
class Annotators:
    """One entry an annotator: agreement with the majority of the others.

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

    def as_rows(self, names: Sequence[str], limit: int = 50) -> list[dict[str, Any]]:
        """Return the `limit` annotators who agree least, for JSON; `names` are those of the caller's codes."""
        order = np.argsort(self.agreement, kind="stable")[:limit].tolist()
        return [
            {
                "name": names[self.names[row]],
                "num_votes": int(self.num_votes[row]),
                "agreement": rounded(self.agreement[row]),
                "low": rounded(self.low[row]),
                "high": rounded(self.high[row]),
                "unreliable": bool(self.unreliable[row]),
            }
            for row in order
        ]


def annotator_reliability(ratings: Ratings) -> Annotators:
    """Compare every vote with the strict majority of the other votes on its item (leave one out).

    Where the others are split, or there are none, the vote is not compared. Unreliable: at least MIN_COMPARED votes
    compared, two others as well judged to compare with, and the upper bound below the others' median by SHORTFALL, or
    below both that median and one half.
    """
    majority, num_people = _majority_of_others(ratings), len(ratings.names)
    named = ratings.annotators >= 0
    compared = named & (majority >= 0)
    people, agrees = ratings.annotators[compared], (majority == ratings.categories)[compared]
    num_compared = np.bincount(people, minlength=num_people)
    num_agreeing = np.bincount(people, weights=agrees, minlength=num_people)
    agreement = np.where(num_compared > 0, num_agreeing / np.maximum(num_compared, 1), np.nan)
    low, high = wilson(agreement, num_compared, 1 - 0.05 / max(int((num_compared > 0).sum()), 1))
    judged = np.flatnonzero(num_compared >= MIN_COMPARED)
    unreliable = np.zeros(num_people, dtype=np.bool_)
    if len(judged) >= 3:
        median, bound = _median_of_others(agreement[judged]), high[judged]
        unreliable[judged] = (bound < median - SHORTFALL) | (bound < np.minimum(median, 0.5))
    num_votes = np.bincount(ratings.annotators[named], minlength=num_people)
    return Annotators(ratings.names, num_votes, num_compared, agreement, low, high, unreliable)


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


def _median_of_others(values: Floats) -> Floats:
    """Return for each value the median of all the others."""
    order = np.argsort(values, kind="stable")
    rank = np.empty(len(values), dtype=np.int64)
    rank[order] = np.arange(len(values))
    ends = [(len(values) - 2) // 2, (len(values) - 1) // 2]
    middle = [values[order][end + (rank <= end)] for end in ends]
    return np.asarray((middle[0] + middle[1]) / 2, dtype=np.float64)
