"""How sure a linear model is of pairs that it was not fitted on.

Owns the richer predictor of the label-noise audit: its regularisation, its features side by side, its margins out of
fold. What disagreement means is told by `noise`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiebreak.doctor.labels.crossfit import Floats, Ints, fit_lbfgs, folds_of, log_loss, subsample
from tiebreak.maths.intervals import Share, wilson_share

MAX_TUNING_PAIRS = 20_000
RIDGES = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
WORDS_WEIGHT = 3.0
"""Length of a row of words beside the features' mean length 1: measured, see benchmarks/label_noise.py."""


@dataclass(frozen=True)
class Margins:
    """Logits that the chosen completion is the better one, each from a model that saw no pair of its cluster."""

    values: Floats
    clusters: NDArray[Any]
    accuracy: Share
    ridges: tuple[float, ...]
    """The regularisation that each fold's training pairs chose."""


def fit_margins(
    features: Any, clusters: NDArray[Any], num_folds: int = 5, ridges: tuple[float, ...] = RIDGES
) -> Margins:
    """Return out-of-fold margins of a ridge logistic model on features (chosen minus rejected; dense or scipy CSR).

    Each fold's regularisation is the one that does best on another fold when fitted on the rest, both inside its
    training pairs; on at most MAX_TUNING_PAIRS pairs, above which the choice hardly moves. The search goes from the
    strongest on and ends where it gets worse: weak ones are slow to fit.
    """
    folds, chosen = folds_of(clusters, num_folds), []
    values = np.zeros(len(clusters))
    for fold in range(num_folds):
        held = folds == fold
        ridge = _best_ridge(features, clusters, folds, fold, num_folds, ridges)
        chosen.append(ridge)
        values[held] = features[held] @ fit_lbfgs(features[~held], ridge)
    accuracy = wilson_share(0.5 + 0.5 * np.sign(values), clusters)
    return Margins(values, clusters, accuracy, tuple(chosen))


def _best_ridge(
    features: Any, clusters: NDArray[Any], folds: Ints, fold: int, num_folds: int, ridges: tuple[float, ...]
) -> float:
    inside = np.flatnonzero(folds != fold)
    inside = inside[subsample(clusters[inside], MAX_TUNING_PAIRS)]
    judged = folds[inside] == (fold + 1) % num_folds
    fitted, held = features[inside[~judged]], features[inside[judged]]
    share = len(inside) / int((folds != fold).sum())
    best, least, weights = max(ridges), float("inf"), None
    for ridge in sorted(ridges, reverse=True):
        weights = fit_lbfgs(fitted, ridge * share, weights)
        if (loss := log_loss(held @ weights)) >= least:
            break
        best, least = ridge, loss
    return best


def side_by_side(features: NDArray[Any], words: Any, words_weight: float = WORDS_WEIGHT) -> Any:
    """Return one CSR matrix of dense features (scaled to rows of mean square length 1) and word differences."""
    from scipy.sparse import csr_matrix, hstack  # noqa: PLC0415  loaded where it is used: `import tiebreak` stays fast

    size = np.sqrt((features.astype(np.float64) ** 2).mean(0)) * features.shape[1] ** 0.5
    return hstack([csr_matrix(features / np.where(size > 0, size, 1.0)), words * words_weight]).tocsr()
