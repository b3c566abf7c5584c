"""How far superficial features tell chosen from rejected: the baseline that a trained model must beat.

Owns the shortcut audit: held-out accuracy of every feature alone, of length above all, and of all of them together.
Features come as differences, chosen minus rejected (see `crossfit` for why no intercept); what they measure is not
known here. A high accuracy is no defect of the labels: it says what a model could learn instead of quality.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiebreak.doctor.labels.crossfit import Floats, Ints, fit_newton, folds_of, subsample
from tiebreak.maths.intervals import Share, clustered_share

MIN_PAIRS, MIN_CLUSTERS = 40, 20
MAX_PAIRS = 200_000
"""More pairs are thinned to whole clusters: the interval is ± 0.3 % by then."""
RIDGE = 1.0


@dataclass(frozen=True)
class FeatureRow:
    """One feature: its held-out accuracy alone, and its weight beside the others."""

    name: str
    alone: Share
    coefficient: float
    """Change of the logit as the difference grows by its root mean square, all pairs fitted; > 0: more wins."""
    share_different: float
    """Share of pairs whose completions differ in it at all; the others count one half in the accuracy."""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields, for JSON."""
        return {**vars(self), "alone": self.alone.as_dict()}


@dataclass(frozen=True)
class Shortcut:
    """Held-out accuracies with 95 % intervals, robust to several pairs of a cluster."""

    length: Share
    together: Share
    rows: tuple[FeatureRow, ...]
    num_pairs: int
    """How many pairs were looked at; fewer than were given where there are more than MAX_PAIRS."""
    num_given: int

    def as_dict(self) -> dict[str, Any]:
        """Return the fields, for JSON."""
        shares = {"length": self.length.as_dict(), "together": self.together.as_dict()}
        return {**vars(self), **shares, "rows": [row.as_dict() for row in self.rows]}


@dataclass(frozen=True)
class TooFew:
    """Why there is no result."""

    reason: str

    def as_dict(self) -> dict[str, Any]:
        """Return the reason, for JSON."""
        return {"reason": self.reason}


def find_shortcuts(
    features: NDArray[Any], names: Sequence[str], clusters: NDArray[Any], length: int = 0, num_folds: int = 5
) -> Shortcut | TooFew:
    """Return how well features [pairs, k], chosen minus rejected, predict the label on clusters not fitted on.

    `clusters` are integer codes of what must not be on both sides (prompt or group); `length` is the column of the
    length difference. A feature alone predicts by its sign, which way is taken from the other folds (so that a data set
    that prefers brevity shows, too); equal values and a logit of 0 are ties and count one half.
    """
    if features.shape != (len(clusters), len(names)):
        raise ValueError(f"features of {features.shape} do not fit {len(clusters)} pairs and {len(names)} names")
    rows = subsample(clusters, MAX_PAIRS)
    kept = clusters[rows]
    num_clusters = len(np.unique(kept))
    if len(rows) < MIN_PAIRS or num_clusters < MIN_CLUSTERS:
        wanted = f"at least {MIN_PAIRS} pairs in {MIN_CLUSTERS} clusters are needed"
        return TooFew(f"{len(rows)} pairs in {num_clusters} clusters: {wanted}")
    scaled = _scaled(np.asarray(features[rows], dtype=np.float64))
    folds = folds_of(kept, num_folds)
    alone = [clustered_share(column, kept) for column in _alone(scaled, folds).T]
    together = clustered_share(_together(scaled, folds), kept)
    return Shortcut(alone[length], together, _rows(names, alone, scaled), len(rows), len(clusters))


def _rows(names: Sequence[str], alone: list[Share], scaled: Floats) -> tuple[FeatureRow, ...]:
    coefficients, different = fit_newton(scaled, RIDGE), (scaled != 0).mean(0)
    numbers = zip(names, alone, coefficients.tolist(), different.tolist(), strict=True)
    return tuple(FeatureRow(*row) for row in numbers)


def _scaled(features: Floats) -> Floats:
    """Divide by the root mean square; nothing is subtracted, for a difference of 0 must stay 0."""
    if not np.isfinite(features).all():
        raise ValueError("features are finite numbers")
    size = np.sqrt((features**2).mean(0))
    return features / np.where(size > 0, size, 1.0)


def _alone(scaled: Floats, folds: Ints) -> Floats:
    """Return correctness [pairs, k] of each sign; a direction that the other folds leave open is a tie."""
    signs = np.sign(scaled)
    correct = np.empty_like(signs)
    totals = np.sign(scaled).sum(0)
    for fold in np.unique(folds):
        held = folds == fold
        correct[held] = 0.5 + 0.5 * signs[held] * np.sign(totals - signs[held].sum(0))
    return correct


def _together(scaled: Floats, folds: Ints) -> Floats:
    correct = np.empty(len(scaled))
    for fold in np.unique(folds):
        held = folds == fold
        correct[held] = 0.5 + 0.5 * np.sign(scaled[held] @ fit_newton(scaled[~held], RIDGE))
    return correct
