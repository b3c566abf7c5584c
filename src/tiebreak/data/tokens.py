"""Tokenised pairs by the million: flat arrays that read like a tuple of `TokenizedPair`.

Owns how token ids are kept after rendering: all ids in one array, one fixed row of lengths and names for each pair,
both mapped from files without a name once they are large. Knows no tokenizer and no text.
"""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, Self, SupportsIndex, overload

import numpy as np
from numpy.typing import NDArray

from tiebreak.data.scratch import IN_MEMORY_BYTES, Scratch
from tiebreak.records import TokenizedPair

BLOCK = 1024
"""Pairs that become arrays at once."""
_ROW = np.dtype(
    [
        ("start", "i8"),
        ("prompt", "i4"),
        ("chosen", "i4"),
        ("rejected", "i4"),
        ("num_truncated", "i4"),
        ("weight", "f4"),
        ("pair_id", "V32"),
        ("prompt_id", "V32"),
    ]
)


@dataclass(frozen=True)
class TokenLengths:
    """Numbers of tokens, one entry for each pair."""

    prompt: NDArray[np.int64]
    chosen: NDArray[np.int64]
    rejected: NDArray[np.int64]

    @property
    def unique(self) -> NDArray[np.int64]:
        """Tokens of the prompt, counted once, and of both completions."""
        return self.prompt + self.chosen + self.rejected

    @property
    def longest_row(self) -> NDArray[np.int64]:
        """Tokens of the longer of prompt + chosen and prompt + rejected."""
        return self.prompt + np.maximum(self.chosen, self.rejected)


class TokenTable(Sequence[TokenizedPair]):
    """Tokenised pairs in flat arrays; an item is made when it is asked for, a slice shares the arrays.

    Made by `of` and `joined`. Costs 96 bytes a pair and 4 a token, in memory or, from 32 MiB on, in a file.
    """

    def __init__(self, ids: NDArray[np.int32], rows: NDArray[Any]) -> None:
        self._ids = ids
        self._rows = rows

    @classmethod
    def of(cls, pairs: Iterable[TokenizedPair], folder: Path | None = None) -> TokenTable:
        """Return pairs as a table; raises ValueError where an id is not 64 hexadecimal digits, as fingerprints are."""
        return pairs if isinstance(pairs, cls) and not folder else cls.joined(_in_blocks(pairs), folder)

    @classmethod
    def joined(
        cls, tables: Iterable[TokenTable], folder: Path | None = None, in_memory_bytes: int = IN_MEMORY_BYTES
    ) -> TokenTable:
        """Return tables as one, in their order; they are taken one by one, so memory stays flat."""
        with TokenSink(folder, in_memory_bytes) as sink:
            for table in tables:
                sink.append(table)
            return sink.table()

    @property
    def lengths(self) -> TokenLengths:
        """Numbers of tokens of every pair, without making one."""
        return TokenLengths(*(self._rows[side].astype(np.int64) for side in ("prompt", "chosen", "rejected")))

    @property
    def num_truncated(self) -> NDArray[np.int64]:
        """Prompt tokens cut off, one entry for each pair."""
        return self._rows["num_truncated"].astype(np.int64)

    @property
    def weights(self) -> NDArray[np.float32]:
        """Factor on the loss of every pair."""
        return np.asarray(self._rows["weight"])

    @property
    def num_prompts(self) -> int:
        """Different prompts."""
        return len(np.unique(self._rows["prompt_id"].copy().view("S32")))

    def prompt_ids(self) -> list[str]:
        """Return the content hashes of all different prompts, sorted."""
        return [bytes(name).hex() for name in np.unique(self._rows["prompt_id"]).tolist()]

    def digest(self) -> str:
        """Return the digest of the ids and weights of all pairs in their order."""
        ids, weights = self._rows["pair_id"].tobytes(), self._rows["weight"].tobytes()
        return hashlib.sha256(ids + weights).hexdigest()

    def ids_digest(self) -> str:
        """Return the digest of all token ids and of how they are cut into pairs."""
        lengths = self.lengths
        whole = hashlib.sha256()
        for column in (self._own_ids(), lengths.prompt, lengths.chosen, lengths.rejected):
            whole.update(np.ascontiguousarray(column).data)
        return whole.hexdigest()

    def pair_id(self, index: int) -> str:
        """Return the content hash of a pair, without making the pair."""
        return bytes(self._rows[index]["pair_id"]).hex()

    def prompt_id(self, index: int) -> str:
        """Return the content hash of a pair's prompt, without making the pair."""
        return bytes(self._rows[index]["prompt_id"]).hex()

    def selected(self, indices: Sequence[int] | NDArray[Any]) -> TokenTable:
        """Return the pairs at some places in the order given, or where a mask is true; the ids are shared."""
        chosen = np.asarray(indices)
        return TokenTable(self._ids, self._rows[chosen if chosen.dtype == np.bool_ else chosen.astype(np.int64)])

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: SupportsIndex) -> TokenizedPair: ...
    @overload
    def __getitem__(self, index: slice) -> TokenTable: ...
    def __getitem__(self, index: SupportsIndex | slice) -> TokenizedPair | TokenTable:
        if isinstance(index, slice):
            return TokenTable(self._ids, self._rows[index])
        return self._made(self._rows[operator.index(index)])

    def __iter__(self) -> Iterator[TokenizedPair]:
        return map(self._made, self._rows)

    def __repr__(self) -> str:
        return f"TokenTable({len(self)} pairs)"

    def _made(self, row: np.void) -> TokenizedPair:
        start, prompt, chosen, rejected, num_truncated, weight, pair_id, prompt_id = row.item()
        ids = tuple(self._ids[start : start + prompt + chosen + rejected].tolist())
        end = prompt + chosen
        names = bytes(pair_id).hex(), bytes(prompt_id).hex()
        return TokenizedPair(*names, ids[:prompt], ids[prompt:end], ids[end:], num_truncated, weight)

    def _own_rows(self) -> NDArray[Any]:
        """Return a copy of the rows whose ids stand one after the other from 0 on."""
        rows = self._rows.copy()
        rows["start"] = np.cumsum(self.lengths.unique) - self.lengths.unique
        return rows

    def _own_ids(self) -> NDArray[np.int32]:
        """Return the ids of these rows alone, one after the other."""
        starts, sizes = self._rows["start"], self.lengths.unique
        if len(starts) and (starts[1:] == starts[:-1] + sizes[:-1]).all():
            return self._ids[starts[0] : starts[-1] + sizes[-1]]
        return np.concatenate([self._ids[:0], *(self._ids[a : a + n] for a, n in zip(starts, sizes, strict=True))])


