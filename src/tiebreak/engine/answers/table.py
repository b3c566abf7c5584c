"""The table of answers under way: their keys and values, and attention over them.

Owns where keys and values lie. Each answer has a slot of the table; its tokens stand there from the left, whatever its
neighbours do, so nothing is padded into it. Prompts go through the model in one row, as packed examples do; from then
on one row holds one token of every answer. The layout travels to every layer as the keyword `answers_under_way`, and
layers are told apart by the order in which they ask. Knows nothing of how tokens are chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, count, pairwise
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from tiebreak.engine.attention import PackedLayout, packed_attention, written_out
from tiebreak.maths.packing import Segment

ANSWERING = "tiebreak_answering"
ROOM = 64
"""A slot grows by multiples of so many tokens."""

Layers = list[tuple[Tensor, Tensor]]
"""Keys and values of every layer."""


@dataclass(frozen=True)
class Scores:
    """What a layer does to the products of queries and keys."""

    scaling: float | None
    sliding_window: int | None
    softcap: float | None
    s_aux: Tensor | None


class UnderWay(Protocol):
    """Attention within one forward pass."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scores: Scores) -> Tensor:
        """Return [1, row, heads, head size] of [1, heads, row, head size], and keep keys and values."""


def attention(
    _module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    answers_under_way: UnderWay,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    position_bias: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attend as the forward pass under way says; transformers calls it for every layer."""
    if dropout or position_bias is not None or attention_mask is not None:
        raise ValueError("answers under way know no dropout, position bias or mask of the model's own")
    return answers_under_way.attend(query, key, value, Scores(scaling, sliding_window, softcap, s_aux)), None


class Prompts:
    """Prompts behind one another in one row, each for itself."""

    def __init__(self, lengths: Sequence[int]) -> None:
        self._lengths = lengths
        self._layout = PackedLayout(tuple(Segment(length, (0,)) for length in lengths), set())
        self._kept: Layers = []

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scores: Scores) -> Tensor:
        """Return [1, row, heads, head size]."""
        self._kept.append((key[0], value[0]))
        output, _ = packed_attention(
            torch.nn.Identity(),
            query,
            key,
            value,
            None,
            packed_layout=self._layout,
            scaling=scores.scaling,
            sliding_window=scores.sliding_window,
            softcap=scores.softcap,
            s_aux=scores.s_aux,
        )
        return output

    def layers(self) -> list[Layers]:
        """Return [heads, tokens, head size] of keys and values, for each prompt and layer."""
        places = list(pairwise(accumulate(self._lengths, initial=0)))
        return [[(k[:, low:high], v[:, low:high]) for k, v in self._kept] for low, high in places]


class Table:
    """Slots for answers: keys and values of all their tokens but the newest, in every layer."""

    def __init__(self, num_slots: int) -> None:
        self.num_slots = num_slots
        self._layers: Layers = []
        self.windows: set[int] = set()
        """The sliding windows that layers asked for."""
        self.lengths = [0] * num_slots
        """Tokens in each slot."""

    def seat(self, slot: int, prompt: Layers) -> None:
        """Put a prompt's keys and values into a slot."""
        length = prompt[0][0].shape[1]
        if not self._layers:
            self._layers = [
                (
                    k.new_zeros(self.num_slots, len(k), 0, k.shape[-1]),
                    v.new_zeros(self.num_slots, len(v), 0, v.shape[-1]),
                )
                for k, v in prompt
            ]
        self._grow(length + 1)
        for (keys, values), (k, v) in zip(self._layers, prompt, strict=True):
            keys[slot, :, :length] = k
            values[slot, :, :length] = v
        self.lengths[slot] = length

    def move(self, source: int, target: int) -> None:
        """Move an answer to another slot."""
        length = self.lengths[source]
        for keys, values in self._layers:
            keys[target, :, :length] = keys[source, :, :length]
            values[target, :, :length] = values[source, :, :length]
        self.lengths[target] = length

    def step(self, num_slots: int) -> Step:
        """Return the attention of one token for each of the first slots."""
        self._grow(max(self.lengths[:num_slots]) + 1)
        return Step(self._layers, self.lengths[:num_slots], self.windows)

    def _grow(self, num_tokens: int) -> None:
        # Zeros, not whatever memory held: a masked NaN is a NaN. A quarter more each time, so that copying stays rare.
        room = self._layers[0][0].shape[2]
        if num_tokens <= room:
            return
        more = -(-max(num_tokens, room * 5 // 4) // ROOM) * ROOM - room
        for layer, both in enumerate(self._layers):
            self._layers[layer] = tuple(  # type: ignore[assignment]
                torch.cat([x, x.new_zeros(*x.shape[:2], more, x.shape[3])], dim=2) for x in both
            )


class Step:
    """One token for each of some slots, behind all that stands in the slot."""

    def __init__(self, layers: Layers, lengths: Sequence[int], windows: set[int]) -> None:
        self._layers = layers
        self._windows = windows
        self._next = count()
        device = layers[0][0].device
        self._lengths = torch.tensor(lengths, device=device)
        self._slots = torch.arange(len(lengths), device=device)
        self._most = max(lengths) + 1
        self._masks: dict[int | None, Tensor] = {}

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scores: Scores) -> Tensor:
        """Return [1, row, heads, head size]."""
        all_keys, all_values = self._layers[next(self._next)]
        all_keys[self._slots, :, self._lengths] = key[0].transpose(0, 1)
        all_values[self._slots, :, self._lengths] = value[0].transpose(0, 1)
        num = len(self._slots)
        keys, values = all_keys[:num, :, : self._most], all_values[:num, :, : self._most]
        mask = self._mask(scores.sliding_window)
        if scores.softcap is not None or scores.s_aux is not None:
            added = torch.zeros(mask.shape, dtype=query.dtype, device=query.device).masked_fill_(~mask, -torch.inf)
            alone = query[0].transpose(0, 1).unsqueeze(2)
            output = written_out(alone, keys, values, added, scores.scaling, scores.softcap, scores.s_aux)
        else:
            # The heads that share keys stand as further queries, so that keys are read once and copied never.
            grouped = query[0].view(keys.shape[1], -1, num, query.shape[-1]).permute(2, 0, 1, 3)
            output = scaled_dot_product_attention(grouped, keys, values, mask, scale=scores.scaling)
        return output.reshape(1, num, query.shape[1], values.shape[-1])

    def _mask(self, window: int | None) -> Tensor:
        """Return [slots, 1, 1, tokens]: what each new token may look at."""
        if window not in self._masks:
            places, newest = torch.arange(self._most, device=self._slots.device), self._lengths[:, None]
            seen = places <= newest
            if window is not None:
                self._windows.add(window)
                seen &= places > newest - window
            self._masks[window] = seen[:, None, None]
        return self._masks[window]


AttentionInterface.register(ANSWERING, attention)
