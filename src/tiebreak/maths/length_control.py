"""A win rate as it would be if the answers were of the same length.

Owns the logistic model of preference on an intercept and a length term (Dubois, Galambosi, Liang & Hashimoto 2024,
"Length-controlled AlpacaEval", eq. 2). Pure: numbers and a seed in, numbers out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tiebreak.maths.stats import Estimate

RIDGE = 0.1
"""Weight of ½ (theta² + phi²) beside the log-likelihood of all items: a tenth of one item, so that a model that wins
every time has a finite intercept."""
LEAST_SIDE = 0.1
"""Share of the items that must lie on either side of equal length, or at it: one side alone says nothing of
what would be at zero."""
LEAST_SPREAD = 0.1
"""Share of the length term's second moment that must be variance: below it, length and merit cannot be told apart."""
NUM_RESAMPLES = 2_000
_MOST_WEIGHTS = 2_000_000
_MOST_STEPS = 50

Floats = NDArray[np.float64]


def length_controlled(
    preferences: Sequence[float],
    length_differences: Sequence[float],
    clusters: Sequence[str],
    seed: int,
    confidence: float = 0.95,
) -> Estimate | None:
    """Return the win rate with the length term set to zero, with its interval over clusters.

    logit P(preferred) = theta + phi · tanh(d / s), where d is the difference of lengths and s its standard deviation;
    the win rate is the logistic of theta. Preferences lie in [0, 1]. Wins and losses swapped, with the sign of d, give
    one less the win rate. The interval is that of `maths.paired`: random weights of whole clusters, and one more
    cluster that loses (wins) at equal length.

    None where the differences are so much alike that length and merit cannot be told apart, as when every answer has
    grown by about as much: any number would be a guess.
    """
    y, d = np.asarray(preferences, dtype=np.float64), np.asarray(length_differences, dtype=np.float64)
    if not len(y) == len(d) == len(clusters) or not len(y):
        raise ValueError("preferences, length differences and clusters are of the same length, at least one")
    term = length_term(d)
    if not _tells(term):
        return None
    _, index = np.unique(np.asarray(clusters), return_inverse=True)
    num_clusters = int(index.max()) + 1
    mean = float(_intercepts(y, term, np.ones((1, len(y))))[0])
    rng, size = np.random.default_rng(seed), len(y) / num_clusters
    bounds: dict[float, list[Floats]] = {0.0: [], 1.0: []}
    for start in range(0, NUM_RESAMPLES, per_chunk := max(1, _MOST_WEIGHTS // (len(y) + 1))):
        drawn = rng.standard_exponential((min(per_chunk, NUM_RESAMPLES - start), num_clusters + 1))
        weights = np.column_stack([drawn[:, index], drawn[:, -1] * size])
        weights *= len(y) / weights.sum(1, keepdims=True)
        for end, found in bounds.items():
            found.append(_intercepts(np.append(y, end), np.append(term, 0.0), weights))
    tail = (1 - confidence) / 2
    low = float(np.quantile(np.concatenate(bounds[0.0]), tail))
    high = float(np.quantile(np.concatenate(bounds[1.0]), 1 - tail))
    return Estimate(
        _logistic(mean), min(_logistic(low), _logistic(mean)), max(_logistic(high), _logistic(mean)),
        len(y), num_clusters, confidence,
    )  # fmt: skip


def pseudo_values(preferences: Sequence[float], length_differences: Sequence[float]) -> list[float] | None:
    """Return a value for each item whose mean is the length-controlled win rate and whose spread is that of its error.

    n · w − (n − 1) · w without the item: the jackknife's pseudo-values (Tukey 1958; Efron & Tibshirani 1993, ch. 11),
    so that the slope of length counts as an estimate, too. They may lie outside 0..1. None as `length_controlled`.
    """
    y, term = np.asarray(preferences, dtype=np.float64), length_term(np.asarray(length_differences, dtype=np.float64))
    num = len(y)
    if num < 2 or not _tells(term):
        return None
    whole = float(_intercepts(y, term, np.ones((1, num)))[0])
    without: list[Floats] = []
    for start in range(0, num, per_chunk := max(1, _MOST_WEIGHTS // num)):
        left_out = np.arange(start, min(start + per_chunk, num))
        weights = np.ones((len(left_out), num))
        weights[np.arange(len(left_out)), left_out] = 0
        without.append(_intercepts(y, term, weights))
    values: list[float] = [num * _logistic(whole) - (num - 1) * _logistic(one) for one in np.concatenate(without)]
    return values


def _tells(term: Floats) -> bool:
    """Say whether length and merit can be told apart: differences differ, and not in one direction alone."""
    second_moment = float(np.mean(term**2))
    if not second_moment:
        return True
    sides = min(float(np.mean(term <= 0)), float(np.mean(term >= 0)))
    return float(np.var(term)) >= LEAST_SPREAD * second_moment and sides >= LEAST_SIDE


def length_term(length_differences: Floats) -> Floats:
    """Return tanh(d / s) of each difference; 0 where none differs."""
    spread = float(np.std(length_differences))
    if not spread:  # all alike: only the sign is left
        return np.sign(length_differences)
    return np.tanh(length_differences / spread)


def _intercepts(y: Floats, term: Floats, weights: Floats) -> Floats:
    """Return theta of the model for each row of weights, by Newton's method on two parameters."""
    theta, phi = np.zeros(len(weights)), np.zeros(len(weights))
    for _ in range(_MOST_STEPS):
        p = 1 / (1 + np.exp(-(theta[:, None] + phi[:, None] * term)))
        residual, curve = weights * (y - p), weights * p * (1 - p)
        slope_theta, slope_phi = residual.sum(1) - RIDGE * theta, residual @ term - RIDGE * phi
        a, b, c = curve.sum(1) + RIDGE, curve @ term, curve @ term**2 + RIDGE
        determinant = a * c - b * b
        step_theta, step_phi = (c * slope_theta - b * slope_phi) / determinant, (a * slope_phi - b * slope_theta)
        step_phi = step_phi / determinant
        # A whole step may overshoot where all is won; two units of log-odds never do.
        scale = np.minimum(1.0, 2.0 / np.maximum(1e-300, np.maximum(abs(step_theta), abs(step_phi))))
        theta, phi = theta + scale * step_theta, phi + scale * step_phi
        if float(np.max(np.maximum(abs(step_theta), abs(step_phi)))) < 1e-10:
            break
    return theta


def _logistic(value: float) -> float:
    return float(1 / (1 + np.exp(-value)))
