"""Objectives of a whole step, which do not fall apart into its pairs.

Owns their formulas, in the notation of `gaps`. What a pair is given is such that the mean over pairs is the loss of the
step; `coupled` computes its slope exactly, however the step is cut into micro-batches.
"""

from __future__ import annotations

import math

import torch

from tiebreak.maths.losses import Losses
from tiebreak.maths.objectives.formula import Formula, always
from tiebreak.maths.objectives.links import logistic
from tiebreak.maths.objectives.said import Numbers, Pairs


def aot(pairs: Pairs, *, beta: float, label_smoothing: float) -> Losses:
    """ψ(β(q_i − q_ref,i)) over ranks i: q and q_ref the sorted log π(y_w) − log π(y_l) of policy and reference."""
    chosen, rejected = pairs.chosen, pairs.rejected
    ours, theirs = chosen.policy - rejected.policy, chosen.compared - rejected.compared
    losses = _by_rank(ours, theirs, beta, label_smoothing)
    return Losses.of_pairs(losses, beta * chosen.ratio, beta * rejected.ratio)


def aot_unpaired(pairs: Pairs, *, beta: float, label_smoothing: float) -> Losses:
    """ψ(β(u_w,(i) − u_l,(i))) over ranks i: log-ratios of all chosen and of all rejected, each sorted alone."""
    chosen, rejected = pairs.chosen.ratio, pairs.rejected.ratio
    losses = _by_rank(chosen, rejected, beta, label_smoothing)
    return Losses.of_pairs(losses, beta * chosen, beta * rejected)


def dr_dpo(pairs: Pairs, *, beta: float, beta_prime: float) -> Losses:
    """−β' log mean exp(−ψ(βD)/β'): DPO that weighs pairs by how well they fit. Each pair is given the step's number."""
    chosen, rejected = pairs.rewards(beta)
    fits = -logistic(chosen - rejected).double() / beta_prime  # a large β' multiplies what is rounded here
    step = -beta_prime * (torch.logsumexp(fits, 0) - math.log(len(fits)))
    return Losses.of_pairs(step.to(chosen.dtype).expand(len(fits)), chosen, rejected)


def beta_dpo(pairs: Pairs, *, beta: float, alpha: float, kept_share: float) -> Losses:
    """ψ(β_t D) of kept pairs, β_t = max(10⁻³, β(1 + α(mean D − M_0))), the mean over those of the step, M_0 of steps
    before, running.

    Of N pairs n = max(1, ⌊κN⌋) are kept, as they are drawn without replacement by exp(−½((D − M_0)/σ)²). No gradient
    flows through β_t; rewards are βu.
    """
    gap = pairs.chosen.ratio - pairs.rejected.ratio
    kept = _kept(pairs, gap.detach(), kept_share)
    scale = (beta * (1 + alpha * ((kept * gap).mean() - pairs.running.mean))).clamp(min=1e-3).detach()
    return Losses.of_pairs(kept * logistic(scale * gap), *pairs.rewards(beta), gap)


def _kept(pairs: Pairs, gap: Numbers, share: float) -> Numbers:
    """Return the weight of each pair: 0, or so much that the mean over the step is that of the kept ones.

    The largest of log-weights with Gumbel noise are a draw without replacement. Without luck all are kept.
    """
    luck, num = pairs.stated.luck, max(1, math.floor(share * len(gap) + 1e-9))
    if luck is None or num == len(gap):
        return torch.ones_like(gap)
    places = torch.argsort(luck - pairs.running.standard(gap) ** 2 / 2, descending=True, stable=True)[:num]
    return torch.zeros_like(gap).index_fill(0, places, len(gap) / num)


def _by_rank(ahead: Numbers, behind: Numbers, beta: float, label_smoothing: float) -> Numbers:
    """Return the loss of each rank at the place of the pair that holds it in `ahead`; ties keep their order."""
    places = torch.argsort(ahead, stable=True)
    ranked = logistic(beta * (ahead[places] - torch.sort(behind, stable=True).values), 1 - label_smoothing)
    return torch.empty_like(ranked).scatter(0, places, ranked)


ROWS = {
    "aot": Formula(
        aot,
        "Melnyk et al. 2024 (2406.05882)",
        "The distribution of margins is to move, not each margin.",
        "It sees the distribution of one step: with one pair in it, it is dpo. Ranks are moved, not pairs: "
        "rewards/margins may grow while rewards/accuracies stand still.",
        tex=r"(1 - \varepsilon) \psi(h) + \varepsilon \psi(-h), \quad h = \beta (q_{(i)} - q^{ref}_{(i)}), \quad q = "
        r"\log \pi(y_w) - \log \pi(y_l)",
        is_coupled=always,
    ),
    "aot_unpaired": Formula(
        aot_unpaired,
        "Melnyk et al. 2024 (2406.05882)",
        "The distribution of chosen is to lie above that of rejected, whatever the pairs.",
        "It forgets which two answers belong together: where prompts differ more than answers, rewards/chosen and "
        "rewards/rejected part in the mean while rewards/accuracies stay near one half.",
        tex=r"(1 - \varepsilon) \psi(h) + \varepsilon \psi(-h), \quad h = \beta (u_{w,(i)} - u_{l,(i)})",
        is_coupled=always,
    ),
    "dr_dpo": Formula(
        dr_dpo,
        "Wu et al. 2024 (2407.07880)",
        "Labels are noisy, and nobody knows how much.",
        "A small beta_prime drops what is hard along with what is wrong: loss and grad_norm near 0 while "
        "rewards/accuracies stand still. With one pair in a step it is dpo.",
        tex=r"-\beta' \log \frac{1}{n} \sum_{i=1}^{n} e^{-\psi(\beta D_i) / \beta'}",
        is_coupled=always,
    ),
    "beta_dpo": Formula(
        beta_dpo,
        "Wu et al. 2024 (2407.08639)",
        "Pairs of unlike quality: a step whose gaps are wide is held nearer to the reference, outliers are left out.",
        "A step that lags by more than 1/alpha nats of mean logratio_gap gets beta 0.001 and hardly teaches (loss "
        "0.693); grad_norm that swings asks for a smaller alpha. Hard pairs are outliers, too: where accuracies stand "
        "still keep all.",
        draws_pairs=True,
        tex=r"\psi(\beta_t D), \quad \beta_t = \operatorname{sg} \max\left(10^{-3}, \beta \left(1 + \alpha (\bar{D} "
        r"- M_0)\right)\right), \quad \bar{D} = \frac{1}{n} \sum_{i \in K} D_i, \quad K \sim e^{-\frac{1}{2} "
        r"((D_i - M_0) / \max(\sigma, 10^{-3}))^2}, \quad |K| = n = \max(1, \lfloor \kappa N \rfloor)",
        is_coupled=always,
    ),
}
