"""Objectives of each side alone: good is pulled one way, bad the other, and no gap between them is taken.

Owns their formulas, in the notation of `gaps`. The reward of a completion is β times its log-ratio r = βu.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch.nn.functional import logsigmoid

from tiebreak.maths.losses import Losses
from tiebreak.maths.objectives.links import logistic
from tiebreak.maths.objectives.said import Pairs


def nca(pairs: Pairs, *, beta: float) -> Losses:
    """ψ(r_w) + ½ψ(−r_w) + ½ψ(−r_l)."""
    chosen, rejected = pairs.rewards(beta)
    losses = -logsigmoid(chosen) - (logsigmoid(-chosen) + logsigmoid(-rejected)) / 2
    return Losses.of_pairs(losses, chosen, rejected)


def bco(pairs: Pairs, *, beta: float, delta: float | Literal["step"]) -> Losses:
    """ψ(r_w − δ) + ψ(δ − r_l), δ a number, or the mean reward over all completions of the step, without a gradient."""
    chosen, rejected = pairs.rewards(beta)
    shift = (chosen.mean() + rejected.mean()).detach() / 2 if delta == "step" else delta
    return Losses.of_pairs(-logsigmoid(chosen - shift) - logsigmoid(shift - rejected), chosen, rejected)


def apo_zero(pairs: Pairs, *, beta: float) -> Losses:
    """−σ(r_w) + σ(r_l)."""
    chosen, rejected = pairs.rewards(beta)
    return Losses.of_pairs(torch.sigmoid(rejected) - torch.sigmoid(chosen), chosen, rejected)


def apo_down(pairs: Pairs, *, beta: float) -> Losses:
    """σ(r_w) − σ(r_w − r_l)."""
    chosen, rejected = pairs.rewards(beta)
    return Losses.of_pairs(torch.sigmoid(chosen) - torch.sigmoid(chosen - rejected), chosen, rejected)


def sppo_hard(pairs: Pairs, *, beta: float) -> Losses:
    """(u_w − 1/2β)² + (u_l + 1/2β)²: chosen wins always, rejected never."""
    chosen, rejected, half = pairs.chosen.ratio, pairs.rejected.ratio, 1 / (2 * beta)
    return Losses.of_pairs((chosen - half) ** 2 + (rejected + half) ** 2, beta * chosen, beta * rejected)


def sppo_soft(pairs: Pairs, *, beta: float) -> Losses:
    """(u − (P − ½)/β)² of both sides, P the rate at which a completion wins against the policy's own samples."""
    stated = pairs.stated
    if stated.chosen_win_rate is None or stated.rejected_win_rate is None:
        raise ValueError("this objective reads win rates, and none were given")
    chosen, rejected = pairs.chosen.ratio, pairs.rejected.ratio
    losses = (chosen - (stated.chosen_win_rate - 0.5) / beta) ** 2
    losses = losses + (rejected - (stated.rejected_win_rate - 0.5) / beta) ** 2
    return Losses.of_pairs(losses, beta * chosen, beta * rejected)


def cal_dpo(pairs: Pairs, *, beta: float) -> Losses:
    """ψ(D) + (u_w − 1/2β)² + (u_l + 1/2β)²."""
    chosen, rejected, half = pairs.chosen.ratio, pairs.rejected.ratio, 1 / (2 * beta)
    losses = logistic(chosen - rejected) + (chosen - half) ** 2 + (rejected + half) ** 2
    return Losses.of_pairs(losses, beta * chosen, beta * rejected)


def simper(pairs: Pairs) -> Losses:
    """−e^(a_w) + e^(a_l): inverse perplexities."""
    chosen, rejected = pairs.chosen.mean, pairs.rejected.mean
    return Losses.of_pairs(rejected.exp() - chosen.exp(), chosen, rejected)


def sft(pairs: Pairs, *, length: Literal["mean", "sum"]) -> Losses:
    """−a_w, or −log π(y_w)."""
    chosen, rejected = pairs.chosen, pairs.rejected
    return Losses.of_pairs(-chosen.mean if length == "mean" else -chosen.policy, chosen.mean, rejected.mean)
