"""Attention over a packed row, in the ways that torch offers: the contestants of gpu_attention.py.

Every kernel takes query [row, query heads, head], key and value [row, key heads, head] and returns what the queries
found. A row is segments [P | C | R]; its runs of queries are [P C] and [R], and the keys of the latter are [P R]. All
that can be known of a row before the first layer (indices, masks) is made when a kernel is made.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, chain
from typing import Any

import torch
from gpu_models import UnmeasurableError
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from tiebreak.engine.attention import PackedLayout, packed_attention
from tiebreak.maths.packing import Segment

Kernel = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From query, key and value to the output [row, query heads, head]."""


@dataclass(frozen=True)
class Run:
    """Queries that stand together in the row, and the keys they may look at; the last query sees the last key."""

    queries: range
    prompt: range
    own: range

    @property
    def num_keys(self) -> int:
        """Keys of the run."""
        return len(self.prompt) + len(self.own)


@dataclass(frozen=True)
class Row:
    """A packed row of segments."""

    segments: tuple[Segment, ...]

    @property
    def num_tokens(self) -> int:
        """Tokens in the row."""
        return sum(segment.num_tokens for segment in self.segments)

    @functools.cached_property
    def runs(self) -> tuple[Run, ...]:
        """The runs of queries in the order of the row: [P C], [R], [P C], …"""
        return tuple(self._runs())

    def _runs(self) -> Iterator[Run]:
        begin = 0
        for segment in self.segments:
            prompt = range(begin, begin + segment.prompt)
            own_begin = prompt.stop
            for index, completion in enumerate(segment.completions):
                own = range(own_begin, own_begin + completion)
                yield Run(range(own.start if index else begin, own.stop), prompt, own)
                own_begin = own.stop
            begin = own_begin


