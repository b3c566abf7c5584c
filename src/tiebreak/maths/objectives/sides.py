"""Objectives of each side alone: good is pulled one way, bad the other, and no gap between them is taken.

Owns their formulas, in the notation of `gaps`. The reward of a completion is β times its log-ratio r = βu.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch.nn.functional import logsigmoid

from tiebreak.maths.losses import Losses
from tiebreak.maths.objectives.formula import Formula, by_delta
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


ROWS = {
    "nca": Formula(
        nca,
        "Chen et al. 2024 (2402.05369)",
        "Chosen may not lose likelihood for long.",
        "rewards/chosen settles at 0.69 and goes no further. With beta 0.01 that is 69 nats, which few pairs reach: "
        "loss that stays near 1.386, with both rewards near 0, asks for a larger beta.",
        tex=r"\psi(r_w) + \frac{1}{2} \psi(-r_w) + \frac{1}{2} \psi(-r_l)",
    ),
    "bco": Formula(
        bco,
        "Jung et al. 2024 (2404.04656)",
        "A classifier of good and bad; for thumbs where prompts of both differ little.",
        "Where rewards/chosen and rewards/rejected lie on one side of delta, one of the two is no longer learned: "
        "delta 0 lets that happen. With delta step and few pairs in it, delta jitters and loss is noisy.",
        tex=r"\psi(r_w - \delta) + \psi(\delta - r_l), \quad \delta \text{ a number, or } \operatorname{sg} "
        r"\frac{1}{2 n} \sum_{i=1}^{n} (r_{w,i} + r_{l,i})",
        is_coupled=by_delta,
    ),
    "apo_zero": Formula(
        apo_zero,
        "D'Oosterlinck et al. 2024 (2408.06266), Eq. 7",
        "Chosen answers are better than the model's own.",
        "Chosen is pulled up whatever it is worth: rewards/chosen rises for poor answers, too. Some nats from the "
        "start its slope is gone: rewards that stand still with grad_norm near 0.",
        tex=r"-\sigma(r_w) + \sigma(r_l)",
    ),
    "apo_down": Formula(
        apo_down,
        "D'Oosterlinck et al. 2024 (2408.06266), Eq. 8",
        "Chosen answers are worse than the model's own.",
        "rewards/chosen below 0 is meant. Chosen that was not worse than the model's own is unlearned nevertheless: "
        "logps/chosen sinks without end and answers loop (answers/repetition).",
        tex=r"\sigma(r_w) - \sigma(r_w - r_l)",
    ),
    "sppo_hard": Formula(
        sppo_hard,
        "Wu et al. 2024 (2405.00675), Eq. 4.7 with wins of 1 and 0",
        "Rounds on the policy's own samples without win rates. Its gradient is always clipped at the start.",
        "Its slope is 1/beta times that of dpo: grad_norm lies far above training.max_grad_norm at every step, so "
        "that the rate alone decides how far it goes. Progress shows in rewards/margins, which come to 1, not in "
        "loss.",
        tex=r"\left(u_w - \frac{1}{2 \beta}\right)^2 + \left(u_l + \frac{1}{2 \beta}\right)^2",
    ),
    "sppo_soft": Formula(
        sppo_soft,
        "Wu et al. 2024 (2405.00675), Eq. 4.7",
        "Rounds on the policy's own samples with win rates.",
        "As sppo_hard, every step is clipped: see rewards/margins, not loss. Win rates near one half ask for "
        "nothing (rewards/margins stay at 0); those against another model than this policy ask for the wrong thing.",
        tex=r"\left(u_w - \frac{P_w - 1/2}{\beta}\right)^2 + \left(u_l - \frac{P_l - 1/2}{\beta}\right)^2",
    ),
    "cal_dpo": Formula(
        cal_dpo,
        "Xiao et al. 2024 (2412.14516)",
        "Log-ratios are to have a known size, and not only a difference.",
        "Its squares rule while they are far from their targets: grad_norm far above training.max_grad_norm. "
        "rewards/chosen should come to 1/2 and rewards/rejected to -1/2; with a small beta neither does.",
        tex=r"\psi(D) + \left(u_w - \frac{1}{2 \beta}\right)^2 + \left(u_l + \frac{1}{2 \beta}\right)^2",
    ),
    "simper": Formula(
        simper,
        "Xiao et al. 2025 (2502.00883)",
        "No reference and nothing to tune; nearly no pull on unlikely completions.",
        "The pull is as large as a token is likely: on hard pairs rewards/accuracies stand still with a tiny "
        "grad_norm, easy ones are sharpened until answers loop (answers/repetition).",
        tex=r"-e^{a_w} + e^{a_l}",
        asks_reference=False,
    ),
    "sft": Formula(
        sft,
        "maximum likelihood",
        "Before preferences: the chosen completions alone.",
        "It teaches to answer, not to prefer: logps/rejected rises along with logps/chosen, and rewards/margins "
        "stay where they were. A held-out loss that turns up is overfitting.",
        tex=r"-a_w \text{ (mean) or } -\log \pi(y_w) \text{ (sum)}",
        asks_reference=False,
    ),
}
