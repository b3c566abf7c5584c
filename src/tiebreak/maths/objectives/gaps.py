"""Objectives of a difference: one link on the gap between what is scored of chosen and of rejected.

Owns their formulas. Notation: u = log π − log π_ref of a completion, |y| its tokens, a = log π / |y|, D = u_w − u_l,
ψ(h) = −log σ(h). The reward of a completion is the score that the gap is made of, without margins.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch.nn.functional import relu

from tiebreak.maths.losses import Losses
from tiebreak.maths.objectives import links
from tiebreak.maths.objectives.said import Numbers, Pairs


def dpo(pairs: Pairs, *, beta: float, label_smoothing: float, soft_labels: bool) -> Losses:
    """ψ(βD), labels smoothed or soft."""
    label = _label(pairs, label_smoothing, soft=soft_labels)
    return Losses.of_pairs(links.logistic(pairs.gap(beta), label), *pairs.rewards(beta))


def dpo_norm(pairs: Pairs, *, beta: float, label_smoothing: float) -> Losses:
    """ψ(β(u_w/|y_w| − u_l/|y_l|))."""
    chosen, rejected = beta * pairs.chosen.mean_ratio, beta * pairs.rejected.mean_ratio
    label = _label(pairs, label_smoothing)
    return Losses.of_pairs(links.logistic(chosen - rejected, label), chosen, rejected)


def robust(pairs: Pairs, *, beta: float, label_smoothing: float) -> Losses:
    """((1−ε) ψ(βD) − ε ψ(−βD)) / (1−2ε)."""
    return Losses.of_pairs(links.unbiased(pairs.gap(beta), label_smoothing), *pairs.rewards(beta))


def ipo(pairs: Pairs, *, tau: float, length: Literal["mean", "sum"]) -> Losses:
    """(D − 1/2τ)², of sums or of means per token."""
    chosen, rejected = (side.mean_ratio if length == "mean" else side.ratio for side in (pairs.chosen, pairs.rejected))
    return Losses.of_pairs(links.squared(chosen - rejected, 1 / (2 * tau)), tau * chosen, tau * rejected)


def hinge(pairs: Pairs, *, beta: float) -> Losses:
    """max(0, 1 − βD)."""
    return Losses.of_pairs(links.hinge(pairs.gap(beta)), *pairs.rewards(beta))


def slic(pairs: Pairs, *, delta: float, sft_weight: float) -> Losses:
    """max(0, δ − log π(y_w) + log π(y_l)) − λ log π(y_w)."""
    chosen, rejected = pairs.chosen.policy, pairs.rejected.policy
    return Losses.of_pairs(links.hinge(chosen - rejected, delta) - sft_weight * chosen, chosen, rejected)


def exo(pairs: Pairs, *, beta: float, label_smoothing: float) -> Losses:
    """KL(σ(βD) ‖ 1−ε)."""
    log_label, log_other = math.log1p(-label_smoothing), math.log(label_smoothing)
    return Losses.of_pairs(links.divergence_from(pairs.gap(beta), log_label, log_other), *pairs.rewards(beta))


def discopop(pairs: Pairs, *, beta: float, tau: float) -> Losses:
    """(1−m) ψ(h) + m e^−h with h = βD, m = σ(h/τ)."""
    return Losses.of_pairs(links.log_ratio_modulated(pairs.gap(beta), tau), *pairs.rewards(beta))


def odpo(pairs: Pairs, *, beta: float, alpha: float, scale: Literal["log", "linear"]) -> Losses:
    """ψ(βD − α f(Δs)), f the logarithm or the difference of scores itself."""
    margin = _stated(pairs.stated.margin, "margins")
    offset = alpha * (margin.log() if scale == "log" else margin)
    return Losses.of_pairs(links.logistic(pairs.gap(beta) - offset), *pairs.rewards(beta))


def rpo_backward(pairs: Pairs, *, beta: float, eta: float) -> Losses:
    """KL(σ(ηΔs) ‖ σ(βD))."""
    wanted = eta * _stated(pairs.stated.margin, "margins")
    return Losses.of_pairs(links.divergence_to(pairs.gap(beta), wanted), *pairs.rewards(beta))


def rpo_forward(pairs: Pairs, *, beta: float, eta: float) -> Losses:
    """KL(σ(βD) ‖ σ(ηΔs))."""
    wanted = eta * _stated(pairs.stated.margin, "margins")
    found = links.divergence_from(
        pairs.gap(beta), torch.nn.functional.logsigmoid(wanted), torch.nn.functional.logsigmoid(-wanted)
    )
    return Losses.of_pairs(found, *pairs.rewards(beta))


def rpo_square(pairs: Pairs, *, beta: float, eta: float) -> Losses:
    """(βD − ηΔs)²."""
    wanted = eta * _stated(pairs.stated.margin, "margins")
    return Losses.of_pairs(links.squared(pairs.gap(beta), wanted), *pairs.rewards(beta))


def r_dpo(pairs: Pairs, *, beta: float, alpha: float) -> Losses:
    """ψ(βD + α(|y_w| − |y_l|))."""
    gap = pairs.gap(beta)
    longer = alpha * (pairs.chosen.num_tokens - pairs.rejected.num_tokens).to(gap.dtype)
    return Losses.of_pairs(links.logistic(gap + longer), *pairs.rewards(beta))


def dpop(pairs: Pairs, *, beta: float, penalty: float) -> Losses:
    """ψ(β(D − λ max(0, −u_w)))."""
    fallen = penalty * relu(-pairs.chosen.ratio)  # slope 0 at the start, where torch.clamp has 1 and maximum a half
    chosen, rejected = pairs.rewards(beta)
    return Losses.of_pairs(links.logistic(chosen - rejected - beta * fallen), chosen, rejected)


def dpo_shift(pairs: Pairs, *, beta: float, shift: float) -> Losses:
    """ψ(β(u_w − λ u_l))."""
    chosen, rejected = pairs.rewards(beta)
    return Losses.of_pairs(links.logistic(chosen - shift * rejected), chosen, rejected)


def simpo(pairs: Pairs, *, beta: float, gamma: float) -> Losses:
    """ψ(β(a_w − a_l) − γ)."""
    chosen, rejected = beta * pairs.chosen.mean, beta * pairs.rejected.mean
    return Losses.of_pairs(links.logistic(chosen - rejected - gamma), chosen, rejected)


def alpha_dpo(pairs: Pairs, *, beta: float, alpha: float, gamma: float) -> Losses:
    """ψ(β(a_w − a_l) − γ − αβz) with z = (u_w/|y_w| − u_l/|y_l| − μ)/s, μ and s of steps before, running.

    No gradient flows through z.
    """
    gap = pairs.chosen.mean_ratio - pairs.rejected.mean_ratio
    chosen, rejected = beta * pairs.chosen.mean, beta * pairs.rejected.mean
    wanted = gamma + alpha * beta * pairs.running.standard(gap.detach())
    return Losses.of_pairs(links.logistic(chosen - rejected - wanted), chosen, rejected, gap)


def alphapo(pairs: Pairs, *, beta: float, alpha: float, gamma: float) -> Losses:
    """ψ(r_w − r_l − γ) with r = β(1 − e^(−αa)) / α."""
    chosen, rejected = (-beta * torch.expm1(-alpha * side.mean) / alpha for side in (pairs.chosen, pairs.rejected))
    return Losses.of_pairs(links.logistic(chosen - rejected - gamma), chosen, rejected)


def repo(pairs: Pairs, *, gamma: float) -> Losses:
    """max(0, γ − (a_w − a_l))."""
    chosen, rejected = pairs.chosen.mean, pairs.rejected.mean
    return Losses.of_pairs(links.hinge(chosen - rejected, gamma), chosen, rejected)


def _label(pairs: Pairs, smoothing: float, *, soft: bool = False) -> Numbers | float:
    """Return the probability that chosen is better: 1, or what was stated, as it is seen through flipped labels."""
    stated = _stated(pairs.stated.soft_label, "soft labels") if soft else 1.0
    return stated * (1 - smoothing) + (1 - stated) * smoothing


def _stated(found: Numbers | None, what: str) -> Numbers:
    if found is None:
        raise ValueError(f"this objective reads {what}, and none were given")
    return found
