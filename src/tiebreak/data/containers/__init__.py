"""Files to records, whatever they are packed in: JSON lines, JSON, CSV, TSV, Parquet, Arrow; gzip and zstd.

Owns that every record of a file is numbered and ends as a row or as a RowError, with flat memory. A file is recognised
by its content, never by its name alone. It knows nothing of what a row means (`formats`).

    block       consecutive records of a file
    unpacking   a file to plain bytes          kinds      which container these are
    json_lines  lines, and a line to a row     json_lists a JSON document to the texts of its records
    delimited   CSV and TSV                    columnar   Parquet and Arrow
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import Any

from tiebreak.data.containers import columnar, delimited, json_lines, json_lists
from tiebreak.data.containers.block import MAX_BLOCK_BYTES, MAX_LINE_BYTES, Block, Numbered, gathered
from tiebreak.data.containers.kinds import kind_of
from tiebreak.data.containers.unpacking import Damaged, chunks, is_packed
from tiebreak.data.formats import RowError
from tiebreak.errors import DataError
from tiebreak.records import Source

__all__ = ["MAX_BLOCK_BYTES", "MAX_LINE_BYTES", "Block", "blocks", "rows"]

HEAD_BYTES = 2**16
"""What is looked at to recognise a file, more where its first line is longer."""

_FROM_BYTES = {"lines": json_lines.records, "json": json_lists.records, "table": delimited.records}
_FROM_FILE = {
    "parquet": columnar.parquet,
    "arrow_file": columnar.arrow_file,
    "arrow_stream": columnar.arrow_stream,
}


def blocks(path: Path, name: str, size: int = 256) -> Iterator[Block]:
    """Yield the records of a file in chunks of at most `size`; none for an empty file.

    Memory is bounded whatever the file is. Raises DataError where it cannot be read, holds nothing that is read here,
    or is damaged; the records before the damage come first. `name` stands for the file in sources and messages.
    """
    with closing(chunks(path)) as stream:
        yield from gathered(name, _records(path, name, stream), size)


def rows(block: Block) -> Iterator[tuple[Source, Any]]:
    """Yield the row of each record, parsed, or the RowError that says why there is none."""
    items = (
        sorted((*block.lines, *block.rows), key=_number) if block.lines and block.rows else block.lines or block.rows
    )
    for number, item in items:
        yield Source(block.file, number), _row(item) if type(item) is bytes else item


def _number(item: tuple[int, Any]) -> int:
    return item[0]


def _row(line: bytes) -> Any:
    try:
        return json_lines.parsed(line)
    except RowError as bad:
        return bad


def _records(path: Path, name: str, stream: Iterator[bytes]) -> Iterator[Numbered]:
    start, stream, whole = _looked_at(stream)
    kind = kind_of(start, whole, name)
    if kind in _FROM_BYTES:
        return _FROM_BYTES[kind](stream, name)
    if is_packed(path):
        raise DataError(f"{name}: is {kind.replace('_', ' ')} inside an archive; unpack it")
    return _FROM_FILE[kind](path, name)


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
            end = _end_of_start(seen)
    except StopIteration:
        return b"".join(taken), iter(taken), True
    except Damaged as damage:
        return b"".join(taken), chain(taken, map(_raised, [damage])), False
    return seen[:end], chain([seen], stream), False


def _end_of_start(seen: bytes) -> int:
    """Return how far to look: a first line that is not blank belongs to it, whole, unless that would tell nothing."""
    begin = len(seen) - len(seen.lstrip())
    is_clear = seen.startswith(b"[", begin) or b"\0" in seen[:HEAD_BYTES]
    open_end = HEAD_BYTES if is_clear else MAX_LINE_BYTES
    return max(seen.find(b"\n", begin) + 1 or open_end, HEAD_BYTES)


def _raised(error: Damaged) -> bytes:
    raise error