def exact(row: Row, window: int | None = None, *, top_left: bool = False) -> Kernel:
    """Return attention written out in fp32, its causal mask aligned as asked for."""

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        outputs = []
        for run in row.runs:
            keys = _gathered(key, run).float().repeat_interleave(query.shape[1] // key.shape[1], dim=1)
            values = _gathered(value, run).float().repeat_interleave(query.shape[1] // key.shape[1], dim=1)
            queries = query[run.queries.start : run.queries.stop].float()
            scores = torch.einsum("qhd,khd->hqk", queries, keys) * query.shape[-1] ** -0.5
            seen = _seen(len(run.queries), run.num_keys, window, query.device, top_left=top_left)
            weights = scores.masked_fill(~seen, -torch.inf).softmax(-1)
            outputs.append(torch.einsum("hqk,khd->qhd", weights, values))
        return torch.cat(outputs)

    return attend


def _gathered(x: Tensor, run: Run) -> Tensor:
    return torch.cat([x[run.prompt.start : run.prompt.stop], x[run.own.start : run.own.stop]])


def _seen(queries: int, keys: int, window: int | None, device: torch.device, *, top_left: bool = False) -> Tensor:
    query = torch.arange(queries, device=device)[:, None] + (0 if top_left else keys - queries)
    key = torch.arange(keys, device=device)
    return (key <= query) & (key > query - (keys if window is None else window))


def varlen(row: Row, device: torch.device, window: int | None = None, *, repeat: bool = False) -> Kernel:
    """Return `varlen_attn` over the runs, its keys gathered: [P C], [P R], …; `repeat` gives it as many key heads."""
    attention, named = _varlen_attn(device)
    if "window_size" not in named:
        raise UnmeasurableError(f"varlen_attn of torch {torch.__version__} has no window_size")
    at = torch.tensor([i for run in row.runs for i in chain(run.prompt, run.own)], device=device)
    num_queries, num_keys = ([len(r.queries) for r in row.runs], [r.num_keys for r in row.runs])
    cu_queries, cu_keys = (
        torch.tensor([0, *accumulate(nums)], dtype=torch.int32, device=device) for nums in (num_queries, num_keys)
    )

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        options: dict[str, Any] = {"window_size": (-1 if window is None else window - 1, 0)}
        keys, values = key.index_select(0, at), value.index_select(0, at)
        if repeat:
            keys, values = (x.repeat_interleave(query.shape[1] // x.shape[1], dim=1) for x in (keys, values))
        elif "enable_gqa" in named:  # torch 2.11 has no such argument and takes fewer key heads as they come
            options["enable_gqa"] = query.shape[1] != key.shape[1]
        out: Tensor = attention(query, keys, values, cu_queries, cu_keys, max(num_queries), max(num_keys), **options)
        return out

    return attend


def _varlen_attn(device: torch.device) -> tuple[Any, set[str]]:
    """Return torch's function and the names of its parameters."""
    if device.type != "cuda":
        raise UnmeasurableError("varlen_attn runs on CUDA devices only")
    try:
        from torch.nn.attention.varlen import varlen_attn  # noqa: PLC0415 - absent before torch 2.10
    except ImportError:
        raise UnmeasurableError(f"torch {torch.__version__} has no torch.nn.attention.varlen") from None
    return varlen_attn, set(inspect.signature(varlen_attn).parameters)


def sdpa(row: Row, device: torch.device) -> Kernel:
    """Return one call of torch's attention for each run, with a mask where queries are fewer than keys."""
    masks = [
        None if len(r.queries) == r.num_keys else _seen(len(r.queries), r.num_keys, None, device) for r in row.runs
    ]
    pieces = list(chain.from_iterable((s.prompt, *s.completions) for s in row.segments))
    num_queries, order = [len(r.queries) for r in row.runs], _pieces_of_runs(row)

    def runs_of(x: Tensor) -> list[Tensor]:
        split = x.split(pieces, dim=2)
        return [torch.cat([split[prompt], split[own]], dim=2) for prompt, own in order]

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        queries, keys, values = (x.transpose(0, 1).unsqueeze(0) for x in (query, key, value))
        runs = zip(queries.split(num_queries, dim=2), runs_of(keys), runs_of(values), masks, strict=True)
        gqa = query.shape[1] != key.shape[1]
        outputs = [
            scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None, enable_gqa=gqa)
            for q, k, v, mask in runs
        ]
        return torch.cat(outputs, dim=2)[0].transpose(0, 1)

    return attend


def _pieces_of_runs(row: Row) -> list[tuple[int, int]]:
    """Return for each run where its prompt and its completion stand among the pieces of the row."""
    firsts = accumulate((1 + len(s.completions) for s in row.segments), initial=0)
    return [
        (first, first + 1 + i)
        for first, s in zip(firsts, row.segments, strict=False)
        for i in range(len(s.completions))
    ]


def engine(row: Row, _: torch.device) -> Kernel:
    """Return the engine's own attention; one layout for all calls, as its layers have."""
    layout = PackedLayout(tuple(row.segments), set())

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        sides = (x.transpose(0, 1).unsqueeze(0) for x in (query, key, value))
        return packed_attention(torch.nn.Identity(), *sides, None, packed_layout=layout)[0][0]

    return attend


def visible(row: Row, device: torch.device) -> Callable[..., Tensor]:
    """Return FlexAttention's mask of a row: the same segment, not later, and of the prompt or the own completion."""
    segment_of, run_of = [], []
    for index, segment in enumerate(row.segments):
        segment_of += [index] * segment.num_tokens
        run_of += [-1] * segment.prompt + [i for i, num in enumerate(segment.completions) for _ in range(num)]
    segments, runs = (torch.tensor(column, device=device) for column in (segment_of, run_of))

    def mask(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        reachable = (runs[key] == -1) | (runs[key] == runs[query])
        return (segments[query] == segments[key]) & (key <= query) & reachable

    return mask


@functools.cache
def _compiled_flex() -> Any:
    from torch.nn.attention.flex_attention import flex_attention  # noqa: PLC0415 - slow to import

    return torch.compile(flex_attention)


def flex(row: Row, device: torch.device) -> Kernel:
    """Return compiled FlexAttention with the row's block mask."""
    if device.type != "cuda":
        raise UnmeasurableError("FlexAttention has no backward pass on a CPU")
    from torch.nn.attention.flex_attention import create_block_mask  # noqa: PLC0415

    num = row.num_tokens
    block_mask = create_block_mask(visible(row, device), None, None, num, num, device=str(device))

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        sides = (x.transpose(0, 1).unsqueeze(0) for x in (query, key, value))
        gqa = query.shape[1] != key.shape[1]
        out: Tensor = _compiled_flex()(*sides, block_mask=block_mask, enable_gqa=gqa)
        return out[0].transpose(0, 1)

    return attend


KERNELS: dict[str, Callable[[Row, torch.device], Kernel]] = {
    "varlen": varlen,
    "engine": engine,
    "sdpa": sdpa,
    "varlen_repeated": partial(varlen, repeat=True),
    "flex": flex,
}
