"""Objectives that are sums of others, and are known by a name of their own.

Owns which terms they are of, and their weights; each formula stands once, in `gaps` or `sides`. The rewards are those
of the term that tells chosen from rejected.
"""

from __future__ import annotations

from typing import Literal

from tiebreak.maths.losses import Losses
from tiebreak.maths.objectives import gaps, links, sides
from tiebreak.maths.objectives.said import Pairs


def orpo(pairs: Pairs, *, beta: float) -> Losses:
    """−a_w + β ψ(log odds(y_w) − log odds(y_l)), odds(y) = e^a / (1 − e^a)."""
    chosen, rejected = links.log_odds(pairs.chosen.mean), links.log_odds(pairs.rejected.mean)
    losses = beta * links.logistic(chosen - rejected) - pairs.chosen.mean
    return Losses.of_pairs(losses, beta * pairs.chosen.mean, beta * pairs.rejected.mean)


def cpo(pairs: Pairs, *, beta: float, alpha: float, length: Literal["mean", "sum"]) -> Losses:
    """ψ(β(log π(y_w) − log π(y_l))) + α · sft."""
    chosen, rejected = beta * pairs.chosen.policy, beta * pairs.rejected.policy
    losses = links.logistic(chosen - rejected) + alpha * sides.sft(pairs, length=length).losses
    return Losses.of_pairs(losses, chosen, rejected)


def cpo_simpo(pairs: Pairs, *, beta: float, gamma: float, alpha: float) -> Losses:
    """SimPO + α · sft, both by token."""
    found = gaps.simpo(pairs, beta=beta, gamma=gamma)
    return Losses(found.losses + alpha * sides.sft(pairs, length="mean").losses, found.rewards)


def iterative_rpo(pairs: Pairs, *, beta: float, alpha: float) -> Losses:
    """DPO + α · sft by token."""
    found = gaps.dpo(pairs, beta=beta, label_smoothing=0.0, soft_labels=False)
    return Losses(found.losses + alpha * sides.sft(pairs, length="mean").losses, found.rewards)


def regularised_po(pairs: Pairs, *, beta: float, eta: float) -> Losses:
    """DPO + η · sft by completion."""
    found = gaps.dpo(pairs, beta=beta, label_smoothing=0.0, soft_labels=False)
    return Losses(found.losses + eta * sides.sft(pairs, length="sum").losses, found.rewards)


def mpo(
    pairs: Pairs,
    *,
    beta: float,
    delta: float | Literal["step"],
    dpo_weight: float,
    bco_weight: float,
    sft_weight: float,
) -> Losses:
    """w₁ · DPO + w₂ · BCO + w₃ · sft by token."""
    found = gaps.dpo(pairs, beta=beta, label_smoothing=0.0, soft_labels=False)
    judged = sides.bco(pairs, beta=beta, delta=delta)
    told = sides.sft(pairs, length="mean")
    losses = dpo_weight * found.losses + bco_weight * judged.losses + sft_weight * told.losses
    return Losses(losses, found.rewards)
