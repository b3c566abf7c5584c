"""Tensors in a safetensors file, one after the other: of weights in shares one is whole at a time, and never all.

Owns the order of bytes. A file is to the byte what `safetensors.torch.save_file` writes of the same tensors: no reader
and no digest can tell how many processes held them. Every process calls these functions alike; the first one has the
file.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from tiebreak.engine.shares import full, put

# As safetensors orders them: the widest first, so that all are aligned.
_DTYPES = {
    torch.int64: "I64",
    torch.float64: "F64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def write(file: Path | None, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors, whole ones or shares, to a file; a process that only hands over its shares says None.

    Needs memory for the largest of them. The file is on disk when this returns.
    """
    rank = {dtype: place for place, dtype in enumerate(_DTYPES)}
    order = sorted(tensors, key=lambda name: (rank[tensors[name].dtype], name))
    with contextlib.ExitStack() as stack:
        out = None if file is None else stack.enter_context(file.open("wb"))
        if out:
            out.write(_header(order, tensors))
        for name in order:
            whole = full(tensors[name])
            if out:
                out.write(whole.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
            del whole
        if out:
            out.flush()
            os.fsync(out.fileno())


def read(file: Path | None, into: Mapping[str, Tensor]) -> None:
    """Give tensors, whole ones or shares, the numbers of a file that the first process has; the others say None.

    Raises ValueError in every process where a tensor of the file has another shape.
    """
    with contextlib.ExitStack() as stack:
        held = None if file is None else stack.enter_context(safe_open(file, framework="pt"))
        for name in sorted(into):
            put(into[name], None if held is None else held.get_tensor(name))


def _header(order: list[str], tensors: Mapping[str, Tensor]) -> bytes:
    told, start = {}, 0
    for name in order:
        tensor = tensors[name]
        end = start + tensor.numel() * tensor.element_size()
        told[name] = {"dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(told, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
