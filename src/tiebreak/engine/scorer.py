"""What a model says about completions: the log-probability of every scored token.

Owns the forward pass. `Scorer` is the seam: the step, the reference and the evaluation hand over examples; how the
tokens are laid out is the scorer's secret. `PlainScorer` is the slow, obvious form. `PackedScorer` computes each prompt
once and pads nothing, and equals it in values and gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from tiebreak.engine.attention import PackedLayout, causal_model, use_packed_attention, use_plain_attention
from tiebreak.engine.head import head_of, plain_beside, plain_token_logps, token_logps_beside
from tiebreak.engine.products import filling
from tiebreak.engine.stretching import forget_lengths, stretching_of
from tiebreak.errors import ModelError
from tiebreak.maths.distributions import Statistic
from tiebreak.maths.layout import lay_out, micro_batches, num_padded
from tiebreak.maths.logps import TokenLogps
from tiebreak.maths.packing import PackedRow, num_packed, pack, packed_micro_batches
from tiebreak.records import Example, Ids

E = TypeVar("E", bound=Example)
Cut = Callable[[Sequence[Example]], Sequence[Sequence[Example]]]
"""Groups examples so that each group fits in memory."""


class Scorer(Protocol):
    """Scores examples under one network; log-probabilities have a gradient where the network has one."""

    layout: str
    """The name of the layout, for manifests."""

    def micro_batches(self, examples: Sequence[E], token_budget: int) -> list[list[E]]:
        """Group the examples of a step so that each group costs at most `token_budget` tokens in this layout."""

    def num_tokens(self, examples: Sequence[Example]) -> int:
        """Return the tokens that one micro-batch of these examples costs in this layout."""

    def tokens(self, examples: Sequence[Example], beside: Statistic | None = None) -> TokenLogps:
        """Return the log-probability of every scored token, and what a statistic says of its distribution."""

    def read(self, examples: Sequence[Example]) -> tuple[TokenLogps, Tensor]:
        """Return `tokens`, and from the same pass [completions, hidden], fp32: what the head is given, averaged.

        The mean is over the states that a completion's tokens are predicted from. Raises ModelError where the model
        tells none.
        """

    def of(self, network: Any) -> Scorer:
        """Return the same scorer for another network of the same make."""


class PlainScorer:
    """One right-padded row for each completion, through the model's own forward and head.

    Rows that would change each other's positions (`engine.stretching`) go through one after the other.
    """

    layout = "plain"

    def __init__(self, network: Any, *, pad_id: int, device: torch.device, dtype: torch.dtype) -> None:
        """`dtype` is that of the arithmetic; weights of another dtype are cast on the way."""
        self._network = network
        self._stretching = stretching_of(network)
        self._pad_id = pad_id
        self._device = device
        self._dtype = dtype

    def of(self, network: Any) -> PlainScorer:
        """Return the same scorer for another network."""
        return PlainScorer(network, pad_id=self._pad_id, device=self._device, dtype=self._dtype)

    def micro_batches(self, examples: Sequence[E], token_budget: int) -> list[list[E]]:
        """Group by padded size, longest first."""
        return micro_batches(examples, token_budget)

    def num_tokens(self, examples: Sequence[Example]) -> int:
        """Return the size of the padded rectangle."""
        return num_padded(examples)

    def tokens(self, examples: Sequence[Example], beside: Statistic | None = None) -> TokenLogps:
        """Return the log-probability of every scored token; cost grows with the padded size."""
        use_plain_attention(self._network)
        rows, parties = self._parties(examples)
        if len(parties) == 1:
            return self._together(examples, beside)[0]
        found = [self._together([rows[place] for place in places], beside)[0] for places in parties]
        order = [place for places in parties for place in places]
        return TokenLogps.concatenated(found).picked([order.index(place) for place in range(len(rows))])

    def read(self, examples: Sequence[Example]) -> tuple[TokenLogps, Tensor]:
        """Return `tokens` and the mean hidden state of each completion; holds the states of all layers for a while."""
        use_plain_attention(self._network)
        rows, parties = self._parties(examples)
        values, means = dict[int, Tensor](), dict[int, Tensor]()
        for places in parties:
            logps, hidden = self._together([rows[place] for place in places], with_states=True)
            values |= zip(places, logps.rows(), strict=True)
            means |= zip(places, _means(hidden, logps.num_tokens), strict=True)
        found = [values[place] for place in range(len(rows))]
        states = torch.stack([means[place] for place in range(len(rows))])
        return TokenLogps(torch.cat(found), tuple(map(len, found))), states

    def _parties(self, examples: Sequence[Example]) -> tuple[list[_Row], list[list[int]]]:
        """Return a row for each completion, and the places of rows that may share a forward pass."""
        rows = [_Row(example.prompt_ids, (completion,)) for example in examples for completion in example.completions]
        return rows, self._stretching.parties(len(row.prompt_ids) + len(row.completions[0]) for row in rows)

    def _together(
        self, examples: Sequence[Example], beside: Statistic | None = None, *, with_states: bool = False
    ) -> tuple[TokenLogps, Tensor]:
        """Score in one forward pass; the states are [scored, hidden], none unless they are asked for."""
        if self._stretching.grows:
            forget_lengths(self._network)
        batch = lay_out(examples, self._pad_id).to(self._device)
        positions = torch.arange(batch.first_scored, batch.input_ids.shape[1] - 1, device=self._device)
        with _arithmetic(self._device, self._dtype):
            said = self._network(
                input_ids=batch.input_ids,
                attention_mask=batch.attention_mask,
                logits_to_keep=positions,
                output_hidden_states=with_states,
                use_cache=False,
            )
        values = plain_token_logps(said.logits, batch.input_ids, batch.completion_mask, batch.first_scored)
        numbers = (
            None if beside is None else plain_beside(said.logits, batch.completion_mask, batch.first_scored, beside)
        )
        states = said.logits.new_empty(0)
        if with_states:
            if not said.hidden_states:
                raise ModelError(f"{type(causal_model(self._network)).__name__}: tells no hidden states")
            states = said.hidden_states[-1][:, :-1][batch.completion_mask[:, 1:]]
        return TokenLogps(values, batch.num_tokens, numbers), states


@dataclass(frozen=True)
class _Row:
    """An example of one completion of another one."""

    prompt_ids: Ids
    completions: tuple[Ids, ...]
    example_id: str = ""
    prompt_id: str = ""
    weight: float = 1.0


class PackedScorer:
    """All examples in one row, each prompt once, through the model's backbone and our head (see `maths.packing`)."""

    layout = "packed"

    def __init__(self, network: Any, *, device: torch.device, dtype: torch.dtype) -> None:
        """`dtype` is that of the arithmetic; weights of another dtype are cast on the way."""
        self._scored = BackboneAndHead(causal_model(network), dtype)
        self._device = device
        self._dtype = dtype
        self.windows: set[int] = set()
        """The sliding windows that the network's layers asked for so far."""

    def of(self, network: Any) -> PackedScorer:
        """Return the same scorer for another network."""
        return PackedScorer(network, device=self._device, dtype=self._dtype)

    def micro_batches(self, examples: Sequence[E], token_budget: int) -> list[list[E]]:
        """Group by packed size, first-fit-decreasing."""
        return packed_micro_batches(examples, token_budget)

    def num_tokens(self, examples: Sequence[Example]) -> int:
        """Return the length of the row."""
        return num_packed(examples)

    def tokens(self, examples: Sequence[Example], beside: Statistic | None = None) -> TokenLogps:
        """Return the log-probability of every scored token; cost grows with the unique tokens."""
        use_packed_attention(self._scored.causal)
        row = pack(examples)
        row = row.filled(filling(row.input_ids.numel(), self._device, self._dtype)).to(self._device)
        values, numbers = self._scored(row, PackedLayout(row.segments, self.windows), beside)
        told = None if numbers is None else numbers.index_select(0, row.completion_tokens)
        return TokenLogps(values.index_select(0, row.completion_tokens), row.num_tokens, told)

    def read(self, examples: Sequence[Example]) -> tuple[TokenLogps, Tensor]:
        """Return `tokens` and the mean hidden state of each completion."""
        use_packed_attention(self._scored.causal)
        row = pack(examples)
        row = row.filled(filling(row.input_ids.numel(), self._device, self._dtype)).to(self._device)
        states = self._scored.states(row, PackedLayout(row.segments, self.windows))
        values, _ = self._scored.logps(states, row)
        logps = TokenLogps(values.index_select(0, row.completion_tokens), row.num_tokens)
        return logps, _means(states.index_select(0, row.completion_tokens), row.num_tokens)


