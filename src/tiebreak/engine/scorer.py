"""What a model says about pairs: the log-probability of every scored token.

Owns the forward pass. `Scorer` is the seam: the loop, the reference and the evaluation hand over pairs; how the tokens
are laid out is the scorer's secret. `PlainScorer` is the slow, obvious form. `PackedScorer` computes each prompt once
and pads nothing, and equals it in values and gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch

from tiebreak.engine.attention import PackedLayout, causal_model, use_packed_attention, use_plain_attention
from tiebreak.engine.head import Head, head_of, plain_token_logps, token_logps
from tiebreak.engine.products import filling
from tiebreak.maths.layout import lay_out, micro_batches
from tiebreak.maths.logps import PairLogps, TokenLogps
from tiebreak.maths.packing import num_packed, pack, packed_micro_batches
from tiebreak.records import TokenizedPair


class Scorer(Protocol):
    """Scores pairs under a model; log-probabilities have a gradient where the model has one."""

    layout: str
    """The name of the layout, for manifests."""

    def micro_batches(self, pairs: Sequence[TokenizedPair], token_budget: int) -> list[list[TokenizedPair]]:
        """Group the pairs of a step so that each group costs at most `token_budget` tokens in this layout."""

    def num_tokens(self, pairs: Sequence[TokenizedPair]) -> int:
        """Return the tokens that one micro-batch of these pairs costs in this layout."""

    def tokens(self, model: Any, pairs: Sequence[TokenizedPair]) -> TokenLogps:
        """Return the log-probability of every scored token."""

    def __call__(self, model: Any, pairs: Sequence[TokenizedPair]) -> PairLogps:
        """Return the log-probabilities of whole completions, in the order of `pairs`."""


class PlainScorer:
    """One right-padded row for each completion, through the model's own forward and head."""

    layout = "plain"

    def __init__(self, *, pad_id: int, device: torch.device, dtype: torch.dtype) -> None:
        """`dtype` is that of the arithmetic; weights of another dtype are cast on the way."""
        self._pad_id = pad_id
        self._device = device
        self._dtype = dtype

    def micro_batches(self, pairs: Sequence[TokenizedPair], token_budget: int) -> list[list[TokenizedPair]]:
        """Group by padded size, longest first."""
        return micro_batches(pairs, token_budget)

    def num_tokens(self, pairs: Sequence[TokenizedPair]) -> int:
        """Return the size of the padded rectangle."""
        return 2 * len(pairs) * max(pair.longest_row for pair in pairs)

    def tokens(self, model: Any, pairs: Sequence[TokenizedPair]) -> TokenLogps:
        """Return the log-probability of every scored token; cost grows with the padded size."""
        use_plain_attention(model)
        batch = lay_out(pairs, self._pad_id).to(self._device)
        first = batch.first_scored
        positions = torch.arange(first, batch.input_ids.shape[1] - 1, device=self._device)
        with _arithmetic(self._device, self._dtype):
            logits = model(
                input_ids=batch.input_ids,
                attention_mask=batch.attention_mask,
                logits_to_keep=positions,
                use_cache=False,
            ).logits
        values = plain_token_logps(logits, batch.input_ids, batch.completion_mask, first)
        num_chosen = sum(len(pair.chosen_ids) for pair in pairs)
        return TokenLogps(tuple(pairs), values[:num_chosen], values[num_chosen:])

    def __call__(self, model: Any, pairs: Sequence[TokenizedPair]) -> PairLogps:
        """Return `PairLogps`, in the order of `pairs`."""
        return self.tokens(model, pairs).summed()


class PackedScorer:
    """All pairs in one row, each prompt once, through the model's backbone and our head (see `maths.packing`)."""

    layout = "packed"

    def __init__(self, *, device: torch.device, dtype: torch.dtype) -> None:
        """`dtype` is that of the arithmetic; weights of another dtype are cast on the way."""
        self._device = device
        self._dtype = dtype
        self.windows: set[int] = set()
        """The sliding windows that a model's layers asked for so far."""

    def micro_batches(self, pairs: Sequence[TokenizedPair], token_budget: int) -> list[list[TokenizedPair]]:
        """Group by packed size, first-fit-decreasing."""
        return packed_micro_batches(pairs, token_budget)

    def num_tokens(self, pairs: Sequence[TokenizedPair]) -> int:
        """Return the length of the row."""
        return num_packed(pairs)

    def tokens(self, model: Any, pairs: Sequence[TokenizedPair]) -> TokenLogps:
        """Return the log-probability of every scored token; cost grows with the unique tokens."""
        causal = causal_model(model)
        use_packed_attention(causal)
        batch = pack(pairs)
        batch = batch.filled(filling(batch.input_ids.numel(), self._device, self._dtype))
        with _arithmetic(self._device, self._dtype):
            hidden = causal.base_model(
                input_ids=batch.input_ids.unsqueeze(0).to(self._device),
                position_ids=batch.position_ids.unsqueeze(0).to(self._device),
                use_cache=False,
                packed_layout=PackedLayout(batch.segments, self.windows),
            ).last_hidden_state
        scored = hidden[0].index_select(0, batch.predictors.to(self._device)).to(self._dtype)
        values = token_logps(scored, batch.targets.to(self._device), _head(causal))
        sides = (values.index_select(0, at.to(self._device)) for at in (batch.chosen_tokens, batch.rejected_tokens))
        return TokenLogps(batch.pairs, *sides)

    def __call__(self, model: Any, pairs: Sequence[TokenizedPair]) -> PairLogps:
        """Return `PairLogps`, in the order of `pairs`."""
        return self.tokens(model, pairs).summed()


def _head(causal: Any) -> Head:
    head = head_of(causal)
    assert head is not None, "the self-check lets no model without a plain head come here"  # noqa: S101
    return head


def _arithmetic(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[None]:
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)
