"""What a model says about completions: the log-probability of every scored token.

Owns the forward pass. `Scorer` is the seam: the step, the reference and the evaluation hand over examples; how the
tokens are laid out is the scorer's secret. `PlainScorer` is the slow, obvious form. `PackedScorer` computes each prompt
once and pads nothing, and equals it in values and gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from tiebreak.engine.attention import PackedLayout, causal_model, use_packed_attention, use_plain_attention
from tiebreak.engine.head import (
    Head,
    Others,
    at_places,
    divergences,
    head_of,
    plain_beside,
    plain_distributions,
    plain_token_logps,
    token_logps,
    token_logps_beside,
)
from tiebreak.engine.products import filling
from tiebreak.engine.stretching import forget_lengths, stretching_of
from tiebreak.errors import ModelError
from tiebreak.maths.distributions import Statistic
from tiebreak.maths.layout import PaddedRows, lay_out, micro_batches, num_padded
from tiebreak.maths.logps import TokenLogps
from tiebreak.maths.packing import PackedRow, num_packed, pack, packed_micro_batches
from tiebreak.records import Example, Ids

E = TypeVar("E", bound=Example)
Cut = Callable[[Sequence[Example]], Sequence[Sequence[Example]]]
"""Groups examples so that each group fits in memory."""


@dataclass(frozen=True)
class Whole:
    """What a model says of completions, and of all that could have stood in the place of each token."""

    tokens: TokenLogps
    at: Callable[[Tensor], Tensor]
    """Returns log-probabilities [places, vocabulary], fp32, of the distributions at some places among `tokens`."""


class Scorer(Protocol):
    """Scores examples under one network; log-probabilities have a gradient where the network has one."""

    layout: str
    """The name of the layout, for manifests."""

    def micro_batches(self, examples: Sequence[E], token_budget: int) -> list[list[E]]:
        """Group the examples of a step so that each group costs at most `token_budget` tokens in this layout."""

    def num_tokens(self, examples: Sequence[Example]) -> int:
        """Return the tokens that one micro-batch of these examples costs in this layout."""

    def tokens(
        self, examples: Sequence[Example], beside: Statistic | None = None, against: Whole | None = None
    ) -> TokenLogps:
        """Return the log-probability of every scored token, what a statistic says of its distribution, and how far that
        is from what another model says `against` it of the same examples.
        """

    def whole(self, examples: Sequence[Example]) -> Whole:
        """Return what the network, which is not trained here, says of whole distributions, without a gradient."""

    def read(self, examples: Sequence[Example]) -> tuple[TokenLogps, Tensor]:
        """Return `tokens`, and from the same pass [completions, hidden], fp32: what the head is given, averaged.

        The mean is over the states that a completion's tokens are predicted from. Raises ModelError where the model
        tells none.
        """

    def of(self, network: Any, device: torch.device | None = None) -> Scorer:
        """Return the same scorer for another network of the same make, on its device or another one."""


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

    def of(self, network: Any, device: torch.device | None = None) -> PlainScorer:
        """Return the same scorer for another network."""
        return PlainScorer(network, pad_id=self._pad_id, device=device or self._device, dtype=self._dtype)

    def micro_batches(self, examples: Sequence[E], token_budget: int) -> list[list[E]]:
        """Group by padded size, longest first."""
        return micro_batches(examples, token_budget)

    def num_tokens(self, examples: Sequence[Example]) -> int:
        """Return the size of the padded rectangle."""
        return num_padded(examples)

    def tokens(
        self, examples: Sequence[Example], beside: Statistic | None = None, against: Whole | None = None
    ) -> TokenLogps:
        """Return the log-probability of every scored token; cost grows with the padded size."""
        found, order = [], list[int]()
        for places, batch, said in self._parties(examples):
            values = plain_token_logps(said.logits, batch.input_ids, batch.predictors, batch.first_scored)
            numbers = None if beside is None else plain_beside(said.logits, batch.predictors, beside)
            apart = None
            if against is not None:
                theirs = against.at(_tokens_of(examples, places).to(self._device, non_blocking=True))
                apart = divergences(theirs, plain_distributions(said.logits, batch.predictors))
            found.append(TokenLogps(values, batch.num_tokens, numbers, apart))
            order += places
        return _in_order(found, order)

    def whole(self, examples: Sequence[Example]) -> Whole:
        """Return what the network says of whole distributions; all of them are held at once."""
        found, held, order = [], [], list[int]()
        for places, batch, said in self._parties(examples):
            values = plain_token_logps(said.logits, batch.input_ids, batch.predictors, batch.first_scored)
            found.append(TokenLogps(values, batch.num_tokens))
            held.append(plain_distributions(said.logits, batch.predictors))
            order += places
        every, back = torch.cat(held), _tokens_of(examples, order).argsort().to(self._device, non_blocking=True)
        return Whole(_in_order(found, order), lambda places: every[back[places]])

    def read(self, examples: Sequence[Example]) -> tuple[TokenLogps, Tensor]:
        """Return `tokens` and the mean hidden state of each completion; holds the states of all layers for a while."""
        found, means, order = [], dict[int, Tensor](), list[int]()
        for places, batch, said in self._parties(examples, with_states=True):
            if not said.hidden_states:
                raise ModelError(f"{type(causal_model(self._network)).__name__}: tells no hidden states")
            values = plain_token_logps(said.logits, batch.input_ids, batch.predictors, batch.first_scored)
            found.append(TokenLogps(values, batch.num_tokens))
            states = at_places(said.hidden_states[-1][:, batch.first_scored : -1], batch.predictors)
            means |= zip(places, _means(states, batch.num_tokens), strict=True)
            order += places
        return _in_order(found, order), torch.stack([means[place] for place in range(len(order))])

    def _parties(
        self, examples: Sequence[Example], *, with_states: bool = False
    ) -> Iterator[tuple[list[int], PaddedRows, Any]]:
        """Yield the places of completions that may share a forward pass, their rows, and what the model says of them.

        A micro-batch is one party unless the model's positions stretch; rows are then those of completions, one by one.
        """
        use_plain_attention(self._network)
        rows = [_Row(example.prompt_ids, (completion,)) for example in examples for completion in example.completions]
        for places in self._stretching.parties(len(row.prompt_ids) + len(row.completions[0]) for row in rows):
            batch, said = self._together([rows[place] for place in places], with_states=with_states)
            yield places, batch, said

    def _together(self, examples: Sequence[Example], *, with_states: bool) -> tuple[PaddedRows, Any]:
        """Return rows and what the model says of them in one forward pass."""
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
        return batch, said


def _in_order(parts: Sequence[TokenLogps], order: Sequence[int]) -> TokenLogps:
    """Return completions in their own order, of parts in which they stand in another one."""
    together = TokenLogps.concatenated(parts)
    return together if list(order) == sorted(order) else together.ordered(order)


def _tokens_of(examples: Sequence[Example], completions: Sequence[int]) -> Tensor:
    """Return the places of the tokens of some completions among those of all of them."""
    lengths = [len(completion) for example in examples for completion in example.completions]
    ends = list(accumulate(lengths, initial=0))
    return torch.cat([torch.arange(ends[place], ends[place + 1]) for place in completions])


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

    def of(self, network: Any, device: torch.device | None = None) -> PackedScorer:
        """Return the same scorer for another network."""
        return PackedScorer(network, device=device or self._device, dtype=self._dtype)

    def micro_batches(self, examples: Sequence[E], token_budget: int) -> list[list[E]]:
        """Group by packed size, first-fit-decreasing."""
        return packed_micro_batches(examples, token_budget)

    def num_tokens(self, examples: Sequence[Example]) -> int:
        """Return the length of the row."""
        return num_packed(examples)

    def tokens(
        self, examples: Sequence[Example], beside: Statistic | None = None, against: Whole | None = None
    ) -> TokenLogps:
        """Return the log-probability of every scored token; cost grows with the unique tokens."""
        row, layout = self._packed(examples)
        others = None
        if against is not None:
            at, places = against.at, torch.empty_like(row.targets)
            places[row.completion_tokens] = torch.arange(len(row.completion_tokens), device=self._device)
            others = lambda part: at(places[part])  # noqa: E731 - a completion of several examples: of one of them
        values, *told = self._scored(row, layout, beside, others)
        more = [None if numbers is None else numbers.index_select(0, row.completion_tokens) for numbers in told]
        return TokenLogps(values.index_select(0, row.completion_tokens), row.num_tokens, *more)

    def whole(self, examples: Sequence[Example]) -> Whole:
        """Return what the network says of whole distributions, which are made of its states whenever they are asked."""
        row, layout = self._packed(examples)
        states = self._scored.states(row, layout)
        head = _head(self._scored.causal).of(states.dtype)
        values = token_logps(states, row.targets, head).index_select(0, row.completion_tokens)
        own = states.index_select(0, row.completion_tokens)
        return Whole(TokenLogps(values, row.num_tokens), lambda places: head.logits(own[places]).log_softmax(-1))

    def read(self, examples: Sequence[Example]) -> tuple[TokenLogps, Tensor]:
        """Return `tokens` and the mean hidden state of each completion."""
        row, layout = self._packed(examples)
        states = self._scored.states(row, layout)
        values = token_logps(states, row.targets, _head(self._scored.causal))
        logps = TokenLogps(values.index_select(0, row.completion_tokens), row.num_tokens)
        return logps, _means(states.index_select(0, row.completion_tokens), row.num_tokens)

    def _packed(self, examples: Sequence[Example]) -> tuple[PackedRow, PackedLayout]:
        use_packed_attention(self._scored.causal)
        row = pack(examples)
        row = row.filled(filling(row.input_ids.numel(), self._scored.causal, self._device, self._dtype)).to(
            self._device
        )
        return row, PackedLayout(row.segments, self.windows)


class BackboneAndHead(nn.Module):
    """A packed row to the log-probabilities of its scored tokens: one forward pass, for whoever wraps it.

    Backbone and head are one module, so that what shards or replicates weights sees them used within its own forward.
    """

    def __init__(self, causal: Any, dtype: torch.dtype) -> None:
        super().__init__()
        self.causal = causal
        self._dtype = dtype

    def forward(
        self,
        row: PackedRow,
        layout: PackedLayout,
        beside: Statistic | None = None,
        others: Others | None = None,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return [scored], what a statistic says of each distribution, and how far it is from others; the row is on the
        module's device.
        """
        return token_logps_beside(self.states(row, layout), row.targets, _head(self.causal), beside, others)

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


def _head(causal: Any) -> Head:
    """Return the head of a model that is packed; the self-check lets none without come here."""
    head = head_of(causal)
    assert head is not None, "the self-check lets no model without a plain head come here"  # noqa: S101
    return head


def _means(states: Tensor, num_tokens: Sequence[int]) -> Tensor:
    """Return [completions, hidden] of [tokens, hidden], in fp32."""
    return torch.stack([part.float().mean(0) for part in torch.split(states, list(num_tokens))])


def _arithmetic(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[None]:
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)
