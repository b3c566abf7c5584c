"""The slow oracle of `torch.nn.attention.varlen.varlen_attn`: every query on its own, in float64, as documented.

What the kernels behind it ask of their tensors is asked here too, so that a call which they refuse fails without a GPU.
Only their precision is not: a wide call gives wide values.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor


def varlen_attn(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seq_q: Tensor,
    cu_seq_k: Tensor,
    max_q: int,
    max_k: int,
    *,
    scale: float | None = None,
    window_size: tuple[int, int] = (-1, -1),
    enable_gqa: bool = False,
) -> Tensor:
    """Return [queries, heads, head size]. Where a sequence has fewer queries than keys, they are the last of them.

    A query sees `window_size` = (left, right) keys besides the one at its own place; −1 is no end.
    """
    check(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, enable_gqa=enable_gqa)
    begins_q, begins_k = cu_seq_q.tolist(), cu_seq_k.tolist()
    assert begins_q[0] == begins_k[0] == 0
    assert (begins_q[-1], begins_k[-1]) == (len(query), len(key)), "the sequences are all that there is"
    lengths_q, lengths_k = ([end - begin for begin, end in pairwise(begins)] for begins in (begins_q, begins_k))
    assert min(*lengths_q, *lengths_k) > 0, "a sequence of nothing"
    assert (max_q, max_k) == (max(lengths_q), max(lengths_k))
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    left, right = window_size
    group = query.shape[1] // key.shape[1]
    wide_q, wide_k, wide_v = query.double(), key.double(), value.double()
    outputs = []
    for begin_q, begin_k, num_q, num_k in zip(begins_q, begins_k, lengths_q, lengths_k, strict=False):
        for index in range(num_q):
            at = num_k - num_q + index
            first = 0 if left < 0 else max(0, at - left)
            last = num_k - 1 if right < 0 else min(num_k - 1, at + right)
            assert first <= last, "a query that sees nothing"
            seen = slice(begin_k + first, begin_k + last + 1)
            heads = []
            for head in range(query.shape[1]):
                scores = wide_k[seen, head // group] @ wide_q[begin_q + index, head] * scale
                heads.append(scores.softmax(0) @ wide_v[seen, head // group])
            outputs.append(torch.stack(heads))
    return torch.stack(outputs).to(query.dtype)


def check(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seq_q: Tensor,
    cu_seq_k: Tensor,
    max_q: int,
    max_k: int,
    *,
    enable_gqa: bool,
) -> None:
    """Assert what the kernels ask of shapes, dtypes, devices and strides; no value is read."""
    assert key.shape == value.shape
    assert query.ndim == key.ndim == 3
    assert query.shape[-1] == key.shape[-1] <= 256
    assert query.shape[-1] % 8 == 0, "heads of a multiple of 8"
    assert query.dtype == key.dtype == value.dtype
    assert len({x.device for x in (query, key, value, cu_seq_q, cu_seq_k)}) == 1
    assert {x.stride(-1) for x in (query, key, value)} == {1}, "the numbers of a head lie behind one another"
    assert cu_seq_q.dtype == cu_seq_k.dtype == torch.int32
    assert cu_seq_q.shape == cu_seq_k.shape
    assert isinstance(max_q, int) and isinstance(max_k, int)
    assert query.shape[1] % key.shape[1] == 0
    assert enable_gqa == (query.shape[1] != key.shape[1])
