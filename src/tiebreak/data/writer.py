"""Rows to a file: JSON lines, JSON or Parquet, by the name of the file; whole or not at all.

Owns how rows are written, and that nothing of the user's is overwritten. It knows no form: a row is what a writer of
`formats` made of a pair. No CSV: a spreadsheet runs a text like `=cmd()` as a formula, and guarding it would change
what models learn.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from tiebreak.errors import DataError, one_line
from tiebreak.files import whole_file

Append = Callable[[Mapping[str, Any]], object]
ROWS_IN_MEMORY = 2048
IN_MEMORY_BYTES = 32 * 2**20
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
    with writing(target), whole_file(target, new=True) as file, _KINDS[kind](file) as append:
        yield append


@contextlib.contextmanager
def _json_lines(file: IO[bytes]) -> Iterator[Append]:
    yield lambda row: file.write(_line(row))


@contextlib.contextmanager
def _gzip_lines(file: IO[bytes]) -> Iterator[Append]:
    # No name and no time inside: the same rows give the same bytes.
    with gzip.GzipFile(fileobj=file, mode="wb", filename="", mtime=0, compresslevel=6) as packed:
        yield lambda row: packed.write(_line(row))


@contextlib.contextmanager
def _zstd_lines(file: IO[bytes]) -> Iterator[Append]:
    import pyarrow as pa  # noqa: PLC0415 - loads slowly

    # Arrow closes what it wraps; the file must stay open to be synced.
    with pa.CompressedOutputStream(pa.PythonFile(_Unclosed(file), "w"), "zstd") as packed:
        yield lambda row: packed.write(_line(row))


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

    # A table has one schema, and any row may be the first to have a field: rows wait until all of them are known.
    with tempfile.SpooledTemporaryFile(IN_MEMORY_BYTES) as lines:
        yield lambda row: _set_down(lines, _with_tools_as_text(row))
        try:
            schema = pa.schema([])
            for rows in _batches(lines):
                names = dict.fromkeys(name for row in rows for name in row)
                found = pa.Table.from_pylist([{name: row.get(name) for name in names} for row in rows]).schema
                schema = pa.unify_schemas([schema, found], promote_options="permissive")
            with parquet.ParquetWriter(file, schema) as opened:
                for rows in _batches(lines):
                    table = pa.Table.from_pylist(rows, schema=schema)
                    # A struct has the fields of all rows, a column one kind of number: no row may be changed by that.
                    if _stated(table.to_pylist()) != _stated(rows):
                        raise DataError(_SHAPES)
                    opened.write_table(table)
        except (pa.ArrowException, OverflowError) as error:
            raise DataError(f"{_SHAPES} ({one_line(error, 120)})") from None


_SHAPES = "these rows would not come back the same from one Parquet file; write .jsonl instead"


def _set_down(lines: IO[bytes], row: Mapping[str, Any]) -> None:
    try:
        lines.write(_line(row))
    except OSError as error:
        place, cause = tempfile.gettempdir(), one_line(error.strerror or error)
        remedy = "make room there, or name another folder in TMPDIR"
        raise DataError(f"{place}: cannot hold temporary data ({cause}); {remedy}") from None


def _batches(lines: IO[bytes]) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows that wait, as many at once as may be in memory."""
    lines.seek(0)
    rows: list[dict[str, Any]] = []
    num_bytes = 0
    for line in lines:
        rows.append(json.loads(line))
        num_bytes += len(line)
        if len(rows) >= ROWS_IN_MEMORY or num_bytes >= IN_MEMORY_BYTES:
            yield rows
            rows, num_bytes = [], 0
    if rows:
        yield rows


def _with_tools_as_text(value: Any) -> Any:
    """Return a row with every list of tools as its JSON text: as a struct, each tool would have the fields of all."""
    if not isinstance(value, Mapping):
        return value
    return {
        name: json.dumps(item, ensure_ascii=False, allow_nan=False)
        if name == "tools" and isinstance(item, list)
        else _with_tools_as_text(item)
        for name, item in value.items()
    }


def _stated(value: Any) -> Any:
    """Return a value without the fields that a column holds for other rows; calls to the last null and digit."""
    if isinstance(value, Mapping):
        return {
            name: json.dumps(item, sort_keys=True) if name == "tool_calls" else _stated(item)
            for name, item in value.items()
            if item is not None
        }
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
