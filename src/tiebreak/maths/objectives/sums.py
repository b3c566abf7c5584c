"""Objectives that are sums of others, and are known by a name of their own.

Owns which terms they are of, and their weights; each formula stands once, in `gaps` or `sides`. The rewards are those
of the term that tells chosen from rejected.
"""

from __future__ import annotations

from typing import Literal

from tiebreak.maths.losses import Losses
from tiebreak.maths.objectives import gaps, links, sides
from tiebreak.maths.objectives.formula import Formula, by_delta
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


ROWS = {
    "orpo": Formula(
        orpo,
        "Hong et al. 2024 (2403.07691), Eqs. 3, 4 and 7",
        "From a base model in one stage, without a reference.",
        "The odds are weak beside the likelihood: where logps/rejected rises along with logps/chosen and "
        "rewards/accuracies stand still, raise beta. A completion with probability 1 has no odds: the step stops.",
        tex=r"-a_w + \beta \psi\left(\log \frac{e^{a_w}}{1 - e^{a_w}} - \log \frac{e^{a_l}}{1 - e^{a_l}}\right)",
        asks_reference=False,
    ),
    "cpo": Formula(
        cpo,
        "Xu et al. 2024 (2401.08417)",
        "No memory for a reference, and chosen answers are worth imitating.",
        "Sums without a reference see lengths first: rewards/margins that start far from 0 are mostly those. With "
        "too small an alpha logps/chosen sinks, with too large a one rewards/accuracies stand still.",
        tex=r"\psi(\beta (\log \pi(y_w) - \log \pi(y_l))) - \alpha t, \quad t = a_w \text{ (mean) or } \log \pi(y_w) "
        r"\text{ (sum)}",
        asks_reference=False,
    ),
    "cpo_simpo": Formula(
        cpo_simpo,
        "Xu et al. 2024 (2401.08417) with Meng et al. 2024 (2405.14734)",
        "simpo that may not lose the likelihood of chosen.",
        "With an alpha of 1 likelihood may outweigh preference: loss falls while rewards/margins stay below gamma. "
        "With an alpha near 0 it fails as simpo does: logps/chosen sinks, answers loop (answers/repetition).",
        tex=r"\psi(\beta (a_w - a_l) - \gamma) - \alpha a_w",
        asks_reference=False,
    ),
    "iterative_rpo": Formula(
        iterative_rpo,
        "Pang et al. 2024 (2404.19733), Eq. 1",
        "Reasoning: the likelihood of chosen steps may not fall.",
        "Where chosen is unlikely its likelihood outweighs preference: loss falls while rewards/margins stay near "
        "0. With too small an alpha, rewards/chosen sinks below 0 as in dpo.",
        tex=r"\psi(\beta D) - \alpha a_w",
    ),
    "regularised_po": Formula(
        regularised_po,
        "Liu et al. 2024 (2405.16436)",
        "Against over-optimisation: dpo that stays near chosen completions.",
        "Its likelihood is a sum, so that long completions weigh most: logps/chosen that rises with rewards/margins "
        "near 0 says that eta is too large, rewards/chosen that sinks that it is too small.",
        tex=r"\psi(\beta D) - \eta \log \pi(y_w)",
    ),
    "mpo": Formula(
        mpo,
        "Wang et al. 2024 (2411.10442), section 3.2",
        "Reasoning of vision-language models, where it was found; likelihood, classifier and preference at once.",
        "Three pulls are one number: loss may fall by likelihood alone. Look at rewards/margins for preference and "
        "logps/chosen for likelihood. With delta step and few pairs in it, the classifier's delta jitters.",
        tex=r"w_1 \psi(\beta D) + w_2 \left(\psi(r_w - \delta) + \psi(\delta - r_l)\right) - w_3 a_w, \quad \delta "
        r"\text{ as in bco}",
        is_coupled=by_delta,
    ),
}
