"""Do annotators agree beyond chance: Cohen's and Fleiss' kappa, Krippendorff's alpha.

Owns the coefficients. Takes a long table of ratings (item, annotator, value) and nothing of prompts or files; who
disagrees with everybody else is told by `annotators`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tiebreak.doctor.report import rounded

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Level = Literal["nominal", "ordinal", "interval"]

NUM_RESAMPLES = 2000
MAX_GROUPS = 2000
"""Items of larger tables are resampled in this many random groups: the interval's width is then known to about 2 %."""
MAX_COLLEAGUES = 50
"""Cohen's kappa compares a rating with at most so many others of its item."""
MAX_CATEGORIES = 128


@dataclass(frozen=True)
class Ratings:
    """A table of ratings in dense codes, sorted by item: row i says that an annotator gave an item a category.

    An annotator of −1 has no name: the rating counts where names do not matter, and each one is somebody else's.
    """

    items: Ints
    annotators: Ints
    categories: Ints
    values: Floats
    """The value of each category, ascending."""
    names: Ints
    """The code that the caller gave to each annotator."""
    rows: Ints
    """Where in the caller's table each row stood."""

    @property
    def num_items(self) -> int:
        """How many items have a rating."""
        return int(self.items[-1]) + 1 if len(self.items) else 0

    def counts(self) -> Ints:
        """Return how often each item got each category: int64[items, categories]."""
        num, width = self.num_items, len(self.values)
        return np.bincount(self.items * width + self.categories, minlength=num * width).reshape(num, width)


def rating_table(items: ArrayLike, annotators: ArrayLike, values: ArrayLike) -> Ratings:
    """Return the table of codes; NaN is a missing rating, and of a repeated (item, annotator) the first one counts."""
    given = np.asarray(values, dtype=np.float64)
    item, annotator = np.asarray(items, dtype=np.int64), np.asarray(annotators, dtype=np.int64)
    if not item.shape == annotator.shape == given.shape or item.ndim != 1:
        raise ValueError("items, annotators and values are one-dimensional and of one length")
    rows = np.flatnonzero(~np.isnan(given))
    rows = rows[np.lexsort((rows, annotator[rows], item[rows]))]
    again = (np.diff(item[rows]) == 0) & (np.diff(annotator[rows]) == 0) & (annotator[rows][1:] >= 0)
    rows = rows[np.concatenate([[True], ~again])] if len(rows) else rows
    levels, categories = np.unique(given[rows], return_inverse=True)
    if len(levels) > MAX_CATEGORIES:
        raise ValueError(f"{len(levels)} different values; ratings have at most {MAX_CATEGORIES}")
    _, codes = np.unique(item[rows], return_inverse=True)
    names = np.unique(annotator[rows][annotator[rows] >= 0])
    people = np.where(annotator[rows] >= 0, np.searchsorted(names, annotator[rows]), -1)
    return Ratings(codes.astype(np.int64), people, categories.astype(np.int64), levels, names, rows)


@dataclass(frozen=True)
class Couples:
    """Cohen's kappa of every two annotators who share enough items; NaN where chance explains everything."""

    first: Ints
    second: Ints
    num_shared: Ints
    observed: Floats
    kappa: Floats

    def as_rows(self, names: Sequence[str], limit: int = 20) -> list[dict[str, Any]]:
        """Return the `limit` couples who share most items, for JSON; `names` are those of the caller's codes."""
        order = np.argsort(-self.num_shared, kind="stable")[:limit].tolist()
        return [
            {
                "a": names[self.first[row]],
                "b": names[self.second[row]],
                "kappa": rounded(self.kappa[row]),
                "num_items": int(self.num_shared[row]),
            }
            for row in order
        ]


