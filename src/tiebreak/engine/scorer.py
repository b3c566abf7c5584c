"""What a model says about pairs: their summed log-probabilities.

Owns the forward pass. `Scorer` is the seam: the loop, the reference and the evaluation hand over pairs and get
`PairLogps`; how the tokens are laid out is the scorer's secret. `PlainScorer` is the slow, obvious form that any faster
one has to equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import nn

from tiebreak.engine.head import completion_logps
from tiebreak.maths.layout import lay_out, micro_batches
from tiebreak.maths.losses import PairLogps
from tiebreak.records import TokenizedPair


class Scorer(Protocol):
    """Scores pairs under a model."""

    def micro_batches(self, pairs: Sequence[TokenizedPair], token_budget: int) -> list[list[TokenizedPair]]:
        """Group the pairs of a step so that each group costs at most `token_budget` tokens in this layout."""

    def __call__(self, model: nn.Module, pairs: Sequence[TokenizedPair]) -> PairLogps:
        """Return log-probabilities with a gradient where the model has one."""


class PlainScorer:
    """One right-padded row for each completion, through the model's own forward and head."""

    def __init__(self, *, pad_id: int, device: torch.device, dtype: torch.dtype) -> None:
        """`dtype` is that of the arithmetic; weights of another dtype are cast on the way."""
        self._pad_id = pad_id
        self._device = device
        self._dtype = dtype

    def micro_batches(self, pairs: Sequence[TokenizedPair], token_budget: int) -> list[list[TokenizedPair]]:
        """Group by padded size, longest first."""
        return micro_batches(pairs, token_budget)

    def __call__(self, model: nn.Module, pairs: Sequence[TokenizedPair]) -> PairLogps:
        """Return `PairLogps`, in the order of `pairs`; cost grows with the padded size."""
        batch = lay_out(pairs, self._pad_id).to(self._device)
        first = batch.first_scored
        positions = torch.arange(first, batch.input_ids.shape[1] - 1, device=self._device)
        with torch.autocast(self._device.type, self._dtype, enabled=self._dtype != torch.float32):
            logits = model(
                input_ids=batch.input_ids,
                attention_mask=batch.attention_mask,
                logits_to_keep=positions,
                use_cache=False,
            ).logits
        logps, num_tokens = completion_logps(logits, batch.input_ids, batch.completion_mask, first)
        (chosen, rejected), (num_chosen, num_rejected) = logps.chunk(2), num_tokens.chunk(2)
        return PairLogps(chosen, rejected, num_chosen, num_rejected)
