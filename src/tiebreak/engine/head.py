"""From vocabulary scores to the log-probability of each scored token.

Owns the shift by one position, the precision of the softmax and the masking.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def completion_logps(
    logits: Float[Tensor, "rows kept vocabulary"],
    input_ids: Int[Tensor, "rows time"],
    completion_mask: Bool[Tensor, "rows time"],
    first: int,
) -> tuple[Float[Tensor, " rows"], Int[Tensor, " rows"]]:
    """Return (summed log-probabilities in nats, number of tokens) of the scored tokens of each row.

    `logits` are those of positions first .. time − 2, which predict the tokens at first + 1 .. time − 1. The softmax is
    computed in fp32 whatever the model's dtype.
    """
    targets, scored = input_ids[:, first + 1 :], completion_mask[:, first + 1 :]
    logits = logits.float()
    token_logps = logits.gather(-1, targets.unsqueeze(-1)).squeeze(-1) - logits.logsumexp(-1)
    # where, not multiplication: padding may hold inf, and inf * 0 is NaN.
    return torch.where(scored, token_logps, 0.0).sum(-1), scored.sum(-1)
