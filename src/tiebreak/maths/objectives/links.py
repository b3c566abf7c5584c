"""Links: what one number, the gap between two scores, costs. Pure functions, element by element, in any dtype.

Owns their formulas and that they stay finite where a gap is large: softplus and log-sigmoid in place of σ and log.
`gap` is a difference of scores in units of the objective (dimensionless), positive where chosen is ahead.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid, relu

Gap = Float[Tensor, " examples"]


def logistic(gap: Gap, label: Gap | float = 1.0) -> Gap:
    """−p log σ(h) − (1−p) log σ(−h): the cross-entropy of the label p, the probability that chosen is the better one.

    Rafailov et al. 2023, Eq. 7 with p = 1; Mitchell 2023, Eq. 3 with p = 1 − ε.
    """
    if isinstance(label, float) and label == 1.0:  # 0 times what is infinite would be no number
        return -logsigmoid(gap)
    return -label * logsigmoid(gap) - (1 - label) * logsigmoid(-gap)


def unbiased(gap: Gap, flipped: float) -> Gap:
    """((1−ε) ψ(h) − ε ψ(−h)) / (1−2ε), ψ = −log σ: in expectation over labels flipped with probability ε, ψ of the true
    ones. Chowdhury et al. 2024 (2403.00409).
    """
    return (-(1 - flipped) * logsigmoid(gap) + flipped * logsigmoid(-gap)) / (1 - 2 * flipped)


def hinge(gap: Gap, wanted: float = 1.0) -> Gap:
    """max(0, wanted − h). Liu et al. 2023 (RSO, 2309.06657) with 1."""
    return relu(wanted - gap)


def squared(gap: Gap, wanted: Gap | float) -> Gap:
    """(h − wanted)². Azar et al. 2023 (IPO, 2310.12036), Eq. 17."""
    return (gap - wanted) ** 2


def divergence_from(gap: Gap, log_label: Gap | float, log_other: Gap | float) -> Gap:
    """KL(σ(h) ‖ p), with log p and log(1−p) given: the model's own certainty, measured against the label's.

    Ji et al. 2024 (EXO, 2402.00856), Eq. 16 with p = 1 − ε.
    """
    q = torch.sigmoid(gap)
    return q * (logsigmoid(gap) - log_label) + (1 - q) * (logsigmoid(-gap) - log_other)


def divergence_to(gap: Gap, wanted: Gap) -> Gap:
    """KL(σ(t) ‖ σ(h)): the logistic loss of the soft label σ(t), less its entropy, so that 0 is the least."""
    return logistic(gap, torch.sigmoid(wanted)) - logistic(wanted, torch.sigmoid(wanted))


def log_ratio_modulated(gap: Gap, temperature: float) -> Gap:
    """(1−m) ψ(h) + m e^−h with m = σ(h/τ). Lu et al. 2024 (DiscoPOP, 2406.08414), Eq. 5.

    The product m e^−h is exp(log σ(h/τ) − h): apart, it overflows where h is below −88.
    """
    modulation = gap / temperature
    return -torch.sigmoid(-modulation) * logsigmoid(gap) + torch.exp(logsigmoid(modulation) - gap)


def log_odds(mean_logps: Gap) -> Gap:
    """log(p / (1−p)) of p = e^a, a below 0: a − log(1 − e^a).

    Each branch is fed a value at which its slope is finite: a branch that is not taken would spread NaN otherwise.
    """
    near = mean_logps > -math.log(2)
    close = torch.where(near, mean_logps, torch.full_like(mean_logps, -math.log(2)))
    far = torch.where(near, torch.full_like(mean_logps, -math.log(2)), mean_logps)
    return mean_logps - torch.where(near, torch.log(-torch.expm1(close)), torch.log1p(-torch.exp(far)))
