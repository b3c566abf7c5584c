"""Pairs as text by the million: JSON lines that read like a tuple of `Pair`.

Owns how pairs are kept between reading and measuring, losslessly and, once they are many, in a file without a name.
The form is private to the process; what users read and write is the business of `formats`.
"""

from __future__ import annotations

import json
import operator
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Self, SupportsIndex, overload

import numpy as np
from numpy.typing import NDArray

from tiebreak.data.scratch import IN_MEMORY_BYTES, Scratch
from tiebreak.records import Message, Origin, Pair, Preference, Source, Vote


class PairSpool(Sequence[Pair]):
    """Pairs kept as text; an item is made when it is asked for, a slice shares the text. Made by `of`."""

    def __init__(self, text: NDArray[np.uint8], starts: NDArray[np.int64], ends: NDArray[np.int64]) -> None:
        self._text = text
        self._starts = starts
        self._ends = ends

    @classmethod
    def of(cls, pairs: Iterable[Pair], folder: Path | None = None, in_memory_bytes: int = IN_MEMORY_BYTES) -> PairSpool:
        """Return pairs as a spool; they are taken one by one, so memory stays flat."""
        with PairSink(folder, in_memory_bytes) as sink:
            for pair in pairs:
                sink.append(pair)
            return sink.spool()

    def selected(self, indices: Sequence[int] | NDArray[Any]) -> PairSpool:
        """Return the pairs at some places in the order given, or where a mask is true; the text is shared."""
        found = np.asarray(indices)
        places = found if found.dtype == np.bool_ else found.astype(np.int64)
        return PairSpool(self._text, self._starts[places], self._ends[places])

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: SupportsIndex) -> Pair: ...
    @overload
    def __getitem__(self, index: slice) -> PairSpool: ...
    def __getitem__(self, index: SupportsIndex | slice) -> Pair | PairSpool:
        if isinstance(index, slice):
            return PairSpool(self._text, self._starts[index], self._ends[index])
        place = operator.index(index)
        return pair_of(self._text[self._starts[place] : self._ends[place]].tobytes())

    def __iter__(self) -> Iterator[Pair]:
        return (self[place] for place in range(len(self)))

    def __repr__(self) -> str:
        return f"PairSpool({len(self)} pairs)"


class PairSink:
    """Takes pairs one by one, keeps them out of memory, and is a spool in the end; used in a `with`."""

    def __init__(self, folder: Path | None = None, in_memory_bytes: int = IN_MEMORY_BYTES) -> None:
        self._text = Scratch(np.uint8, folder, in_memory_bytes)
        self._ends = array("q")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._text.close()

    def append(self, pair: Pair) -> None:
        """Add a pair; raises TiebreakError where the disk is full."""
        self._text.append(np.frombuffer(line_of(pair), np.uint8))
        self._ends.append(self._text.size)

    def spool(self) -> PairSpool:
        """Return all pairs in their order, after which none can be added."""
        ends = np.array(self._ends, np.int64)
        return PairSpool(self._text.array(), np.append(0, ends)[: len(ends)], ends)


def line_of(pair: Pair) -> bytes:
    """Return a pair as one line of JSON from which `pair_of` makes an equal one."""
    row: dict[str, Any] = {
        "prompt": [_stated(message) for message in pair.prompt],
        "completions": [_stated(pair.chosen), _stated(pair.rejected)],
        "tools": pair.tools,
        "source": pair.source and [pair.source.file, pair.source.line],
        "preference": pair.preference.as_dict(),
        "origin": pair.origin.as_dict(),
    }
    return json.dumps({name: item for name, item in row.items() if item}, separators=(",", ":")).encode("ascii")


def pair_of(line: bytes) -> Pair:
    """Return the pair that `line_of` wrote."""
    row = json.loads(line)
    chosen, rejected = map(_message, row["completions"])
    return Pair(
        prompt=tuple(map(_message, row["prompt"])),
        chosen=chosen,
        rejected=rejected,
        tools=tuple(row.get("tools", ())),
        source=Source(*row["source"]) if "source" in row else None,
        preference=_preference(row["preference"]) if "preference" in row else Preference(),
        origin=Origin(**row["origin"]) if "origin" in row else Origin(),
    )


def _stated(message: Message) -> dict[str, Any]:
    """Return a message's fields; unlike `Message.as_dict` it keeps an empty text apart from none at all."""
    given = ((field.name, field.default, getattr(message, field.name)) for field in fields(message))
    return {name: value for name, default, value in given if value != default}


def _message(row: Mapping[str, Any]) -> Message:
    return Message(**{**row, "tool_calls": tuple(row.get("tool_calls", ()))})


def _preference(row: Mapping[str, Any]) -> Preference:
    return Preference(**{**row, "votes": tuple(Vote(**vote) for vote in row.get("votes", ()))})
