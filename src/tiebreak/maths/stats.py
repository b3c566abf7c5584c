"""Intervals for means over pairs whose prompts repeat.

Owns resampling. Pure: numbers and a seed in, numbers out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

NUM_RESAMPLES = 10_000


@dataclass(frozen=True)
class Estimate:
    """A mean with its interval; `num` values in `num_clusters` independent groups."""

    mean: float
    low: float
    high: float
    num: int
    num_clusters: int
    confidence: float = 0.95


def clustered_mean(values: Sequence[float], clusters: Sequence[str], seed: int, confidence: float = 0.95) -> Estimate:
    """Return the mean with a percentile bootstrap interval that resamples whole clusters.

    Pairs of one prompt are not independent, so prompts are drawn with replacement and bring all their pairs
    (Cameron, Gelbach & Miller 2008, pairs cluster bootstrap; Efron & Tibshirani 1993, ch. 13 for percentiles).
    """
    if len(values) != len(clusters) or not values:
        raise ValueError("values and clusters are of the same length, at least one")
    _, index = np.unique(np.asarray(clusters), return_inverse=True)
    sums = np.bincount(index, weights=np.asarray(values, dtype=np.float64))
    counts = np.bincount(index).astype(np.float64)
    means = _resampled_means(sums, counts, np.random.default_rng(seed))
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Estimate(float(np.mean(values)), float(low), float(high), len(values), len(sums), confidence)


def clustered_share(values: Sequence[float], clusters: Sequence[str], seed: int, confidence: float = 0.95) -> Estimate:
    """Return `clustered_mean` of values in [0, 1], with an honest interval where all of them are 0, or all 1.

    Resampling identical values gives an interval without width, as if nothing else could ever happen. There the exact
    binomial bound over clusters takes its place (Clopper & Pearson 1934): with n of n, at least (alpha/2)^(1/n).
    """
    found = clustered_mean(values, clusters, seed, confidence)
    bound = ((1 - confidence) / 2) ** (1 / found.num_clusters)
    if found.mean == 1.0:
        return replace(found, low=bound)
    if found.mean == 0.0:
        return replace(found, high=1 - bound)
    return found


def preferred(first: float, second: float) -> float:
    """Return 1 where the first is more, 0 where it is less, one half for a tie."""
    return 0.5 if first == second else float(first > second)


def correlation(one: Sequence[float], two: Sequence[float]) -> float | None:
    """Return Pearson's correlation; None for fewer than three pairs of numbers, or where one side is all alike."""
    sides = np.asarray(one, dtype=np.float64), np.asarray(two, dtype=np.float64)
    if len(sides[0]) < 3 or any(np.ptp(side) == 0 for side in sides):
        return None
    found = float(np.corrcoef(*sides)[0, 1])
    return found if np.isfinite(found) else None


def difference(one: Estimate, other: Estimate) -> Estimate:
    """Return one mean less another of independent values, with its interval.

    MOVER (Zou & Donner 2008, "Construction of confidence limits about effect measures"): each end is as far from the
    difference as the two distances to the ends that pull there, added as squares. `num` is that of both together.
    """
    mean = one.mean - other.mean
    below = ((one.mean - one.low) ** 2 + (other.high - other.mean) ** 2) ** 0.5
    above = ((one.high - one.mean) ** 2 + (other.mean - other.low) ** 2) ** 0.5
    num, clusters = one.num + other.num, one.num_clusters + other.num_clusters
    return Estimate(mean, mean - below, mean + above, num, clusters, one.confidence)


def _resampled_means(sums: np.ndarray, counts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    num, per_chunk = len(sums), max(1, 4_000_000 // len(sums))
    chunks = []
    for start in range(0, NUM_RESAMPLES, per_chunk):
        drawn = rng.integers(0, num, size=(min(per_chunk, NUM_RESAMPLES - start), num))
        chunks.append(sums[drawn].sum(1) / counts[drawn].sum(1))
    return np.concatenate(chunks)
