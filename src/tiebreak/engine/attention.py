"""Attention over packed rows, plugged into transformers by its public registry.

Owns how a completion comes to see its prompt and itself and nothing else. transformers builds no mask for an attention
that is registered without one; the layout travels to every layer as the keyword `packed_layout`. An attention call that
arrives without a layout fails, so a packed model can never be run as a plain one by mistake, and `use_packed_attention`
and `use_plain_attention` switch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache, partial
from importlib.util import find_spec
from inspect import signature
from itertools import accumulate, chain
from typing import Any
from weakref import WeakKeyDictionary

import peft
import torch
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention
from transformers import AttentionInterface

from tiebreak.engine.probes import Way, is_faster, known
from tiebreak.maths.packing import Segment

PACKED = "tiebreak_packed"
MOST_HEAD_SIZE = 256
"""Of `torch.nn.attention.varlen`."""
HEAD_SIZES = 8
"""Its heads have a multiple of this size, and values the size of keys."""
LEAST_CAPABILITY = (8, 0)
"""Of the GPUs that it runs on: Ampere."""
WIDE_FASTER_BY = 1.1
"""What attention in fp32 has to gain where it is given bfloat16: it keeps twice as much for the backward pass."""
NARROW = (torch.float16, torch.bfloat16)
"""What it computes in."""
Kernel = Callable[..., Any]
"""Attention over runs of different lengths in one call: `torch.nn.attention.varlen.varlen_attn`, or what means the
same."""
_MAY_ASK = ContextVar("asking", default=False)
_OWN_ATTENTION: WeakKeyDictionary[Any, str] = WeakKeyDictionary()


@dataclass(frozen=True)
class PackedLayout:
    """The segments of a row, with the masks that its layers share."""

    segments: tuple[Segment, ...]
    windows: set[int]
    """The sliding windows that layers asked for; filled while they compute."""
    kernel: Kernel | None = None
    """What attends to all runs in one call, in whatever precision; None where queries on a GPU decide."""
    _masks: dict[tuple[Any, ...], Tensor | None] = field(default_factory=dict)
    _starts: dict[torch.device, tuple[Tensor, Tensor]] = field(default_factory=dict)

    @property
    def runs(self) -> list[tuple[int, int]]:
        """(queries, keys) of every run: prompt with first completion, then each further completion behind its prompt.

        Completions of one token stand in the row with no token at all, and are no run of their own.
        """
        lengths = chain.from_iterable(
            [(s.prompt + s.completions[0],) * 2, *((own, s.prompt + own) for own in s.completions[1:])]
            for s in self.segments
        )
        return [(queries, keys) for queries, keys in lengths if queries]

    def pieces(self, keys: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return for each run what it may look at: its prompt, and its own completion."""
        # One split, not slices: the backward pass of a slice writes zeros the size of the whole row.
        lengths = list(chain.from_iterable((s.prompt, *s.completions) for s in self.segments))
        parts = iter(torch.split(keys, lengths, dim=2))
        found = []
        for segment in self.segments:
            prompt = next(parts)
            for index, own in enumerate([next(parts) for _ in segment.completions]):
                if index == 0 or own.shape[2]:
                    found.append((prompt, own))
        return found

    def cut(self, query: Tensor, key: Tensor, value: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield the queries of each run, and the keys and values that it may look at."""
        queries = torch.split(query, [num for num, _ in self.runs], dim=2)
        for part, keys, values in zip(queries, self.pieces(key), self.pieces(value), strict=True):
            yield part, torch.cat(keys, dim=2), torch.cat(values, dim=2)

    def starts(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return where each run begins among all queries and among all keys, and where the last one ends."""
        if device not in self._starts:
            queries, keys = (
                torch.tensor([0, *accumulate(lengths)], dtype=torch.int32).to(device, non_blocking=True)
                for lengths in zip(*self.runs, strict=True)
            )
            self._starts[device] = queries, keys
        return self._starts[device]

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
    no_kernel = softcap is not None or s_aux is not None
    kernel = None if no_kernel else packed_layout.kernel or _kernel_for(query, value)
    if kernel is not None:
        return _in_one_call(kernel, query, key, value, packed_layout, scaling, sliding_window), None
    dtype = _dtype_of(query)
    is_wide = not no_kernel and dtype == torch.bfloat16 and query.device.type == "cpu" and _wide_is_faster(query)
    if is_wide:
        query, key, value = query.float(), key.float(), value.float()
    outputs = []
    with torch.autocast(query.device.type, enabled=False) if is_wide else nullcontext():
        for queries, keys, values in packed_layout.cut(query, key, value):
            mask = packed_layout.mask(queries.shape[2], keys.shape[2], sliding_window, queries)
            if no_kernel:
                output = written_out(queries, keys, values, mask, scaling, softcap, s_aux)
            else:
                gqa = keys.shape[1] != queries.shape[1]
                options: dict[str, Any] = {"is_causal": mask is None, "scale": scaling, "enable_gqa": gqa}
                output = scaled_dot_product_attention(queries, keys, values, mask, **options)
            outputs.append(output.transpose(1, 2))
    found = torch.cat(outputs, dim=1)
    return found.to(dtype) if is_wide else found, None


def causal_model(model: Any) -> Any:
    """Return the transformers model with a head, from below an adapter if there is one."""
    return model.get_base_model() if isinstance(model, peft.PeftModel) else model


def layers_of(model: Any) -> list[Any] | None:
    """Return the decoder layers of a transformers model; None where it has no list of as many as it says."""
    causal = causal_model(model)
    num = causal.config.get_text_config().num_hidden_layers
    lists = (one for one in causal.base_model.modules() if isinstance(one, nn.ModuleList) and len(one) == num)
    return next(([*one] for one in lists), None)


def use_packed_attention(model: Any) -> None:
    """Make a transformers model attend over packed rows, until `use_plain_attention`.

    The switch stays, and is no context around a forward pass: with gradient checkpointing the backward pass runs the
    layers again, and they have to attend as they did.
    """
    use_attention(model, PACKED)


def use_attention(model: Any, name: str) -> None:
    """Make a transformers model attend by the function that is registered under a name, until `use_plain_attention`."""
    model = causal_model(model)
    _OWN_ATTENTION.setdefault(model, model.config._attn_implementation)
    _switch(model, name)


def use_plain_attention(model: Any) -> None:
    """Give a transformers model the attention back that it was loaded with."""
    model = causal_model(model)
    if model in _OWN_ATTENTION:
        _switch(model, _OWN_ATTENTION[model])


def _switch(model: Any, name: str) -> None:
    if model.config._attn_implementation != name:
        model.set_attn_implementation(name)


def _kernel_for(query: Tensor, value: Tensor) -> Kernel | None:
    """Return torch's attention over runs of different lengths where it serves: CUDA, 16 bits, small heads."""
    fits = max(query.shape[-1], value.shape[-1]) <= MOST_HEAD_SIZE
    serves = query.is_cuda and fits and _dtype_of(query) in NARROW and _is_new_enough(query.device)
    return _varlen_attn() if serves else None


@cache
def _is_new_enough(device: torch.device) -> bool:
    return torch.cuda.get_device_capability(device) >= LEAST_CAPABILITY


def _dtype_of(query: Tensor) -> torch.dtype:
    """Return what attention computes in: rotated queries of fp32 weights are wide, also where autocast is narrow."""
    kind = query.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else query.dtype


@contextmanager
def asking() -> Iterator[None]:
    """Let a forward pass, which alone knows all sizes of heads, ask in which width they are fastest: for loading."""
    token = _MAY_ASK.set(True)
    try:
        yield
    finally:
        _MAY_ASK.reset(token)


def _wide_is_faster(query: Tensor) -> bool:
    """Whether attention in fp32, forward and back, is faster than torch's own in bfloat16; no, where nobody asked."""
    size = query.shape[-1]
    question = f"attention in float32, bfloat16 given, heads of {size}"
    if _MAY_ASK.get():
        return is_faster(question, partial(_widths, size), WIDE_FASTER_BY)
    return bool(known(question))


def _widths(size: int) -> tuple[Way, Way]:
    """Return attention of two short runs and their gradients, of numbers in bfloat16: in fp32, and as they come."""
    given = [torch.randn(3, 8, num, size, dtype=torch.bfloat16, device="cpu").requires_grad_() for num in (96, 256)]

    def way(dtype: torch.dtype) -> Way:
        def taken() -> list[Tensor]:
            gradients = list[Tensor]()
            for qkv in given:
                with torch.enable_grad():
                    query, key, value = qkv.to(dtype).unsqueeze(1)
                    found = scaled_dot_product_attention(query, key, value, is_causal=True).to(qkv.dtype)
                gradients += torch.autograd.grad(found, qkv, torch.ones_like(found))
            return gradients

        return taken

    return way(torch.float32), way(torch.bfloat16)


@cache
def _varlen_attn() -> Kernel | None:
    if find_spec("torch.nn.attention.varlen") is None:
        return None
    from torch.nn.attention.varlen import varlen_attn  # noqa: PLC0415 - absent from older torch

    return varlen_attn if "window_size" in signature(varlen_attn).parameters else None


def _in_one_call(
    kernel: Kernel,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: PackedLayout,
    scaling: float | None,
    window: int | None,
) -> Tensor:
    """Return [1, row, heads, head size] of all runs from one kernel; prompts stand in its keys once for each run."""
    size = -(-max(query.shape[-1], value.shape[-1]) // HEAD_SIZES) * HEAD_SIZES
    queries, *both = (_widened(x.to(_dtype_of(query)), size) for x in (query, key, value))
    keys, values = (torch.cat(list(chain.from_iterable(layout.pieces(x))), dim=2) for x in both)
    most_queries, most_keys = (max(lengths) for lengths in zip(*layout.runs, strict=True))
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    options: dict[str, Any] = {"scale": scale, "window_size": (-1 if window is None else window - 1, 0)}
    if "enable_gqa" in signature(kernel).parameters:  # older ones take fewer key heads as they come
        options["enable_gqa"] = key.shape[1] != query.shape[1]
    starts, rows = layout.starts(query.device), (x[0].transpose(0, 1) for x in (queries, keys, values))
    output = kernel(*rows, *starts, most_queries, most_keys, **options)
    assert isinstance(output, Tensor)  # noqa: S101 - a pair only where auxiliary results are asked for
    return output[..., : value.shape[-1]].unsqueeze(0)


def _widened(heads: Tensor, size: int) -> Tensor:
    """Return heads of a size: zeros behind them change no product, and are cut off what comes of values."""
    missing = size - heads.shape[-1]
    return pad(heads, (0, missing)) if missing else heads


def _causal_mask(num_queries: int, num_keys: int, window: int | None, like: Tensor) -> Tensor:
    """Return [queries, keys] of 0 and −inf: the last query sees the last key, and at most `window` keys back."""
    query = torch.arange(num_keys - num_queries, num_keys, device=like.device)[:, None]
    key = torch.arange(num_keys, device=like.device)
    seen = key <= query
    if window is not None:
        seen &= key > query - window
    return torch.zeros(num_queries, num_keys, dtype=like.dtype, device=like.device).masked_fill_(~seen, -torch.inf)


def written_out(
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
