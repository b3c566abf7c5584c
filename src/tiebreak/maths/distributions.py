"""Numbers of a whole next-token distribution, beside the log-probability of the token that follows.

Pure functions of [tokens, vocabulary] log-probabilities; whoever holds logits computes them while they are there.
"""

from __future__ import annotations

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
