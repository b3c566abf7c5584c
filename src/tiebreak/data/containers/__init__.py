"""Files to records, whatever they are packed in: JSON lines, JSON, CSV, TSV, Parquet, Arrow; gzip and zstd.

Owns that every record of a file is numbered and ends as a row or as a RowError, with flat memory. A file is recognised
by its content, never by its name alone. It knows nothing of what a row means (`formats`).

    block       consecutive records of a file
    unpacking   a file to plain bytes          kinds      which container these are
    json_lines  lines, and a line to a row     json_lists a JSON document to the texts of its records
    json_text   a JSON document in pieces      json_tables an object of columns, or of rows, to the same
    delimited   CSV and TSV                    columnar   Parquet and Arrow
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any

from tiebreak.data.containers import columnar, delimited, json_lines, json_lists
from tiebreak.data.containers.block import MAX_BLOCK_BYTES, MAX_LINE_BYTES, Block, gathered
from tiebreak.data.containers.kinds import kind_of
from tiebreak.data.containers.unpacking import Damaged, as_lines, chunks, is_packed
from tiebreak.data.formats import RowError
from tiebreak.errors import DataError
from tiebreak.records import Source

__all__ = ["MAX_BLOCK_BYTES", "MAX_LINE_BYTES", "Block", "blocks", "rows"]

HEAD_BYTES = 2**16
"""What is looked at to recognise a file, more where its first line is longer."""

_FROM_BYTES = {"lines": json_lines.records, "json": json_lists.records, "table": delimited.records}


def blocks(path: Path, name: str, size: int = 256) -> Iterator[Block]:
    """Yield the records of a file in chunks of at most `size`; none for an empty file.

    Memory is bounded whatever the file is. Raises DataError where it cannot be read, holds nothing that is read here,
    or is damaged; the records before the damage come first. `name` stands for the file in sources and messages.
    """
    with closing(chunks(path)) as opened:
        start, stream, whole = _looked_at(as_lines(opened))
        kind = kind_of(start, whole, name)
        if kind in _FROM_BYTES:
            records = _FROM_BYTES[kind](stream, name)
        elif is_packed(path):
            raise DataError(f"{name}: is {kind.replace('_', ' ')} inside an archive; unpack it")
        else:
            records = columnar.records(path, name, kind)
        yield from gathered(name, records, size)


def rows(block: Block) -> Iterator[tuple[Source, Any]]:
    """Yield the row of each record, parsed, or the RowError that says why there is none."""
    items: Sequence[tuple[int, Any]] = block.lines or block.rows
    if block.lines and block.rows:
        items = sorted((*block.lines, *block.rows), key=itemgetter(0))
    for number, item in items:
        row = item
        if type(item) is bytes:
            try:
                row = json_lines.parsed(item)
            except RowError as bad:
                row = bad
        yield Source(block.file, number), row


def _looked_at(stream: Iterator[bytes]) -> tuple[bytes, Iterator[bytes], bool]:
    """Return the start of a stream, the whole stream as it was, and whether the start is all there is."""
    taken: list[bytes] = []
    seen, end = b"", 0
    try:
        while len(seen) <= min(end, MAX_LINE_BYTES):
            # Twice as much each time: a long first line is not searched again and again.
            wanted = min(max(HEAD_BYTES, 2 * len(seen)), MAX_LINE_BYTES)
            while sum(map(len, taken)) <= wanted:
                taken.append(next(stream))
            seen = b"".join(taken)
            # A first line that is not blank belongs to the start, whole, unless that would tell nothing.
            begin = len(seen) - len(seen.lstrip())
            is_clear = seen.startswith(b"[", begin) or b"\0" in seen[:HEAD_BYTES]
            open_end = HEAD_BYTES if is_clear else MAX_LINE_BYTES
            end = max(seen.find(b"\n", begin) + 1 or open_end, HEAD_BYTES)
    except StopIteration:
        return b"".join(taken), iter(taken), True
    except Damaged as damage:
        return b"".join(taken), chain(taken, map(_raised, [damage])), False
    return seen[:end], chain([seen], stream), False


def _raised(error: Damaged) -> bytes:
    raise error
