"""Linear preference models that never judge a pair of a cluster they were fitted on.

Owns folds, subsamples and the fits. A label says only which completion is the chosen one, and the features of a pair
are chosen minus rejected: put the other way round, both change sign. The problem that does not depend on the order in
which a pair is written down is therefore logistic regression of "chosen first" on the differences, without an
intercept: P(chosen is better) = sigmoid(w · x). Does not know what the features are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

NEWTON_STEPS = 25


def folds_of(clusters: NDArray[Any], num_folds: int = 5) -> Ints:
    """Deal whole clusters into folds of equal numbers of clusters, in an order that only the codes decide."""
    codes, index = np.unique(clusters, return_inverse=True)
    rank = np.empty(len(codes), dtype=np.int64)
    rank[np.argsort(_mixed(codes), kind="stable")] = np.arange(len(codes))
    return (rank % num_folds)[index]


def subsample(clusters: NDArray[Any], limit: int) -> Ints:
    """Return the rows of whole clusters, at most `limit` of them, ascending; the codes decide which.

    A cluster that does not fit any more is passed over. Where none fits, rows of all are taken, at equal distances.
    """
    codes, index, counts = np.unique(clusters, return_inverse=True, return_counts=True)
    if len(clusters) <= limit:
        return np.arange(len(clusters))
    kept, room = np.zeros(len(codes), dtype=np.bool_), limit
    for place in np.argsort(_mixed(codes), kind="stable").tolist():
        if counts[place] <= room:
            kept[place], room = True, room - int(counts[place])
    if not kept.any():
        return np.arange(limit) * len(clusters) // limit
    return np.flatnonzero(kept[index])


def _mixed(codes: NDArray[Any]) -> NDArray[np.uint64]:
    """Scatter integers (the finaliser of SplitMix64: Steele, Lea & Flood 2014)."""
    x = codes.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: NDArray[np.uint64] = x ^ (x >> np.uint64(31))
    return mixed


def fit_newton(features: Floats, ridge: float) -> Floats:
    """Return w minimising sum log(1 + exp(−x · w)) + ridge / 2 |w|², for a few dense columns.

    Newton's method, halving steps that do not descend (the same as iteratively reweighted least squares).
    """
    weights = np.zeros(features.shape[1])
    loss = _loss(features @ weights, weights, ridge)
    for _ in range(NEWTON_STEPS):
        wrong = sigmoid(-(features @ weights))
        gradient = ridge * weights - features.T @ wrong
        curvature = (features * (wrong * (1 - wrong))[:, None]).T @ features + ridge * np.eye(len(weights))
        step = np.linalg.solve(curvature, gradient)
        while (after := _loss(features @ (weights - step), weights - step, ridge)) > loss and np.abs(
            step
        ).max() > 1e-12:
            step /= 2
        weights, loss, done = weights - step, after, np.abs(step).max() < 1e-9
        if done:
            break
    return weights


def fit_lbfgs(features: Any, ridge: float, start: Floats | None = None) -> Floats:
    """Return what `fit_newton` does, for many columns, dense or scipy CSR (L-BFGS: Liu & Nocedal 1989)."""
    from scipy.optimize import minimize  # noqa: PLC0415  loaded where it is used: `import tiebreak` stays fast

    transposed = features.T.tocsr() if hasattr(features, "tocsr") else features.T

    def loss_and_gradient(weights: Floats) -> tuple[float, Floats]:
        logits = features @ weights
        return _loss(logits, weights, ridge), ridge * weights - transposed @ sigmoid(-logits)

    begin = np.zeros(features.shape[1]) if start is None else start
    options = {"maxiter": 200, "gtol": 1e-4 * max(1.0, features.shape[0] ** 0.5)}
    found: Floats = minimize(loss_and_gradient, begin, jac=True, method="L-BFGS-B", options=options).x
    return found


def log_loss(margins: Floats) -> float:
    """Return the mean of −log sigmoid(margin)."""
    return float(np.logaddexp(0, -margins).mean())


def sigmoid(x: Floats) -> Floats:
    """Return 1 / (1 + exp(−x)) without overflow."""
    found: Floats = 0.5 * (1 + np.tanh(0.5 * x))
    return found


def _loss(logits: Floats, weights: Floats, ridge: float) -> float:
    return float(np.logaddexp(0, -logits).sum() + ridge / 2 * (weights @ weights))
