"""How many labels are flipped, and which ones: estimates from four kinds of evidence.

Owns the label-noise audit. Noise is symmetric here: with probability e the preferred completion was written down as the
rejected one, whatever the pair (Natarajan et al. 2013 call it class-conditional noise with equal rates). The sources:

margins   a model's logits on pairs it was not fitted on. Where it is nearly sure, what still disagrees is noise: e is
          the lapse rate of the curve of agreement over margin (Wichmann & Hill 2001). The idea to find label errors by
          predictions out of sample is confident learning's (Northcutt et al. 2021); thresholds are not used, for they
          take a weak model's mistakes for noise.
repeats   independent judgements of the same comparison contradict each other at the rate c = 2e(1 − e).
votes     the same within a pair's annotators; the label is their majority, so its error is smaller than a vote's.
scores    the share of pairs whose stated scores contradict the label: a count and no estimate.

These are estimates. A model that is never nearly sure cannot tell noise from hard pairs: the margin's interval is wide
then, and it should be believed. A model that is overconfident, or wrong for reasons of its own where it is sure, shows
up as noise. Honest differences of taste count as noise wherever judgements are compared.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiebreak.doctor.labels.crossfit import Floats, Ints, fit_newton, sigmoid
from tiebreak.doctor.labels.margins import Margins
from tiebreak.doctor.report import rounded
from tiebreak.maths.intervals import clustered_ratio, wilson_share

MIN_PAIRS, MIN_CLUSTERS = 100, 20
RATES = np.linspace(0, 0.495, 199)
STEEPNESS = np.geomspace(0.05, 20, 61)
NUM_BINS = 1000
VOTE_RATES = np.concatenate([np.geomspace(1e-5, 0.01, 60), np.linspace(0.0125, 0.4975, 195)])
CHI2_95 = 3.841458820694124
WIDE = 0.2


@dataclass(frozen=True)
class NoiseEstimate:
    """The share of flipped labels by one source, with a 95 % interval; `num` is what it was seen on."""

    source: str
    value: float
    low: float
    high: float
    num: int
    note: str

    def as_dict(self) -> dict[str, Any]:
        """Return the estimate, for JSON."""
        return {
            "name": self.source,
            "estimate": rounded(self.value),
            "low": rounded(self.low),
            "high": rounded(self.high),
            "num": self.num,
            "note": self.note,
        }


@dataclass(frozen=True)
class LabelNoise:
    """All estimates that the data allow, and per pair the probability that its label is flipped."""

    estimates: tuple[NoiseEstimate, ...]
    suspicion: Floats
    """NaN where no source says anything about the pair."""

    @property
    def surest(self) -> NoiseEstimate | None:
        """The estimate with the narrowest interval; None without any source that judges labels.

        Stated scores do not: they are usually what the label was made from.
        """
        judging = [found for found in self.estimates if found.source != "scores"]
        return min(judging, key=lambda found: found.high - found.low, default=None)

    def as_dict(self) -> dict[str, Any] | None:
        """Return the surest estimate with all of them, for JSON; None where no source judges labels."""
        if self.surest is None:
            return None
        surest = self.surest.as_dict()
        whole = {name: surest[name] for name in ("estimate", "low", "high")}
        return whole | {"sources": [found.as_dict() for found in self.estimates]}


@dataclass(frozen=True)
class Lapse:
    """P(label | margin m) = e + (1 − 2e) sigmoid(s m), fitted: `estimate` holds e, `slope` is s."""

    estimate: NoiseEstimate
    slope: float


def lapse_rate(margins: Margins) -> Lapse:
    """Estimate e and s; the interval of e is the shortest one that holds 95 % of its posterior.

    Where a model is weak the likelihood hardly tells a lapse from a flat curve, and its maximum runs to either end. So
    it is averaged instead, over a uniform e and a lognormal slope at margin 0 around that of the logistic fit (standard
    deviation a factor of 2.7). The likelihood is tempered by the design effect of e's score over clusters where that
    is above 1, so that repeated prompts do not narrow the interval.
    """
    unit = max(float(fit_newton(margins.values[:, None], 1e-6)[0]), 1e-9)
    # In bins of equal counts the likelihood hardly changes.
    bins = np.array_split(np.sort(margins.values), min(NUM_BINS, len(margins.values)))
    centres, counts = np.array([part.mean() for part in bins]) * unit, np.array([float(len(part)) for part in bins])
    likelihood = np.empty((len(RATES), len(STEEPNESS)))
    for row, rate in enumerate(RATES):  # steepness is the curve's slope at margin 0: (1 − 2e) s
        agree = rate + (1 - 2 * rate) * sigmoid(np.outer(STEEPNESS / (1 - 2 * rate), centres))
        likelihood[row] = np.log(np.maximum(agree, 1e-300)) @ counts
    prior = -0.5 * np.log(STEEPNESS) ** 2
    rate, slope, _, _ = _summary(likelihood + prior)
    likelihood /= _design_effect(margins, rate, slope * unit)
    rate, slope, low, high = _summary(likelihood + prior)
    note = f"the model predicts {margins.accuracy.value:.0%} of held-out labels"
    if high - low > WIDE:
        note += "; it is hardly ever nearly sure, which leaves much open"
    return Lapse(NoiseEstimate("margins", rate, low, high, len(margins.values), note), slope * unit)


def _summary(log_posterior: Floats) -> tuple[float, float, float, float]:
    """Return the posterior mean of e, its slope, and the interval of highest density."""
    posterior = np.exp(log_posterior - log_posterior.max())
    density = posterior.sum(1) / posterior.sum()
    rate = float(density @ RATES)
    steepness = float(np.exp(posterior.sum(0) @ np.log(STEEPNESS) / posterior.sum()))
    order = np.argsort(-density, kind="stable")
    inside = RATES[order[: int(np.searchsorted(np.cumsum(density[order]), 0.95)) + 1]]
    return rate, steepness / (1 - 2 * rate), float(inside.min()), float(inside.max())


def _design_effect(margins: Margins, rate: float, slope: float) -> float:
    agree = sigmoid(slope * margins.values)
    score = (1 - 2 * agree) / np.maximum(rate + (1 - 2 * rate) * agree, 1e-12)
    score -= score.mean()
    _, index = np.unique(margins.clusters, return_inverse=True)
    between = float((np.bincount(index, weights=score) ** 2).sum())
    within = float(score @ score)
    return max(1.0, between / within) if within > 0 else 1.0


def flip_probability(margins: Floats, slope: float, rate: float | Floats) -> Floats:
    """Return P(label is flipped | label, margin): e sigmoid(−s m) / (e + (1 − 2e) sigmoid(s m)), by Bayes' rule.

    `rate` is the probability before the margin is seen, one for all or one a pair (from its votes).
    """
    agree = sigmoid(slope * margins)
    found: Floats = rate * (1 - agree) / np.maximum(rate + (1 - 2 * rate) * agree, 1e-300)
    return found


def rate_of_contradiction(contradicted: float) -> float:
    """Return e of c = 2e(1 − e); 0.5 where c is 0.5 or more."""
    return 0.5 * (1 - math.sqrt(max(0.0, 1 - 2 * contradicted)))


def from_repeats(
    prompt: NDArray[np.uint64], chosen: NDArray[np.uint64], rejected: NDArray[np.uint64]
) -> NoiseEstimate | None:
    """Estimate e from comparisons that were judged several times; None where there is none.

    Every two judgements of a comparison count once, comparisons are the clusters. Copies of one judgement are no
    independent repeats and make the estimate too small: pass pairs without the ones that are known to be copies.
    """
    differ = chosen != rejected
    prompt, chosen, rejected = prompt[differ], chosen[differ], rejected[differ]
    low, high = np.minimum(chosen, rejected), np.maximum(chosen, rejected)
    order = np.lexsort((high, low, prompt))
    columns = [prompt[order], low[order], high[order]]
    new = np.any([column[1:] != column[:-1] for column in columns], axis=0)
    index = np.concatenate([[0], np.cumsum(new)]) if len(order) else np.zeros(0, dtype=np.int64)
    num = np.bincount(index).astype(np.float64)
    forward = np.bincount(index, weights=(chosen == low)[order])
    repeated = num >= 2
    if not repeated.any():
        return None
    num, forward = num[repeated], forward[repeated]
    share = clustered_ratio(forward * (num - forward), num * (num - 1) / 2)
    value, lower, upper = (rate_of_contradiction(c) for c in (share.value, share.low, share.high))
    return NoiseEstimate("repeats", value, lower, upper, int(num.sum()), f"{len(num)} comparisons were judged again")


def from_votes(wins: Ints, losses: Ints) -> tuple[NoiseEstimate, Floats] | None:
    """Estimate the share of wrong majorities from annotators' votes for chosen (`wins`) and rejected (`losses`).

    Every vote is wrong with one probability v, independently (Dawid & Skene 1979 with one coin for all). Pairs whose
    votes are equal made no label, so the likelihood is that of the minority's size given that there is a majority; two
    votes therefore say nothing. Returns also each pair's probability of a wrong label (NaN without a vote). None where
    no pair has three votes. Equal difficulty is assumed: where some pairs are much harder, their labels are wrong more
    often than this says and the others' less.
    """
    judged = (wins + losses >= 3) & (wins != losses)
    if not judged.any():
        return None
    likelihood = _vote_likelihood((wins + losses)[judged], np.minimum(wins, losses)[judged])
    best = float(VOTE_RATES[likelihood.argmax()])
    inside = VOTE_RATES[2 * (likelihood.max() - likelihood) <= CHI2_95]
    lead = (wins - losses).astype(np.float64)
    wrong = [
        np.where(wins + losses > 0, sigmoid(np.float64(math.log(rate / (1 - rate))) * lead), np.nan)
        for rate in (best, float(inside.min()), float(inside.max()))
    ]
    value, low, high = (float(np.mean(share[judged])) for share in wrong)
    note = f"one vote is wrong at {best:.1%}"
    return NoiseEstimate("votes", value, low, high, int(judged.sum()), note), wrong[0]


def _vote_likelihood(num: Ints, minority: Ints) -> Floats:
    """Return the log-likelihood of VOTE_RATES: P(minority | votes, no tie), both sides of the coin put together."""
    from scipy.special import gammaln  # noqa: PLC0415  loaded where it is used: `import tiebreak` stays fast

    right, wrong = np.log1p(-VOTE_RATES)[:, None], np.log(VOTE_RATES)[:, None]
    found = np.zeros(len(VOTE_RATES))
    kinds, counts = np.unique(np.column_stack([num, minority]), axis=0, return_counts=True)
    for (total, small), count in zip(kinds.tolist(), counts.tolist(), strict=True):
        k = np.arange((total + 1) // 2)
        ways = -gammaln(k + 1) - gammaln(total - k + 1)
        chances = ways + np.logaddexp(k * wrong + (total - k) * right, (total - k) * wrong + k * right)
        found += count * (chances[:, small] - np.logaddexp.reduce(chances, axis=1))
    return found


def from_scores(chosen: Floats, rejected: Floats) -> NoiseEstimate | None:
    """Count the pairs whose stated scores say the opposite of the label (NaN: not stated; equal scores say nothing)."""
    told = ~np.isnan(chosen) & ~np.isnan(rejected) & (chosen != rejected)
    if not told.any():
        return None
    inverted = (chosen < rejected)[told].astype(np.float64)
    share = wilson_share(inverted, np.arange(len(inverted)))
    note = f"{int(inverted.sum())} labels contradict their scores"
    return NoiseEstimate("scores", share.value, share.low, share.high, len(inverted), note)


def label_noise(
    num_pairs: int,
    *,
    margins: Margins | None = None,
    repeats: NoiseEstimate | None = None,
    votes: tuple[NoiseEstimate, Floats] | None = None,
    scores: NoiseEstimate | None = None,
) -> LabelNoise:
    """Put together what is known; `margins` are used from MIN_PAIRS pairs in MIN_CLUSTERS clusters on.

    Suspicion starts from the pair's votes where it has any, else from the estimated rate, and takes in its margin.
    """
    enough = margins is not None and len(margins.values) >= MIN_PAIRS and margins.accuracy.num_clusters >= MIN_CLUSTERS
    lapse = lapse_rate(margins) if margins is not None and enough else None
    prior = np.full(num_pairs, np.nan) if votes is None else votes[1].copy()
    suspicion = prior
    if margins is not None and lapse is not None:
        prior = np.where(np.isnan(prior), lapse.estimate.value, prior)
        suspicion = flip_probability(margins.values, lapse.slope, prior)
    found = (None if lapse is None else lapse.estimate, repeats, None if votes is None else votes[0], scores)
    return LabelNoise(tuple(estimate for estimate in found if estimate is not None), suspicion)
