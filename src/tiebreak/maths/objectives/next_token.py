"""Objectives that look at whole next-token distributions, and not only at the tokens that stand there.

Owns their formulas, in the notation of `gaps`; k = Σ_t KL(π_ref ‖ π) of a completion, over the whole vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tiebreak.maths.losses import Losses
from tiebreak.maths.objectives import links
from tiebreak.maths.objectives.formula import Formula
from tiebreak.maths.objectives.said import Numbers, Pairs


def tdpo1(pairs: Pairs, *, beta: float) -> Losses:
    """ψ(βD − β(k_l − k_w)) with k = Σ_t KL(π_ref ‖ π) over the whole vocabulary."""
    return _apart(pairs, beta, pairs.rejected.kl - pairs.chosen.kl)


def tdpo2(pairs: Pairs, *, beta: float, alpha: float) -> Losses:
    """ψ(βD − αβ(k_l − k_w)) with k = Σ_t KL(π_ref ‖ π) over the whole vocabulary.

    No gradient flows through k_w.
    """
    return _apart(pairs, beta, alpha * (pairs.rejected.kl - pairs.chosen.kl.detach()))


def mallows(pairs: Pairs, *, beta: float, phi: float) -> Losses:
    """ψ(−φ log H · βD) with H the reference's entropy / log V, the mean over tokens, then over both completions."""
    gap = pairs.gap(beta)
    dispersion = -phi * ((pairs.chosen.entropy + pairs.rejected.entropy) / 2).log()
    return Losses.of_pairs(links.logistic(dispersion * gap), *pairs.rewards(beta))


def _apart(pairs: Pairs, beta: float, further: Numbers) -> Losses:
    """Return ψ(βD − β · further), with both divergences for whoever watches them."""
    found = Losses.of_pairs(links.logistic(pairs.gap(beta) - beta * further), *pairs.rewards(beta))
    both: Tensor = torch.stack([pairs.chosen.kl, pairs.rejected.kl], dim=1).flatten()
    return Losses(found.losses, found.rewards, divergences=both.detach())


ROWS = {
    "tdpo1": Formula(
        tdpo1,
        "Zeng et al. 2024 (2404.11999), TDPO₁",
        "The policy is to stay near its reference token by token; it also pushes the divergence of chosen up.",
        "kl/chosen is pushed up as kl/rejected is held down: where both grow with rewards/margins near 0, the loss is "
        "paid with distance alone; take tdpo2. A reference that is asked in each step makes steps slower.",
        tex=r"\psi(\beta D - \beta (k_l - k_w)), \quad k = \sum_t D_{\mathrm{KL}}(\pi_\mathrm{ref} \Vert \pi)",
        asks_distributions=True,
    ),
    "tdpo2": Formula(
        tdpo2,
        "Zeng et al. 2024 (2404.11999), TDPO₂",
        "The policy is to stay near its reference token by token: by its paper, answers stay diverse at the same "
        "accuracy.",
        "Too large an alpha holds the policy where it is: loss stays near 0.693 and kl/rejected near 0. Too small, it "
        "is dpo: kl/rejected runs ahead of kl/chosen and answers loop (answers/repetition).",
        tex=r"\psi(\beta D - \alpha \beta (k_l - \operatorname{sg} k_w)), "
        r"\quad k = \sum_t D_{\mathrm{KL}}(\pi_\mathrm{ref} "
        r"\Vert \pi)",
        asks_distributions=True,
    ),
    "mallows": Formula(
        mallows,
        "Chen et al. 2024 (2405.14953), MallowsPO-θ",
        "Some prompts have one right answer and others many: pairs of the former count with a larger beta.",
        "phi times the mean of −log H should be near 1: far below, loss hardly falls and rewards/margins grow without "
        "end. A reference that is certain of each token makes one pair rule its step: grad_norm leaps.",
        tex=r"\psi(-\varphi \log H \cdot \beta D), \quad H = \frac{H_w + H_l}{2}, \quad "
        r"H_y = \frac{1}{|y| \log V} \sum_t "
        r"\mathcal{H}(\pi_\mathrm{ref})_t",
        asks_entropy=True,
    ),
}
