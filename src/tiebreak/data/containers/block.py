"""Blocks: consecutive records of one file, small enough to hand to a worker process.

Owns how large a record and a block may become. It knows neither bytes on disk nor what a row means.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from tiebreak.errors import DataError

MAX_LINE_BYTES = 16 * 2**20
"""A longer record is not parsed: this bounds the memory that one record can take."""

MAX_BLOCK_BYTES = 4 * 2**20
"""A block is closed once its records are together larger than this."""

Numbered = tuple[int, Any, int]
"""Number of a record, the record (bytes where it is JSON to be parsed), its size in bytes."""


@dataclass(frozen=True)
class Block:
    """Consecutive records of one file, each with its number; what is not parsed yet stands in `lines`.

    The number is the line on which the record begins, from 1, in files of lines (JSON lines, CSV, TSV), and which
    record of the file it is, from 1, in JSON, Parquet and Arrow, where several may share a line or there is none.
    """

    file: str
    lines: tuple[tuple[int, bytes], ...] = ()
    """JSON texts of records."""
    rows: tuple[tuple[int, Any], ...] = ()
    """Parsed rows, or a RowError where a record is none."""

    def __len__(self) -> int:
        return len(self.lines) + len(self.rows)

    def only(self, numbers: Container[int]) -> Block:
        """Return the records of these numbers."""
        lines = tuple(line for line in self.lines if line[0] in numbers)
        return Block(self.file, lines, tuple(row for row in self.rows if row[0] in numbers))


def gathered(file: str, records: Iterable[Numbered], size: int) -> Iterator[Block]:
    """Yield blocks of `size` records, fewer where they are large; what precedes damage comes before its DataError."""
    lines: list[tuple[int, bytes]] = []
    rows: list[tuple[int, Any]] = []
    num_bytes, damage = 0, None
    try:
        for number, record, weight in records:
            (lines if type(record) is bytes else rows).append((number, record))
            num_bytes += weight
            if len(lines) + len(rows) >= size or num_bytes > MAX_BLOCK_BYTES:
                yield Block(file, tuple(lines), tuple(rows))
                lines, rows, num_bytes = [], [], 0
    except DataError as error:
        damage = error
    if lines or rows:
        yield Block(file, tuple(lines), tuple(rows))
    if damage is not None:
        raise damage
