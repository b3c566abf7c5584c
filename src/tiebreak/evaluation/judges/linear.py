"""What is learned from vectors of completions: a direction along which the better of two lies, and what they span.

Owns the Bradley–Terry fit, the choice of its penalty, and how far is far from everything that was seen. Does not know
what the numbers of a vector mean.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiebreak.doctor.labels.crossfit import folds_of, log_loss

Floats = NDArray[np.float64]
STRENGTHS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
"""Inverse strengths of the penalty that are tried."""
NUM_FOLDS = 5
MOST_DIRECTIONS = 64


def better_direction(differences: Floats, groups: Sequence[str]) -> Floats:
    """Return w with P(the first is better) = sigmoid(w · (first − second)), of [pairs, size]: better minus worse.

    Bradley & Terry 1952 with a linear score: logistic regression without an intercept on both orders of each pair, so
    that how it is written down has no say. The L2 penalty is the one of least log loss on pairs of groups that were not
    fitted on; the strongest where there is only one group. Deterministic.
    """
    folds = folds_of(np.unique(np.asarray(groups), return_inverse=True)[1], NUM_FOLDS)
    losses = []
    for strength in STRENGTHS if len(np.unique(folds)) > 1 else STRENGTHS[:1]:
        margins = np.zeros(len(differences))
        for fold in np.unique(folds):
            others = differences[folds != fold]
            if len(others):
                margins[folds == fold] = differences[folds == fold] @ _fitted(others, strength)
        losses.append(log_loss(margins))
    return _fitted(differences, STRENGTHS[int(np.argmin(losses))])


def _fitted(differences: Floats, strength: float) -> Floats:
    from sklearn.exceptions import ConvergenceWarning  # noqa: PLC0415 - a second that only who fits shall wait
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415

    both, labels = np.concatenate([differences, -differences]), np.repeat([1, 0], len(differences))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # near the least is as good, and as deterministic
        fit = LogisticRegression(C=strength, fit_intercept=False, max_iter=300).fit(both, labels)
    found: Floats = fit.coef_[0]
    return found


@dataclass(frozen=True)
class Span:
    """Where vectors lie: their mean, the directions in which they vary most, and how much is left beside those."""

    centre: Floats
    directions: Floats
    """[directions, size], orthonormal."""
    variances: Floats
    """Of each direction."""
    rest: float
    """Mean square of what lies beside all directions."""

    @staticmethod
    def of(vectors: Floats) -> Span:
        """Return the span of [num, size] vectors by their principal components, a quarter as many as vectors."""
        centre = vectors.mean(0)
        _, sizes, directions = np.linalg.svd(vectors - centre, full_matrices=False)
        num = max(1, min(MOST_DIRECTIONS, len(vectors) // 4, len(sizes) - 1))
        squares = sizes**2 / max(1, len(vectors) - 1)
        return Span(centre, directions[:num], squares[:num] + 1e-12, float(squares[num:].sum()) + 1e-12)

    def distances(self, vectors: Floats) -> Floats:
        """Return how far [num, size] vectors lie outside: their squares by the variance, along and beside, summed."""
        moved = vectors - self.centre
        along = moved @ self.directions.T
        beside = np.maximum((moved**2).sum(1) - (along**2).sum(1), 0)
        found: Floats = (along**2 / self.variances).mean(1) + beside / self.rest
        return found
