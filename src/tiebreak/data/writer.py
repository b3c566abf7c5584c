"""Rows to a file: JSON lines, JSON or Parquet, by the name of the file; whole or not at all.

Owns how rows are written, and that nothing of the user's is overwritten. It knows no form: a row is what a writer of
`formats` made of a pair. No CSV: a spreadsheet runs a text like `=cmd()` as a formula, and guarding it would change
what models learn.
"""

from __future__ import annotations

import contextlib
import gzip
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from tiebreak.errors import DataError, one_line
from tiebreak.runs import whole_file

Append = Callable[[Mapping[str, Any]], None]
ROWS_IN_MEMORY = 2048
SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".json", ".parquet")


def require_new(target: Path) -> None:
    """Raise DataError where something stands at this path already."""
    if target.exists():
        raise DataError(f"{target}: already exists; choose another name or remove it first")


@contextlib.contextmanager
def writing(target: Path) -> Iterator[None]:
    """Make the folder of a file; what goes wrong with the disk inside is a DataError of one line."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise DataError(f"{target}: cannot be written ({one_line(error.strerror or error)})") from None


@contextlib.contextmanager
def rows_to(target: Path) -> Iterator[Append]:
    """Give a function that appends a row to a new file, which appears once all rows are written.

    Raises DataError where the name says no kind that can be written, or the place cannot be written to.
    """
    kind = next((suffix for suffix in reversed(SUFFIXES) if target.name.lower().endswith(suffix)), None)
    if kind is None:
        raise DataError(f"{target}: the name says no kind of file; wanted one that ends with {', '.join(SUFFIXES)}")
    with writing(target), whole_file(target) as file, _KINDS[kind](file) as append:
        yield append


@contextlib.contextmanager
def _json_lines(file: IO[bytes]) -> Iterator[Append]:
    yield lambda row: _write(file, _line(row))


@contextlib.contextmanager
def _gzip_lines(file: IO[bytes]) -> Iterator[Append]:
    # No name and no time inside: the same rows give the same bytes.
    with gzip.GzipFile(fileobj=file, mode="wb", filename="", mtime=0, compresslevel=6) as packed:
        yield lambda row: _write(packed, _line(row))


@contextlib.contextmanager
def _zstd_lines(file: IO[bytes]) -> Iterator[Append]:
    import pyarrow as pa  # noqa: PLC0415 - loads slowly

    # Arrow closes what it wraps; the file must stay open to be synced.
    with pa.CompressedOutputStream(pa.PythonFile(_Unclosed(file), "w"), "zstd") as packed:
        yield lambda row: _write(packed, _line(row))


@contextlib.contextmanager
def _json_array(file: IO[bytes]) -> Iterator[Append]:
    separator = [b"[\n"]

    def append(row: Mapping[str, Any]) -> None:
        file.write(separator[0] + _line(row).rstrip(b"\n"))
        separator[0] = b",\n"

    yield append
    file.write(b"\n]\n" if separator[0] == b",\n" else b"[]\n")


@contextlib.contextmanager
def _parquet(file: IO[bytes]) -> Iterator[Append]:
    import pyarrow as pa  # noqa: PLC0415 - loads slowly
    from pyarrow import parquet  # noqa: PLC0415

    waiting: list[Mapping[str, Any]] = []
    made: list[Any] = []

    def flush() -> None:
        names = dict.fromkeys(name for row in waiting for name in row)
        whole = [{name: row.get(name) for name in names} for row in waiting]
        try:
            table = pa.Table.from_pylist(whole, schema=made[0].schema if made else None)
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise DataError(f"{_SHAPES} ({one_line(error, 120)})") from None
        # What the shape of the first rows has no place for, pyarrow leaves out without a word.
        if _stated(table.to_pylist()) != _stated(waiting):
            raise DataError(_SHAPES)
        if not made:
            made.append(opened.enter_context(parquet.ParquetWriter(file, table.schema)))
        made[0].write_table(table)
        waiting.clear()

    def append(row: Mapping[str, Any]) -> None:
        waiting.append(row)
        if len(waiting) >= ROWS_IN_MEMORY:
            flush()

    with contextlib.ExitStack() as opened:
        yield append
        if waiting or not made:
            flush()


_SHAPES = "rows of different shapes cannot be one Parquet file; write .jsonl instead"


def _stated(value: Any) -> Any:
    """Return a value without the fields that a column holds for other rows."""
    if isinstance(value, Mapping):
        return {name: _stated(item) for name, item in value.items() if item is not None}
    return [_stated(item) for item in value] if isinstance(value, list) else value


_KINDS: dict[str, Callable[[IO[bytes]], contextlib.AbstractContextManager[Append]]] = dict(
    zip(SUFFIXES, (_json_lines, _gzip_lines, _zstd_lines, _json_array, _parquet), strict=True)
)


class _Unclosed:
    """A file that others write to and cannot close."""

    closed = False

    def __init__(self, file: IO[bytes]) -> None:
        self.write = file.write
        self.flush = file.flush

    def close(self) -> None:
        """Leave the file open."""


def _line(row: Mapping[str, Any]) -> bytes:
    return json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def _write(file: Any, line: bytes) -> None:
    file.write(line)
