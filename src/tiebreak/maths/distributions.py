"""Numbers of a whole next-token distribution, beside the log-probability of the token that follows.

Pure functions of [tokens, vocabulary] log-probabilities; whoever holds logits computes them while they are there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

Statistic: TypeAlias = Callable[[Tensor], Tensor]
"""Of the log-probabilities [tokens, vocabulary] of whole distributions, one number a token."""


def log_collision(logps: Float[Tensor, "tokens vocabulary"]) -> Float[Tensor, " tokens"]:
    """log Σ_v p(v)², nats: how likely two draws of a token agree; the mean probability of a token that is drawn."""
    return (2 * logps).logsumexp(-1)


def entropy(logps: Float[Tensor, "tokens vocabulary"]) -> Float[Tensor, " tokens"]:
    """−Σ_v p(v) log p(v), nats; a token that is impossible adds nothing."""
    spread: Tensor = torch.special.entr(logps.exp()).sum(-1)
    return spread


def entropy_share(logps: Float[Tensor, "tokens vocabulary"]) -> Float[Tensor, " tokens"]:
    """−Σ_v p log p / log V: how open it is which token follows, 0 where one is certain, 1 where all are alike."""
    return entropy(logps) / math.log(logps.shape[-1])


def divergence(
    reference: Float[Tensor, "tokens vocabulary"], policy: Float[Tensor, "tokens vocabulary"]
) -> Float[Tensor, " tokens"]:
    """KL(π_ref ‖ π) = Σ_v π_ref (log π_ref − log π), nats, of log-probabilities; its slope by π's logits is π − π_ref.

    A token that the reference never writes adds nothing, whatever the policy says of it.
    """
    shares = reference.exp()
    return torch.where(shares > 0, shares * (reference - policy), 0.0).sum(-1)
