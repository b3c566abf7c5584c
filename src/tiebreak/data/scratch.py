"""Arrow tables that may outgrow memory: kept in it while they are small, in an unlinked, mapped file from then on.

Owns where such tables lie and how they vanish: a file has no name from the moment it exists, so nothing is left behind,
however the process ends. Knows nothing of what the columns mean.
"""

from __future__ import annotations

import contextlib
import mmap
import operator
import tempfile
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Self, SupportsIndex

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tiebreak.errors import TiebreakError, one_line

IN_MEMORY_BYTES = 32 * 2**20
_WRITE_BYTES = 4 * 2**20
_TAKEN_ROWS = 65_536
_END = b"\xff\xff\xff\xff\x00\x00\x00\x00"
"""Ends a stream of Arrow messages."""


class Scratch:
    """A table that is appended to, then read; used in a `with`, which the table that it returns outlives.

    `folder` is where the file goes, by default the system's folder for temporary files.
    """

    def __init__(self, schema: pa.Schema, folder: Path | None = None, in_memory_bytes: int = IN_MEMORY_BYTES) -> None:
        self._schema = schema
        self._folder = folder
        self._in_memory_bytes = in_memory_bytes
        self._held: list[pa.RecordBatch] = []
        self._held_bytes = 0
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of the file; a table that is still in use keeps it."""
        if self._file is not None:
            with contextlib.suppress(OSError):  # what a full disk left unwritten; told when it was written
                self._file.close()

    def append(self, batch: pa.RecordBatch) -> None:
        """Add rows at the end; raises TiebreakError where the disk is full."""
        self._held.append(batch)
        self._held_bytes += batch.nbytes
        if self._held_bytes > (self._in_memory_bytes if self._file is None else _WRITE_BYTES):
            self._write_out()

    def table(self) -> pa.Table:
        """Return all rows, after which none can be added; what lies in a file is mapped, not loaded."""
        if self._file is None:
            return pa.Table.from_batches(self._held, self._schema).combine_chunks()
        self._write_out(_END)
        mapped = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        return pa.ipc.open_stream(pa.BufferReader(pa.py_buffer(mapped))).read_all()

    def _write_out(self, end: bytes = b"") -> None:
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - closed by the `with`
                self._file.write(self._schema.serialize())
            for batch in pa.Table.from_batches(self._held, self._schema).combine_chunks().to_batches():
                self._file.write(batch.serialize())
            self._file.write(end)
            self._file.flush()
        except OSError as error:
            place = self._folder or tempfile.gettempdir()
            remedy = "make room there, or name another folder in TMPDIR"
            cause = one_line(error.strerror)
            raise TiebreakError(f"{place}: cannot hold temporary data ({cause}); {remedy}") from None
        self._held, self._held_bytes = [], 0


def write_table(path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
    """Write a table to a file of its own; batch by batch, so memory stays flat. Raises OSError."""
    with path.open("wb") as file, pa.ipc.new_stream(file, schema) as stream:
        for batch in batches:
            stream.write_batch(batch)


def read_table(path: Path, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Yield the batches of a file that `write_table` wrote, in memory of their own; raises OSError or ValueError."""
    # Not mapped: whoever holds a batch must not hang on a file that others may remove.
    with pa.OSFile(str(path)) as file, pa.ipc.open_stream(file) as stream:
        if stream.schema != schema:
            raise ValueError("holds another table than was written")
        yield from stream


class Rows:
    """Some rows of a table in an order: what a sequence over a table stands on. Choosing rows copies none."""

    def __init__(self, table: pa.Table, places: NDArray[np.int64] | None = None) -> None:
        self.table = table
        self.places = np.arange(table.num_rows) if places is None else places
        self._batches = table.to_batches()
        self._starts = np.cumsum([0, *(batch.num_rows for batch in self._batches)]).tolist()

    def __len__(self) -> int:
        return len(self.places)

    def __reduce__(self) -> tuple[Any, ...]:
        return Rows, (self.table, self.places)

    def chosen(self, which: slice | Sequence[int] | NDArray[Any]) -> Rows:
        """Return the rows of a slice, those at some places in the order given, or those where a mask is true."""
        if not isinstance(which, slice):
            found = np.asarray(which)
            return Rows(self.table, self.places[found if found.dtype == np.bool_ else found.astype(np.int64)])
        return Rows(self.table, self.places[which])

    def located(self, index: SupportsIndex) -> tuple[int, int]:
        """Return in which batch of the table a row stands, and at which place in it; raises IndexError."""
        return self.batch_of(int(self.places[operator.index(index)]))

    def batch_of(self, place: int) -> tuple[int, int]:
        """Return the same of a place in the whole table."""
        batch = bisect_right(self._starts, place) - 1
        return batch, place - self._starts[batch]

    def is_whole(self) -> bool:
        """Say whether these are all rows in the table's own order."""
        return len(self) == self.table.num_rows and bool((np.diff(self.places) == 1).all())

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the rows as batches of their own: those of the table where these are all of it, else smaller ones."""
        if self.is_whole():
            yield from self._batches
            return
        for start in range(0, len(self), _TAKEN_ROWS):
            places = self.places[start : start + _TAKEN_ROWS]
            numbers = np.searchsorted(self._starts, places, side="right") - 1
            cuts = np.flatnonzero(np.diff(numbers)) + 1
            # Out of each batch on its own: taken out of the table, all of it would be copied into one.
            pieces = [
                self._batches[number].take(pa.array(run - self._starts[number]))
                for number, run in zip(numbers[[0, *cuts]].tolist(), np.split(places, cuts), strict=True)
            ]
            yield from pa.Table.from_batches(pieces).combine_chunks().to_batches()
