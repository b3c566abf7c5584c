"""How far a mean lies from a threshold, or after from before on the same items, and how surely.

Owns resampling of values whose prompts repeat, exact tests of signs, and Holm's correction. Pure: numbers and a seed
in, numbers out. `maths.stats` is for the before/after table; a verdict needs bounds that hold for few prompts, rare
events and values that are all the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiebreak.maths.stats import Estimate

NUM_RESAMPLES = 10_000
_MOST_WEIGHTS = 4_000_000

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Resampled:
    """A mean under resampling: what an interval of any confidence and the p-value of any threshold are read from."""

    mean: float
    standard_error: float
    """Linearised, over clusters; 0 where there is one cluster or all are alike."""
    num: int
    num_clusters: int
    lower: Floats
    """Means with one more cluster at the lower end of what is possible, sorted."""
    upper: Floats
    """The same with one more at the upper end."""

    def interval(self, confidence: float = 0.95) -> Estimate:
        """Return the mean with its bounds."""
        tail = (1 - confidence) / 2
        low, high = float(np.quantile(self.lower, tail)), float(np.quantile(self.upper, 1 - tail))
        # Between a bound and the mean there can only be the noise of resampling.
        bounds = min(low, self.mean), max(high, self.mean)
        return Estimate(self.mean, *bounds, self.num, self.num_clusters, confidence)

    @property
    def has_width(self) -> bool:
        """Whether there is an interval: values that are all alike, whose ends are not known, say nothing of others."""
        return float(self.upper[-1] - self.lower[0]) > 1e-9 * abs(self.mean)

    def p_value(self, threshold: float) -> float:
        """Return the two-sided p-value of the mean being `threshold`: below alpha where the interval leaves it out."""
        below = 1 + int(np.searchsorted(self.lower, threshold, side="right"))
        above = 1 + len(self.upper) - int(np.searchsorted(self.upper, threshold, side="left"))
        return min(1.0, 2 * min(below, above) / (len(self.lower) + 1))


def resampled(
    values: Sequence[float],
    clusters: Sequence[str],
    ends: tuple[float, float] | None,
    seed: int,
    num_resamples: int = NUM_RESAMPLES,
) -> Resampled:
    """Return the mean of values under random weights of whole clusters, one more cluster at an end of what is possible.

    `ends` are the least and the greatest possible value; None: the extreme clusters that were seen stand for them.

    Pairs of one prompt are not independent, so a prompt is weighted with all its values. The weights are Dirichlet
    (Rubin 1981, the Bayesian bootstrap) over the clusters and one more at the end of the range: Gaffke 2005 (Learned-
    Miller & Thomas 2019, "A new confidence interval for the mean of a bounded random variable"). For values 0 and 1
    these are the exact bounds of Clopper & Pearson 1934; where all values are the same and `ends` are known, the bound
    is the one that n equal values of n allow, and not an interval without width (`has_width`). The percentile
    bootstrap, and BCa, which is no number where all are the same, take what was never seen for impossible: where 5 % of
    all answers loop, one of 64 does in an eighth of all samples, and their upper bound is then 4.7 %; here it is 8.3 %.
    The order of items does not matter.
    """
    if len(values) != len(clusters) or not len(values):
        raise ValueError("values and clusters are of the same length, at least one")
    _, index = np.unique(np.asarray(clusters), return_inverse=True)
    numbers = np.asarray(values, dtype=np.float64)
    sums, counts = np.bincount(index, weights=numbers), np.bincount(index).astype(np.float64)
    means = sums / counts
    # Neither names nor order of clusters may move a bound, and values of opposite sign have opposite bounds.
    order = np.lexsort((means, counts, np.abs(means)))
    sums, counts, means = sums[order], counts[order], means[order]
    mean, num_clusters = float(sums.sum() / counts.sum()), len(sums)
    residuals = sums - mean * counts
    error = float(np.sqrt(residuals @ residuals * num_clusters / max(num_clusters - 1, 1)) / counts.sum())
    least, greatest = (float(means.min()), float(means.max())) if ends is None else ends
    size, rng = float(counts.mean()), np.random.default_rng(seed)
    # The weights of clusters that are alike are added up at once: of k exponentials the sum is a gamma of shape k.
    first = np.flatnonzero(np.append(True, (np.diff(means) != 0) | (np.diff(counts) != 0)))
    alike = np.append(np.diff(np.append(first, num_clusters)), 1)
    sums, counts, several = sums[first], counts[first], np.flatnonzero(alike > 1)
    lower, upper = np.empty(num_resamples), np.empty(num_resamples)
    for start in range(0, num_resamples, per_chunk := max(1, _MOST_WEIGHTS // len(alike))):
        part = slice(start, start + per_chunk)
        weights = rng.standard_exponential((len(lower[part]), len(alike)))
        weights[:, several] = rng.standard_gamma(alike[several], (len(weights), len(several)))
        total, weight, extra = weights[:, :-1] @ sums, weights[:, :-1] @ counts, weights[:, -1] * size
        lower[part] = (total + extra * least) / (weight + extra)
        upper[part] = (total + extra * greatest) / (weight + extra)
    return Resampled(mean, error, len(numbers), num_clusters, np.sort(lower), np.sort(upper))


def standard_error(values: Sequence[float], clusters: Sequence[int] | Sequence[str]) -> float:
    """Return the linearised standard error of a mean over clusters: infinite where there is one, 0 where all are alike.

    sqrt(G/(G − 1) · Σ_g (Σ_i∈g (x_i − mean))²) / n, over G clusters of n values (Cameron & Miller 2015, CR1).
    """
    numbers = np.asarray(values, dtype=np.float64)
    _, index = np.unique(np.asarray(clusters), return_inverse=True)
    sums = np.bincount(index, weights=numbers - numbers.mean())
    return float(np.sqrt(sums @ sums * len(sums) / (len(sums) - 1)) / len(numbers)) if len(sums) > 1 else float("inf")


def sign_test(values: Sequence[float], clusters: Sequence[str], threshold: float = 0.0) -> float:
    """Return the exact two-sided p-value of as many clusters lying above the threshold as below it.

    A cluster counts once, by its mean; one that lies on the threshold is left out (Dixon & Mood 1946). Where none is
    left, 1. For differences of 0 and 1, an item a cluster, this is McNemar's exact test.
    """
    _, index = np.unique(np.asarray(clusters), return_inverse=True)
    means = np.bincount(index, weights=np.asarray(values, dtype=np.float64)) / np.bincount(index)
    return _of_signs(means - threshold)


def mcnemar(before: Sequence[float], after: Sequence[float]) -> float:
    """Return the exact two-sided p-value of as many items having become right (0 to 1) as wrong (1 to 0).

    McNemar 1947, by the binomial distribution of the items that changed; each item counts as independent.
    """
    return _of_signs(np.asarray(after, dtype=np.float64) - np.asarray(before, dtype=np.float64))


def _of_signs(differences: NDArray[Any]) -> float:
    # scipy.stats has this test, and would take a second to load at the end of every run.
    from scipy.special import bdtr  # noqa: PLC0415  loaded where it is used: `import tiebreak` stays fast

    above, below = int((differences > 0).sum()), int((differences < 0).sum())
    return min(1.0, 2 * float(bdtr(min(above, below), above + below, 0.5))) if above + below else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values that may be compared with one alpha for all of them: Holm 1979, step-down Bonferroni.

    The chance that any true null falls below alpha is then at most alpha, however the tests depend on each other.
    """
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted, least = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = least
    return adjusted
