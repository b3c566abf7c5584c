"""Attention over packed rows, plugged into transformers by its public registry.

Owns how a completion comes to see its prompt and itself and nothing else. transformers builds no mask for an attention
that is registered without one; the layout travels to every layer as the keyword `packed_layout`. An attention call that
arrives without a layout fails, so a packed model can never be run as a plain one by mistake, and `use_packed_attention`
and `use_plain_attention` switch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain
from typing import Any
from weakref import WeakKeyDictionary

import peft
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from tiebreak.maths.packing import Segment

PACKED = "tiebreak_packed"
_OWN_ATTENTION: WeakKeyDictionary[Any, str] = WeakKeyDictionary()


@dataclass(frozen=True)
class PackedLayout:
    """The segments of a row, with the masks that its layers share."""

    segments: tuple[Segment, ...]
    windows: set[int]
    """The sliding windows that layers asked for; filled while they compute."""
    _masks: dict[tuple[Any, ...], Tensor | None] = field(default_factory=dict)

    @property
    def query_lengths(self) -> list[int]:
        """Lengths of the runs of queries: prompt with first completion, then each further completion."""
        return list(chain.from_iterable((s.prompt + s.completions[0], *s.completions[1:]) for s in self.segments))

    @property
    def key_lengths(self) -> list[int]:
        """Lengths of the runs of keys: prompt, first completion, each further completion."""
        return list(chain.from_iterable((s.prompt, *s.completions) for s in self.segments))

    def mask(self, num_queries: int, num_keys: int, window: int | None, like: Tensor) -> Tensor | None:
        """Return what is added to scores where the queries are the last of the keys; None where causal says it all."""
        if num_queries == num_keys and (window is None or num_keys <= window):
            return None
        key = (num_queries, num_keys, window, like.dtype, like.device)
        if key not in self._masks:
            self._masks[key] = _causal_mask(num_queries, num_keys, window, like)
        return self._masks[key]


def packed_attention(
    _module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    packed_layout: PackedLayout,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    position_bias: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Return [1, row, heads, head size]; `query`, `key`, `value` are [1, heads, row, head size].

    Attention of each run of queries is computed on its own, so nothing outside a run can reach into it.
    """
    if dropout or position_bias is not None or attention_mask is not None:
        raise ValueError("packed attention knows no dropout, position bias or mask of the model's own")
    if sliding_window is not None:
        packed_layout.windows.add(sliding_window)
    exact = softcap is not None or s_aux is not None
    outputs = []
    runs = zip(
        torch.split(query, packed_layout.query_lengths, dim=2),
        _runs_of_keys(key, packed_layout),
        _runs_of_keys(value, packed_layout),
        strict=True,
    )
    for queries, keys, values in runs:
        mask = packed_layout.mask(queries.shape[2], keys.shape[2], sliding_window, queries)
        if exact:
            output = _written_out(queries, keys, values, mask, scaling, softcap, s_aux)
        else:
            output = scaled_dot_product_attention(
                queries,
                keys,
                values,
                attn_mask=mask,
                is_causal=mask is None,
                scale=scaling,
                enable_gqa=keys.shape[1] != queries.shape[1],
            )
        outputs.append(output.transpose(1, 2))
    return torch.cat(outputs, dim=1), None


def causal_model(model: Any) -> Any:
    """Return the transformers model with a head, from below an adapter if there is one."""
    return model.get_base_model() if isinstance(model, peft.PeftModel) else model


def use_packed_attention(model: Any) -> None:
    """Make a transformers model attend over packed rows, until `use_plain_attention`.

    The switch stays, and is no context around a forward pass: with gradient checkpointing the backward pass runs the
    layers again, and they have to attend as they did.
    """
    model = causal_model(model)
    _OWN_ATTENTION.setdefault(model, model.config._attn_implementation)
    _switch(model, PACKED)


def use_plain_attention(model: Any) -> None:
    """Give a transformers model the attention back that it was loaded with."""
    model = causal_model(model)
    if model in _OWN_ATTENTION:
        _switch(model, _OWN_ATTENTION[model])


def _switch(model: Any, name: str) -> None:
    if model.config._attn_implementation != name:
        model.set_attn_implementation(name)


def _runs_of_keys(keys: Tensor, layout: PackedLayout) -> list[Tensor]:
    """Return for each run of queries what it may look at: its prompt, then the run's own completion."""
    # One split, not slices: the backward pass of a slice writes zeros the size of the whole row.
    pieces = iter(torch.split(keys, layout.key_lengths, dim=2))
    runs = []
    for segment in layout.segments:
        prompt = next(pieces)
        runs += [torch.cat([prompt, next(pieces)], dim=2) for _ in segment.completions]
    return runs


def _causal_mask(num_queries: int, num_keys: int, window: int | None, like: Tensor) -> Tensor:
    """Return [queries, keys] of 0 and −inf: the last query sees the last key, and at most `window` keys back."""
    query = torch.arange(num_keys - num_queries, num_keys, device=like.device)[:, None]
    key = torch.arange(num_keys, device=like.device)
    seen = key <= query
    if window is not None:
        seen &= key > query - window
    return torch.zeros(num_queries, num_keys, dtype=like.dtype, device=like.device).masked_fill_(~seen, -torch.inf)


def _written_out(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    mask: Tensor | None,
    scaling: float | None,
    softcap: float | None,
    sinks: Tensor | None,
) -> Tensor:
    """Attention with what no fused kernel knows: capped scores (Gemma 2), and a learned sink (gpt-oss) per head."""
    groups = queries.shape[1] // keys.shape[1]
    keys, values = (x.repeat_interleave(groups, dim=1) for x in (keys, values))
    scores = queries @ keys.transpose(2, 3) * (queries.shape[-1] ** -0.5 if scaling is None else scaling)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    scores = scores + (_causal_mask(queries.shape[2], keys.shape[2], None, scores) if mask is None else mask)
    if sinks is not None:
        column = sinks.reshape(1, -1, 1, 1).expand(*scores.shape[:-1], 1)
        scores = torch.cat([scores, column], dim=-1)
    weights = scores.softmax(dim=-1, dtype=torch.float32).to(values.dtype)
    return weights[..., : keys.shape[2]] @ values


AttentionInterface.register(PACKED, packed_attention)
