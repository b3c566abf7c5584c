"""Rows of log-probabilities, end to end in three tensors: how the reference store and a run keep them on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from tiebreak.errors import one_line
from tiebreak.files import write_bytes

KEY_BYTES = 32


@dataclass(frozen=True, eq=False)
class Shard:
    """Rows of different lengths, end to end; one that is not consistent cannot be built."""

    logps: Tensor
    offsets: Tensor
    keys: Tensor

    def __post_init__(self) -> None:
        rows = len(self.keys)
        if (self.logps.dtype, self.offsets.dtype, self.keys.dtype) != (torch.float32, torch.int64, torch.uint8):
            raise ValueError("has tensors of other types than float32, int64 and uint8")
        if self.logps.dim() != 1 or self.offsets.shape != (rows + 1,) or self.keys.shape != (rows, KEY_BYTES):
            raise ValueError("has tensors whose shapes do not fit each other")
        if rows == 0 or self.offsets[0] != 0 or self.offsets[-1] != len(self.logps) or (self.offsets.diff() <= 0).any():
            raise ValueError("has offsets that do not divide its tokens into rows")
        if not self.logps.isfinite().all():
            raise ValueError("has values that are not finite")

    @classmethod
    def of(cls, rows: Mapping[bytes, Tensor]) -> Shard:
        """Return a shard of some rows, at least one."""
        lengths = torch.tensor([0, *(len(row) for row in rows.values())])
        keys = torch.frombuffer(bytearray(b"".join(rows)), dtype=torch.uint8)
        return cls(torch.cat(list(rows.values())), lengths.cumsum(0), keys.view(-1, KEY_BYTES))

    @classmethod
    def read(cls, content: bytes, wanted_digest: str) -> Shard:
        """Return the shard that these bytes hold, or raise ValueError."""
        if hashlib.sha256(content).hexdigest() != wanted_digest:
            raise ValueError("its bytes do not have the SHA-256 that is its name")
        try:
            tensors = load(content)
            return cls(tensors["logps"], tensors["offsets"], tensors["keys"])
        except (SafetensorError, KeyError, TypeError) as error:
            raise ValueError(f"is no shard ({one_line(error)})") from None

    def write(self, folder: Path) -> Path:
        """Write the shard, whole or not at all, under the SHA-256 of its bytes; return where it is."""
        content = bytes(save({"logps": self.logps, "offsets": self.offsets, "keys": self.keys}))
        path = folder / f"{hashlib.sha256(content).hexdigest()}.safetensors"
        write_bytes(path, content)
        return path

    def rows(self) -> dict[bytes, Tensor]:
        """Return every row by its key."""
        return {key: self.row(number) for number, key in enumerate(self.row_keys())}

    def row(self, number: int) -> Tensor:
        """Return a copy of one row."""
        start, stop = self.offsets[number : number + 2].tolist()
        return self.logps[start:stop].clone()

    def row_keys(self) -> list[bytes]:
        """Return the keys in the order of the rows."""
        joined = self.keys.numpy().tobytes()
        return [joined[start : start + KEY_BYTES] for start in range(0, len(joined), KEY_BYTES)]
