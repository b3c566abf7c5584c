"""How far superficial features tell chosen from rejected, or liked from disliked: what a trained model must beat.

Owns the shortcut audit: held-out accuracy of every feature alone, of length above all, and of all of them together.
Features of pairs come as differences, chosen minus rejected (see `crossfit` for why no intercept); of completions on
their own as they are, and the accuracy is how often a liked one has more of it than a disliked one (the area under the
ROC curve). What they measure is not known here. A high accuracy is no defect of the labels: it says what a model could
learn instead of quality.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiebreak.doctor.labels.crossfit import Floats, Ints, fit_newton, folds_of, subsample
from tiebreak.maths.intervals import Share, clustered_auc, wilson_share

MIN_ROWS, MIN_CLUSTERS = 40, 20
"""Pairs, or completions, and the clusters that they are in."""
MAX_ROWS = 200_000
"""More are thinned to whole clusters: the interval is ± 0.3 % by then."""
RIDGE = 1.0


@dataclass(frozen=True)
class FeatureRow:
    """One feature: its accuracy alone, and its weight beside the others."""

    name: str
    alone: Share
    coefficient: float
    """Change of the logit as it grows by its root mean square, all rows fitted; > 0: more is better."""

    def as_dict(self) -> dict[str, Any]:
        """Return the accuracy and the weight, for JSON."""
        accuracy, coefficient = round(self.alone.value, 4), round(self.coefficient, 3)
        return {"name": self.name, "accuracy": accuracy, "coefficient": coefficient}


@dataclass(frozen=True)
class Shortcut:
    """Held-out accuracies with 95 % intervals, robust to several rows of a cluster."""

    length: Share
    together: Share
    rows: tuple[FeatureRow, ...]
    num_rows: int
    """How many pairs or completions were looked at; fewer than were given where there are more than MAX_ROWS."""
    num_given: int
    unit: str = "pairs"

    def as_dict(self) -> dict[str, Any]:
        """Return the accuracies, for JSON."""
        length, features = (
            {"accuracy": round(share.value, 4), "low": round(share.low, 4), "high": round(share.high, 4)}
            for share in (self.length, self.together)
        )
        is_thinned = self.num_rows < self.num_given
        thinned = f"measured on {self.num_rows} of {self.num_given} {self.unit}" if is_thinned else ""
        return {
            "length": length,
            "features": features,
            f"num_{self.unit}": self.num_rows,
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
    rows, kept = _thinned(clusters)
    if (few := _too_few(kept, "pairs")) is not None:
        return few
    scaled = _scaled(np.asarray(features[rows], np.float64))  # nothing is subtracted: a difference of 0 must stay 0
    by_feature, by_all = _correct(scaled, folds_of(kept, num_folds))
    alone = [wilson_share(column, kept) for column in by_feature.T]
    found = _rows(names, alone, fit_newton(scaled, RIDGE))
    return Shortcut(alone[length], wilson_share(by_all, kept), found, len(rows), len(clusters))


def find_shortcuts_apart(
    features: NDArray[Any],
    liked: NDArray[np.bool_],
    names: Sequence[str],
    clusters: NDArray[Any],
    length: int = 0,
    num_folds: int = 5,
) -> Shortcut | TooFew:
    """Return how well features [completions, k] tell liked completions from disliked ones.

    As `find_shortcuts`, but for completions that were judged on their own. The accuracy of a feature alone, of which
    nothing is fitted, is how often a liked one has more of it than a disliked one, of any prompts; below one half less
    of it is liked. All together are a logistic regression with an intercept, on clusters it was not fitted on.
    """
    if features.shape != (len(clusters), len(names)) or liked.shape != (len(clusters),):
        raise ValueError(f"features of {features.shape} do not fit {len(clusters)} completions and {len(names)} names")
    rows, kept = _thinned(clusters)
    good = liked[rows]
    if (few := _too_few(kept, "completions")) is not None:
        return few
    if not 0 < good.sum() < len(good):
        return TooFew("every completion has the same label")
    values = np.asarray(features[rows], np.float64)
    scaled = _scaled(values - values.mean(0))
    alone = [clustered_auc(column, good, kept) for column in scaled.T]
    whole = np.concatenate([scaled, np.ones((len(scaled), 1))], axis=1)
    turned = np.where(good[:, None], whole, -whole)  # P(liked) = sigmoid(w · x) is what `fit_newton` fits to these
    together, folds = np.empty(len(scaled)), folds_of(kept, num_folds)
    for fold in np.unique(folds):
        held = folds == fold
        # Folds differ in their intercepts, too, which say nothing of a completion: these are left out.
        together[held] = scaled[held] @ fit_newton(turned[~held], RIDGE)[:-1]
    found, by_all = _rows(names, alone, fit_newton(turned, RIDGE)[:-1]), clustered_auc(together, good, kept)
    return Shortcut(alone[length], by_all, found, len(rows), len(clusters), "completions")


def _thinned(clusters: NDArray[Any]) -> tuple[Ints, NDArray[Any]]:
    """Return the rows that are looked at, and their clusters."""
    rows = subsample(clusters, MAX_ROWS)
    return rows, clusters[rows]


def _too_few(clusters: NDArray[Any], unit: str) -> TooFew | None:
    num_clusters = len(np.unique(clusters))
    if len(clusters) >= MIN_ROWS and num_clusters >= MIN_CLUSTERS:
        return None
    wanted = f"at least {MIN_ROWS} {unit} in {MIN_CLUSTERS} clusters are needed"
    return TooFew(f"{len(clusters)} {unit} in {num_clusters} clusters: {wanted}")


def _scaled(values: Floats) -> Floats:
    """Return columns divided by their root mean square; raises ValueError where one is not finite."""
    if not np.isfinite(values).all():
        raise ValueError("features are finite numbers")
    size = np.sqrt((values**2).mean(0))
    return values / np.where(size > 0, size, 1.0)


def _rows(names: Sequence[str], alone: Sequence[Share], coefficients: Floats) -> tuple[FeatureRow, ...]:
    return tuple(FeatureRow(*row) for row in zip(names, alone, coefficients.tolist(), strict=True))


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
