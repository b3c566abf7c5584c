"""Parquet and Arrow: tables of columns to rows of JSON values, a few at a time.

Owns what becomes of types that JSON has not: times and decimals become text, bytes become text where they are UTF-8,
else None. The records are numbered from 1.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tiebreak.data.containers.block import MAX_LINE_BYTES, Numbered
from tiebreak.data.containers.json_lines import too_long
from tiebreak.data.containers.unpacking import reason_of
from tiebreak.data.formats import RowError
from tiebreak.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

_Batches = Generator["pa.RecordBatch", None, None]

MAX_GROUP_BYTES = 2**30
"""Unpacked bytes of the batches in memory, whatever a file's dictionaries and pages unpack to."""

_ROWS_AT_ONCE = 256
_INVALID = (ValueError, OverflowError)
"""What Arrow and Python raise for cells that hold no value of their type; Arrow's own errors are ValueErrors."""
_JSON_SCALARS = (str, int, float, bool, type(None))


def parquet(path: Path, name: str) -> Iterator[Numbered]:
    """Yield the rows of a Parquet file."""
    return _numbered(_parquet_batches, path, name)


def arrow_file(path: Path, name: str) -> Iterator[Numbered]:
    """Yield the rows of an Arrow IPC file (also called Feather)."""
    return _numbered(_file_batches, path, name)


def arrow_stream(path: Path, name: str) -> Iterator[Numbered]:
    """Yield the rows of an Arrow IPC stream, the form of the cache of `datasets`."""
    return _numbered(_stream_batches, path, name)


# -------------------------------------------------------------------------------------------------------------- batches


def _parquet_batches(path: Path) -> _Batches:
    from pyarrow import parquet as pq  # noqa: PLC0415 - heavy, and only tables need it

    # Unbuffered, a row group is read whole, packed; a shared pool of threads would not survive worker processes.
    with pq.ParquetFile(path, pre_buffer=False, buffer_size=2**20) as file:
        _check_columns(file.schema_arrow.names)
        yield from file.iter_batches(_rows_at_once(file.metadata), use_threads=False)


def _rows_at_once(metadata: Any) -> int:
    """Return a number of rows whose cells together cannot be large, for a cell is no larger than its row group."""
    # Of a group only, not of its columns: in a damaged footer, Arrow would look for those outside its memory.
    largest = max((metadata.row_group(index).total_byte_size for index in range(metadata.num_row_groups)), default=0)
    return max(1, min(_ROWS_AT_ONCE, MAX_GROUP_BYTES // max(1, largest)))


def _file_batches(path: Path) -> _Batches:
    import pyarrow as pa  # noqa: PLC0415

    with pa.memory_map(str(path)) as mapped, pa.ipc.open_file(mapped) as file:
        _check_columns(file.schema.names)
        for index in range(file.num_record_batches):
            yield file.get_batch(index)


def _stream_batches(path: Path) -> _Batches:
    import pyarrow as pa  # noqa: PLC0415

    with pa.memory_map(str(path)) as mapped, pa.ipc.open_stream(mapped) as stream:
        _check_columns(stream.schema.names)
        yield from stream


def _check_columns(names: list[str]) -> None:
    if not names:
        raise DataError("the table has no column")
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise DataError(f"the column {twice!a:.60} is given twice")


# ----------------------------------------------------------------------------------------------------------------- rows


def _numbered(batches: Callable[[Path], _Batches], path: Path, name: str) -> Iterator[Numbered]:
    import pyarrow as pa  # noqa: PLC0415

    number = 0
    try:
        with contextlib.closing(batches(path)) as opened:
            for batch in opened:
                for row, weight in _rows(batch):
                    number += 1
                    yield number, row, weight
    except DataError as error:
        raise DataError(f"{name}: {error}") from None
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
        raise DataError(f"{name}:{number + 1}: the file is damaged here ({reason_of(error)})") from None


def _rows(batch: pa.RecordBatch) -> Iterator[tuple[Any, int]]:
    for start in range(0, batch.num_rows, _ROWS_AT_ONCE):
        part = batch.slice(start, _ROWS_AT_ONCE)
        rows = _together(part)
        yield from (_single(part.slice(index, 1)) for index in range(part.num_rows)) if rows is None else rows


def _together(part: pa.RecordBatch) -> list[tuple[Any, int]] | None:
    """Return the rows of a few rows of a table, None where they are large or not all of them are valid."""
    try:
        num_bytes = _valid_bytes(part)
        if num_bytes > MAX_LINE_BYTES:
            return None
        return [(row, num_bytes // part.num_rows) for row in _plain_rows(part)]
    except _INVALID:
        return None


def _single(row: pa.RecordBatch) -> tuple[Any, int]:
    try:
        num_bytes = _valid_bytes(row)
        return (too_long(), 0) if num_bytes > MAX_LINE_BYTES else (_plain_rows(row)[0], num_bytes)
    except _INVALID as error:
        reason = "bad_unicode" if "UTF8" in str(error) else "bad_row"
        return RowError(reason, f"not a valid row: {reason_of(error)}"), 0


def _valid_bytes(part: pa.RecordBatch) -> int:
    """Return the size of a table. Without the check before it, a damaged file makes Arrow read outside its memory."""
    part.validate(full=True)
    return int(part.nbytes)


def _plain_rows(part: pa.RecordBatch) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = _without_nanoseconds(part).to_pylist()
    odd = [field.name for field in part.schema if not _is_json_type(field.type)]
    if odd:
        for row in rows:
            row.update({name: _as_json(row[name]) for name in odd})
    return rows


def _without_nanoseconds(part: pa.RecordBatch) -> pa.RecordBatch:
    """Return the table with times that Python itself can hold; for nanoseconds, Arrow would want pandas."""
    import pyarrow as pa  # noqa: PLC0415

    for index, field in enumerate(part.schema):
        if pa.types.is_timestamp(field.type) and field.type.unit == "ns":
            rounded = part.column(index).cast(pa.timestamp("us", field.type.tz), safe=False)
            part = part.set_column(index, field.name, rounded)
    return part


def _is_json_type(kind: pa.DataType) -> bool:
    import pyarrow.types as t  # noqa: PLC0415

    simple = (t.is_string, t.is_large_string, t.is_string_view, t.is_boolean, t.is_integer, t.is_floating, t.is_null)
    if any(test(kind) for test in simple):
        return True
    if t.is_dictionary(kind):
        return _is_json_type(kind.value_type)
    nested = t.is_list(kind) or t.is_large_list(kind) or t.is_struct(kind)
    return nested and all(_is_json_type(kind.field(index).type) for index in range(kind.num_fields))


def _as_json(value: Any) -> Any:
    if isinstance(value, _JSON_SCALARS):
        return value
    if isinstance(value, Mapping):
        return {str(key): _as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(item) for item in value]
    if isinstance(value, bytes):
        return _text_of(value)
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _text_of(value: bytes) -> str | None:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return None