class BackboneAndHead(nn.Module):
    """A packed row to the log-probabilities of its scored tokens: one forward pass, for whoever wraps it.

    Backbone and head are one module, so that what shards or replicates weights sees them used within its own forward.
    """

    def __init__(self, causal: Any, dtype: torch.dtype) -> None:
        super().__init__()
        self.causal = causal
        self._dtype = dtype

    def forward(
        self, row: PackedRow, layout: PackedLayout, beside: Statistic | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Return [scored], and what a statistic says of each distribution; the row is on the module's device."""
        return self.logps(self.states(row, layout), row, beside)

    def states(self, row: PackedRow, layout: PackedLayout) -> Tensor:
        """Return [scored, hidden]: the states that the head turns into what is said of each scored token."""
        with _arithmetic(row.input_ids.device, self._dtype):
            hidden = self.causal.base_model(
                input_ids=row.input_ids.unsqueeze(0),
                position_ids=row.position_ids.unsqueeze(0),
                use_cache=False,
                packed_layout=layout,
            ).last_hidden_state
        found: Tensor = hidden[0].index_select(0, row.predictors).to(self._dtype)
        return found

    def logps(self, states: Tensor, row: PackedRow, beside: Statistic | None = None) -> tuple[Tensor, Tensor | None]:
        """Return [scored] from the states, and what a statistic says of each distribution."""
        head = head_of(self.causal)
        assert head is not None, "the self-check lets no model without a plain head come here"  # noqa: S101
        return token_logps_beside(states, row.targets, head, beside)


def _means(states: Tensor, num_tokens: Sequence[int]) -> Tensor:
    """Return [completions, hidden] of [tokens, hidden], in fp32."""
    return torch.stack([part.float().mean(0) for part in torch.split(states, list(num_tokens))])


def _arithmetic(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[None]:
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)
