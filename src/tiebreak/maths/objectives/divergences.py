"""Divergences: what keeps a policy near its reference, as the reward that each of them makes of a log-ratio.

Owns their links: f'(π/π_ref) as a function of u = log π − log π_ref, with the constant that makes it 0 at u = 0; in a
gap of two completions of one prompt every constant cancels, as β log Z(x) does. Wang et al. 2023 (f-DPO, 2309.16240).
Where e^|u| is no number any more (88 nats in fp32) the loss is none either, and the step stops with the pair's name.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

Ratio = Float[Tensor, " examples"]


def reverse_kl(ratio: Ratio) -> Ratio:
    """u."""
    return ratio


def forward_kl(ratio: Ratio) -> Ratio:
    """1 − e^(−u)."""
    return -torch.expm1(-ratio)


def js(ratio: Ratio) -> Ratio:
    """log 2 + log σ(u)."""
    return math.log(2) + logsigmoid(ratio)


def alpha(ratio: Ratio, *, order: float) -> Ratio:
    """(1 − e^(−αu)) / α, α between the reverse (0) and the forward (1) KL divergence."""
    return -torch.expm1(-order * ratio) / order


def chi_po(ratio: Ratio) -> Ratio:
    """e^u + u − 1: χ² and reverse KL together. Huang et al. 2024 (χPO, 2407.13399), whose link is e^u + u."""
    return torch.expm1(ratio) + ratio


@dataclass(frozen=True)
class Divergence:
    """A divergence, as a gap of two rewards sees it."""

    link: Callable[[Ratio], Ratio] = reverse_kl
    bound: float = math.inf
    """Largest distance of two rewards; beyond it a gap has no slope."""

    @staticmethod
    def of(name: str | None, order: float | None, max_reward: float | None) -> Divergence:
        """Return the divergence of a name, with what it needs; None is the reverse KL divergence."""
        if name == "alpha" and order is not None:
            return Divergence(partial(alpha, order=order))
        if name == "chi_po" and max_reward is not None:
            return Divergence(chi_po, 2 * max_reward)
        return Divergence(_PLAIN[name])


_PLAIN = {None: reverse_kl, "forward_kl": forward_kl, "js": js}
REVERSE_KL = Divergence()
