"""Intervals of shares by formula, for counts too many to resample.

Owns Wilson's interval and its form for clusters. `maths.stats` resamples, which is better for a few hundred prompts;
here a million pairs take milliseconds. Does not know what a share is a share of.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Share:
    """A share with its 95 % interval; `num` cases in `num_clusters` independent groups."""

    value: float
    low: float
    high: float
    num: int
    num_clusters: int


Numbers = int | float | NDArray[Any]
"""One number, or one each for many shares."""


def wilson(share: Numbers, num: Numbers, confidence: float = 0.95) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return lower and upper bounds of shares of `num` cases each; (0, 1) where there is no case.

    Wilson 1927, "Probable inference, the law of succession, and statistical inference". `num` may be fractional.
    """
    z2 = NormalDist().inv_cdf(0.5 + confidence / 2) ** 2
    p, n = np.asarray(share, dtype=np.float64), np.maximum(np.asarray(num, dtype=np.float64), 1e-12)
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = np.sqrt(z2 * (p * (1 - p) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    return np.asarray(np.clip(centre - half, 0, 1)), np.asarray(np.clip(centre + half, 0, 1))


def wilson_share(values: NDArray[np.float64], clusters: NDArray[Any]) -> Share:
    """Return the mean of values in [0, 1] whose cases are dependent within a cluster."""
    _, index = np.unique(clusters, return_inverse=True)
    sums = np.bincount(index, weights=values).astype(np.float64)
    return clustered_ratio(sums, np.bincount(index).astype(np.float64))


def clustered_ratio(numerators: NDArray[np.float64], denominators: NDArray[np.float64]) -> Share:
    """Return sum(numerators) / sum(denominators) in [0, 1], an entry a cluster, with Wilson's interval.

    The interval is that of the effective number of cases: what a simple share of the same variance would have (Korn &
    Graubard 1998), the variance being the linearised one of a ratio over clusters. It is never above the cases, and the
    number of clusters where nothing varies.
    """
    total, num_clusters = float(denominators.sum()), len(denominators)
    ratio = float(numerators.sum()) / total
    residuals = numerators - ratio * denominators
    variance = float(residuals @ residuals) / total**2 * num_clusters / max(num_clusters - 1, 1)
    effective = ratio * (1 - ratio) / variance if variance > 0 else num_clusters
    low, high = wilson(ratio, min(effective, total))
    return Share(ratio, float(low), float(high), round(total), num_clusters)


def clustered_auc(values: NDArray[np.float64], positive: NDArray[np.bool_], clusters: NDArray[Any]) -> Share:
    """Return how often a positive case has the higher value than a negative one, a tie being one half: the area under
    the ROC curve (Hanley & McNeil 1982), with an interval that knows of cases that are dependent within a cluster.

    With M positive cases x and N negative ones y, V(x) = share of y below x, V(y) = share of x above y, and the
    variance is that of the sums over clusters of (V(x) − AUC)/M + (V(y) − AUC)/N (DeLong et al. 1988; Obuchowski 1997,
    for clusters). The interval is Wilson's with the effective number of cases, as in `clustered_ratio`. At least one
    case of each sort.
    """
    high, low = np.sort(values[positive]), np.sort(values[~positive])
    parts = np.empty(len(values))
    for own, other, sign in ((positive, low, 1), (~positive, high, -1)):
        below, up_to = (np.searchsorted(other, values[own], side) for side in ("left", "right"))
        share = (below + up_to) / (2 * len(other))
        parts[own] = share if sign > 0 else 1 - share
    auc = float(parts[positive].mean())
    influence = (parts - auc) / np.where(positive, len(high), len(low))
    _, index = np.unique(clusters, return_inverse=True)
    sums = np.bincount(index, weights=influence)
    num_clusters = len(sums)
    variance = float(sums @ sums) * num_clusters / max(num_clusters - 1, 1)
    effective = auc * (1 - auc) / variance if variance > 0 else num_clusters
    bounds = wilson(auc, min(effective, len(values)))
    return Share(auc, float(bounds[0]), float(bounds[1]), len(values), num_clusters)
