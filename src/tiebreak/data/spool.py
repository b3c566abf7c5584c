"""Pairs as text by the million: JSON lines that read like a tuple of `Pair`.

Owns how pairs are kept between reading and measuring, losslessly and, once they are many, in a mapped file.
The form is private to the process; what users read and write is the business of `formats`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from functools import cached_property
from pathlib import Path
from typing import Any, Self, SupportsIndex, overload

import pyarrow as pa
from numpy.typing import NDArray

from tiebreak.data.scratch import IN_MEMORY_BYTES, Rows, Scratch
from tiebreak.records import Judgement, Message, Origin, Pair, Preference, Source, Thumb, Vote

SCHEMA = pa.schema([("line", pa.large_binary())])
BLOCK = 256
"""Pairs that become a batch at once, or fewer that are longer than this together."""
BLOCK_BYTES = 2**20


class PairSpool(Sequence[Judgement]):
    """Pairs kept as text; an item is made when it is asked for, a slice shares the text. Made by `of`."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    @classmethod
    def of(
        cls, pairs: Iterable[Judgement], folder: Path | None = None, in_memory_bytes: int = IN_MEMORY_BYTES
    ) -> PairSpool:
        """Return pairs as a spool; they are taken one by one, so memory stays flat."""
        if isinstance(pairs, cls) and not folder:
            return pairs
        with PairSink(folder, in_memory_bytes) as sink:
            for pair in pairs:
                sink.append(pair)
            return sink.spool()

    def selected(self, indices: Sequence[int] | NDArray[Any]) -> PairSpool:
        """Return the pairs at some places in the order given, or where a mask is true; the text is shared."""
        return PairSpool(self._rows.chosen(indices))

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the pairs as batches of the schema."""
        return self._rows.batches()

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: SupportsIndex) -> Judgement: ...
    @overload
    def __getitem__(self, index: slice) -> PairSpool: ...
    def __getitem__(self, index: SupportsIndex | slice) -> Judgement | PairSpool:
        if isinstance(index, slice):
            return PairSpool(self._rows.chosen(index))
        batch, row = self._rows.located(index)
        return pair_of(self._lines[batch][row].as_py())

    def __iter__(self) -> Iterator[Judgement]:
        return (self[place] for place in range(len(self)))

    def __reduce__(self) -> tuple[Any, ...]:
        return PairSpool, (self._rows,)

    def __repr__(self) -> str:
        return f"PairSpool({len(self)} pairs)"

    @cached_property
    def _lines(self) -> list[pa.LargeBinaryArray]:
        return [batch["line"] for batch in self._rows.table.to_batches()]


class PairSink:
    """Takes pairs one by one, keeps them out of memory, and is a spool in the end; used in a `with`."""

    def __init__(self, folder: Path | None = None, in_memory_bytes: int = IN_MEMORY_BYTES) -> None:
        self._scratch = Scratch(SCHEMA, folder, in_memory_bytes)
        self._lines: list[bytes] = []
        self._num_bytes = 0

    def __enter__(self) -> Self:
        self._scratch.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._scratch.__exit__(*error)

    def append(self, pair: Judgement) -> None:
        """Add a pair; raises TiebreakError where the disk is full."""
        line = line_of(pair)
        self._lines.append(line)
        self._num_bytes += len(line)
        if len(self._lines) >= BLOCK or self._num_bytes >= BLOCK_BYTES:
            self._settle()

    def add(self, batch: pa.RecordBatch) -> None:
        """Add a batch of the schema; raises TiebreakError where the disk is full."""
        self._settle()
        self._scratch.append(batch)

    def spool(self) -> PairSpool:
        """Return all pairs in their order, after which none can be added."""
        self._settle()
        return PairSpool(Rows(self._scratch.table()))

    def _settle(self) -> None:
        self._scratch.append(pa.RecordBatch.from_arrays([pa.array(self._lines, pa.large_binary())], schema=SCHEMA))
        self._lines, self._num_bytes = [], 0


def line_of(pair: Judgement) -> bytes:
    """Return a pair or a thumb as one line of JSON from which `pair_of` makes an equal one."""
    row: dict[str, Any] = {
        "prompt": [_stated(message) for message in pair.prompt],
        "tools": pair.tools,
        "source": pair.source and [pair.source.file, pair.source.line],
        "origin": pair.origin.as_dict(),
    }
    if isinstance(pair, Thumb):
        row |= {"completions": [_stated(pair.completion)], "verdict": [pair.liked, pair.weight]}
    else:
        row |= {"completions": [_stated(pair.chosen), _stated(pair.rejected)], "preference": pair.preference.as_dict()}
    return json.dumps({name: item for name, item in row.items() if item}, separators=(",", ":")).encode("ascii")


def pair_of(line: bytes) -> Judgement:
    """Return the pair or the thumb that `line_of` wrote."""
    row = json.loads(line)
    prompt, [first, *more] = (tuple(map(_message, row[name])) for name in ("prompt", "completions"))
    known: dict[str, Any] = {
        "tools": tuple(row.get("tools", ())),
        "source": Source(*row["source"]) if "source" in row else None,
        "origin": Origin(**row["origin"]) if "origin" in row else Origin(),
    }
    if "verdict" in row:
        liked, weight = row["verdict"]
        return Thumb(prompt, first, liked, weight=weight, **known)
    preference = _preference(row["preference"]) if "preference" in row else Preference()
    return Pair(prompt, first, more[0], preference=preference, **known)


def _stated(message: Message) -> dict[str, Any]:
    """Return a message's fields; unlike `Message.as_dict` it keeps an empty text apart from none at all."""
    given = ((field.name, field.default, getattr(message, field.name)) for field in fields(message))
    return {name: value for name, default, value in given if value != default}


def _message(row: Mapping[str, Any]) -> Message:
    return Message(**{**row, "tool_calls": tuple(row.get("tool_calls", ()))})


def _preference(row: Mapping[str, Any]) -> Preference:
    return Preference(**{**row, "votes": tuple(Vote(**vote) for vote in row.get("votes", ()))})
