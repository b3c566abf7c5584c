"""Whether numbers of two samples differ by more than chance: of histograms, and of estimates with their intervals.

Owns the two tests that need nothing but what a report keeps of a sample. `maths.paired` is for the same items twice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Z95 = NormalDist().inv_cdf(0.975)
"""Half the width of a 95 % interval, in standard errors."""


@dataclass(frozen=True)
class Apart:
    """How far two samples lie apart, in the unit of the test, and the two-sided p-value of no difference."""

    size: float
    p: float


def smirnov(
    edges: tuple[Sequence[int | float], Sequence[int | float]],
    counts: tuple[Sequence[int | float], Sequence[int | float]],
    nums: tuple[int | float, int | float],
) -> Apart:
    """Return the distance between two histograms that is certain, and Smirnov's p-value of it (1939).

    `nums` are the independent cases of each, which may be fewer than were counted. A bin holds its lower edge and not
    its upper one. How numbers lie within a bin is not known, so the size is the least distance that both histograms
    allow: that of the numbers themselves may be larger, and is at an edge that both have. The p-value is the asymptotic
    one with Stephens' correction (1970); for numbers with ties, as for bins, it is too large, never too small.
    """
    at = np.union1d(*edges).astype(np.float64)
    (low, high), (other_low, other_high) = (_bounds(at, *one) for one in zip(edges, counts, strict=True))
    size = max(0.0, float(np.maximum(low - other_high, other_low - high).max()))
    root = math.sqrt(nums[0] * nums[1] / (nums[0] + nums[1]))
    scaled = (root + 0.12 + 0.11 / root) * size
    if scaled < 0.2:  # the series below does not converge; the p-value is 1 to six digits
        return Apart(size, 1.0)
    terms = (2 * (-1) ** (k - 1) * math.exp(-2 * k * k * scaled * scaled) for k in range(1, 101))
    return Apart(size, min(1.0, max(0.0, sum(terms))))


def _bounds(
    at: NDArray[np.float64], edges: Sequence[int | float], counts: Sequence[int | float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the least and the greatest share of all numbers that may lie below each point."""
    total = np.cumsum(np.asarray(counts, dtype=np.float64))
    below = np.concatenate([[0.0, 0.0], total / total[-1], [1.0]])
    places = np.asarray(edges, dtype=np.float64)
    return below[np.searchsorted(places, at, side="right")], below[np.searchsorted(places, at, side="left") + 1]


def of_intervals(first: tuple[float, float, float], other: tuple[float, float, float]) -> Apart:
    """Return how far two independent estimates (value, low, high at 95 %) lie apart, and its p-value.

    The standard error of each is taken from the width of its interval, and the difference for normal. Where both
    intervals have no width, any difference is one.
    """
    size = other[0] - first[0]
    error = math.hypot(*((high - low) / (2 * Z95) for _, low, high in (first, other)))
    if error == 0:
        return Apart(size, 0.0 if size else 1.0)
    return Apart(size, 2 * (1 - NormalDist().cdf(abs(size) / error)))
