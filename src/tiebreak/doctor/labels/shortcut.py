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
        """Return the accuracy and the weight, for JSON."""
        accuracy, coefficient = round(self.alone.value, 4), round(self.coefficient, 3)
        return {"name": self.name, "accuracy": accuracy, "coefficient": coefficient}


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
        """Return the accuracies, for JSON."""
        length, features = (
            {"accuracy": round(share.value, 4), "low": round(share.low, 4), "high": round(share.high, 4)}
            for share in (self.length, self.together)
        )
        thinned = f"measured on {self.num_pairs} of {self.num_given} pairs" if self.num_pairs < self.num_given else ""
        return {
            "length": length,
            "features": features,
            "num_pairs": self.num_pairs,
            "num_clusters": self.together.num_clusters,
            "by_feature": [row.as_dict() for row in self.rows],
            "note": thinned,
        }


@dataclass(frozen=True)
class TooFew:
    """Why there is no result."""

    reason: str

    def as_dict(self) -> dict[str, Any]:
        """Return the reason, for JSON."""
        return {"note": self.reason}


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
    scaled = np.asarray(features[rows], dtype=np.float64)
    if not np.isfinite(scaled).all():
        raise ValueError("features are finite numbers")
    size = np.sqrt((scaled**2).mean(0))
    scaled = scaled / np.where(size > 0, size, 1.0)  # nothing is subtracted: a difference of 0 must stay 0
    by_feature, by_all = _correct(scaled, folds_of(kept, num_folds))
    alone = [clustered_share(column, kept) for column in by_feature.T]
    coefficients, different = fit_newton(scaled, RIDGE), (scaled != 0).mean(0)
    numbers = zip(names, alone, coefficients.tolist(), different.tolist(), strict=True)
    found = tuple(FeatureRow(*row) for row in numbers)
    return Shortcut(alone[length], clustered_share(by_all, kept), found, len(rows), len(clusters))


def _correct(scaled: Floats, folds: Ints) -> tuple[Floats, Floats]:
    """Return how right each feature's sign is, [pairs, k], and all features together, [pairs]; a tie is one half.

    A direction that the other folds leave open is a tie, too.
    """
    signs, together = np.sign(scaled), np.empty(len(scaled))
    totals, alone = signs.sum(0), np.empty_like(signs)
    for fold in np.unique(folds):
        held = folds == fold
        alone[held] = 0.5 + 0.5 * signs[held] * np.sign(totals - signs[held].sum(0))
        together[held] = 0.5 + 0.5 * np.sign(scaled[held] @ fit_newton(scaled[~held], RIDGE))
    return alone, together