def cohen(ratings: Ratings, min_shared: int = 10) -> Couples:
    """Return kappa = (observed − chance) / (1 − chance) of annotators who share at least `min_shared` items.

    Cohen 1960, "A coefficient of agreement for nominal scales".
    """
    left, right = _meetings(ratings)
    width, num_people = len(ratings.values), len(ratings.names)
    codes = ratings.annotators[left] * num_people + ratings.annotators[right]
    couples, index, shared = np.unique(codes, return_inverse=True, return_counts=True)
    kept = shared >= min_shared
    place, meets = np.cumsum(kept) - 1, kept[index]
    index, left, right = place[index[meets]], left[meets], right[meets]
    num_shared = shared[kept].astype(np.int64)
    alike = ratings.categories[left] == ratings.categories[right]
    observed = np.bincount(index, weights=alike, minlength=len(num_shared)) / num_shared
    chance = np.ones((len(num_shared), width))
    for side in (left, right):
        chosen = np.bincount(index * width + ratings.categories[side], minlength=chance.size)
        chance *= chosen.reshape(chance.shape) / num_shared[:, None]
    chance = chance.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        kappa = np.where(chance < 1, (observed - chance) / (1 - chance), np.nan)
    people = ratings.names[couples[kept] // max(num_people, 1)], ratings.names[couples[kept] % max(num_people, 1)]
    return Couples(*people, num_shared, observed, kappa)


def _meetings(ratings: Ratings) -> tuple[Ints, Ints]:
    """Rows of two named annotators on one item, the smaller code on the left."""
    named = np.flatnonzero(ratings.annotators >= 0)
    items, lefts, rights = ratings.items[named], [], []
    for lag in range(1, MAX_COLLEAGUES + 1):
        meets = np.flatnonzero(items[lag:] == items[:-lag])
        if not len(meets):
            break
        lefts.append(named[meets])
        rights.append(named[meets + lag])
    empty = np.zeros(0, dtype=np.int64)
    return np.concatenate([empty, *lefts]), np.concatenate([empty, *rights])


def fleiss(ratings: Ratings) -> float | None:
    """Return Fleiss' kappa; None where items differ in their number of ratings, or chance explains everything.

    Fleiss 1971, "Measuring nominal scale agreement among many raters". Alpha covers unequal numbers.
    """
    counts = ratings.counts()
    num = counts.sum(1)
    if not len(num) or num.min() != num.max() or num[0] < 2:
        return None
    agreeing = ((counts**2).sum(1) - num) / (num * (num - 1))
    chance = float(((counts.sum(0) / counts.sum()) ** 2).sum())
    return None if chance >= 1 else (float(agreeing.mean()) - chance) / (1 - chance)


@dataclass(frozen=True)
class Alpha:
    """Krippendorff's alpha with a 95 % bootstrap interval over items: 1 is agreement, 0 what chance gives."""

    value: float
    low: float
    high: float
    level: Level
    num_items: int
    num_ratings: int

    def as_dict(self) -> dict[str, Any]:
        """Return the value and its interval, for JSON."""
        return {"krippendorff_alpha": rounded(self.value), "low": rounded(self.low), "high": rounded(self.high)}


def krippendorff(ratings: Ratings, level: Level = "nominal", seed: int = 0) -> Alpha | None:
    """Return alpha = 1 − observed / expected disagreement; None where nothing can disagree.

    Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability": any number of annotators, missing ratings allowed;
    items with a single rating say nothing. The interval resamples items with all their ratings.
    """
    counts = ratings.counts()
    counts = counts[counts.sum(1) >= 2]
    if not len(counts):
        return None
    # Squared differences over all couples of m places are 2 (m sum|p|² − |sum p|²): no coincidence matrix is needed.
    places = _places(counts.sum(0), ratings.values, level)
    num = counts.sum(1).astype(np.float64)
    squares, sums = counts @ (places**2).sum(1), counts @ places
    observed = (num * squares - (sums**2).sum(1)) / (num - 1)
    units = np.column_stack([observed, num, squares, sums])
    value = float(_alpha(units.sum(0)[None])[0])
    if np.isnan(value):
        return None
    rng = np.random.default_rng(seed)
    if len(units) > MAX_GROUPS:
        group = rng.permutation(len(units)) % MAX_GROUPS
        units = np.column_stack([np.bincount(group, weights=column) for column in units.T])
    weights = rng.multinomial(len(units), np.full(len(units), 1 / len(units)), size=NUM_RESAMPLES)
    low, high = np.nanquantile(_alpha(weights @ units), [0.025, 0.975])
    return Alpha(value, float(low), float(high), level, len(counts), int(counts.sum()))


def _places(totals: Ints, values: Floats, level: Level) -> Floats:
    """Place categories so that squared distances are the level's differences, but for a constant that cancels.

    Krippendorff 2011, section E: nominal categories are corners of a simplex; an ordinal difference sums the ratings
    between two categories with half of each end's, which is the distance of their mid-ranks.
    """
    if level == "nominal":
        return np.eye(len(values))
    line = values if level == "interval" else np.cumsum(totals) - totals / 2
    spread = max(float(np.ptp(line)), 1e-300)
    return np.asarray((line - line.mean()) / spread, dtype=np.float64)[:, None]


def _alpha(totals: Floats) -> Floats:
    """Return the alpha of each row: disagreement, number of ratings, sum of squares and sums of places."""
    observed, num, squares, sums = totals[:, 0], totals[:, 1], totals[:, 2], totals[:, 3:]
    expected = (num * squares - (sums**2).sum(1)) / (num - 1)
    nothing = expected <= 1e-12 * num
    value = 1 - observed / np.where(nothing, 1.0, expected)
    value[nothing] = np.nan
    return np.asarray(value, dtype=np.float64)