class TokenSink:
    """Takes tables one after the other, keeps them out of memory, and is one table in the end; used in a `with`."""

    def __init__(self, folder: Path | None = None, in_memory_bytes: int = IN_MEMORY_BYTES) -> None:
        self._ids = Scratch(np.int32, folder, in_memory_bytes)
        self._rows = Scratch(_ROW, folder, in_memory_bytes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ids.close()
        self._rows.close()

    def append(self, table: TokenTable) -> None:
        """Add the pairs of a table; raises TiebreakError where the disk is full."""
        rows = table._own_rows()
        rows["start"] += self._ids.size
        self._ids.append(table._own_ids())
        self._rows.append(rows)

    def table(self) -> TokenTable:
        """Return all pairs in their order, after which none can be added."""
        return TokenTable(self._ids.array(), self._rows.array())


def _in_blocks(pairs: Iterable[TokenizedPair]) -> Iterator[TokenTable]:
    source = iter(pairs)
    while block := list(islice(source, BLOCK)):
        yield _in_memory(block)


def _in_memory(pairs: Sequence[TokenizedPair]) -> TokenTable:
    rows = np.zeros(len(pairs), _ROW)
    for side in ("prompt", "chosen", "rejected"):
        rows[side] = [len(getattr(pair, f"{side}_ids")) for pair in pairs]
    for name in ("pair_id", "prompt_id"):
        rows[name] = np.frombuffer(b"".join(_digest(getattr(pair, name)) for pair in pairs), "V32")
    for name in ("num_truncated", "weight"):
        rows[name] = [getattr(pair, name) for pair in pairs]
    sizes = rows["prompt"].astype(np.int64) + rows["chosen"] + rows["rejected"]
    rows["start"] = np.cumsum(sizes) - sizes
    every = chain.from_iterable(chain(pair.prompt_ids, pair.chosen_ids, pair.rejected_ids) for pair in pairs)
    return TokenTable(np.fromiter(every, np.int32, count=int(sizes.sum())), rows)


def _digest(name: str) -> bytes:
    raw = bytes.fromhex(name)
    if len(raw) != 32 or raw.hex() != name:
        raise ValueError(f"{name!r} is not a fingerprint of 64 hexadecimal digits")
    return raw
