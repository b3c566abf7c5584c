"""Parquet and Arrow: tables of columns to rows of JSON values, a few at a time.

Owns what becomes of types that JSON has not: times and decimals become text, bytes become text where they are UTF-8,
else None; and of what tables fill in: all structures of a column have the same keys, so that a null in one says that
its key was not there. The records are numbered from 1.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tiebreak.data.containers.block import MAX_LINE_BYTES, Numbered
from tiebreak.data.containers.json_lines import too_long
from tiebreak.data.containers.kinds import Kind
from tiebreak.data.containers.unpacking import reason_of
from tiebreak.data.formats import RowError
from tiebreak.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

MAX_GROUP_BYTES = 2**30
"""Unpacked bytes of the batches in memory, whatever a file's dictionaries and pages unpack to."""

MAX_ROWS_PER_BYTE, FREE_ROWS = 10, 1_000_000
"""How many rows a file may hold for its size, once it holds that many: a column of one value packs any number."""
_ROWS_AT_ONCE = 256
_INVALID = (ValueError, OverflowError)
"""What Arrow and Python raise for cells that hold no value of their type; Arrow's own errors are ValueErrors."""
_JSON_SCALARS = (str, int, float, bool, type(None))


def records(path: Path, name: str, kind: Kind) -> Iterator[Numbered]:
    """Yield the rows of a Parquet file, an Arrow IPC file (also called Feather) or an Arrow IPC stream.

    The stream is the form of the cache of `datasets`. Raises DataError where the file is damaged.
    """
    import pyarrow as pa  # noqa: PLC0415

    number = 0
    try:
        most = max(FREE_ROWS, MAX_ROWS_PER_BYTE * path.stat().st_size)
        with contextlib.closing(_batches(path, kind)) as batches:
            for batch in batches:
                if number + batch.num_rows > most:
                    raise DataError(f"holds more than {most} rows in {path.stat().st_size} bytes, as no text does")
                for start in range(0, batch.num_rows, _ROWS_AT_ONCE):
                    for row, weight in _rows(batch.slice(start, _ROWS_AT_ONCE)):
                        number += 1
                        yield number, row, weight
    except DataError as error:
        raise DataError(f"{name}: {error}") from None
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
        raise DataError(f"{name}:{number + 1}: the file is damaged here ({reason_of(error)})") from None


def _batches(path: Path, kind: Kind) -> Generator[pa.RecordBatch, None, None]:
    import pyarrow as pa  # noqa: PLC0415 - heavy, and only tables need it

    if kind == "parquet":
        from pyarrow import parquet as pq  # noqa: PLC0415

        # Unbuffered, a row group is read whole, packed; a shared pool of threads would not survive worker processes.
        with pq.ParquetFile(path, pre_buffer=False, buffer_size=2**20) as file:
            _check_columns(file.schema_arrow.names)
            # A cell is no larger than its row group, so that this many together cannot be large. The size is that of
            # a group, not of its columns: in a damaged footer, Arrow would look for those outside its memory.
            groups = (file.metadata.row_group(index) for index in range(file.metadata.num_row_groups))
            largest = max((group.total_byte_size for group in groups), default=0)
            num_rows = max(1, min(_ROWS_AT_ONCE, MAX_GROUP_BYTES // max(1, largest)))
            yield from file.iter_batches(num_rows, use_threads=False)
        return
    with pa.memory_map(str(path)) as mapped:
        if kind == "arrow_file":
            with pa.ipc.open_file(mapped) as file:
                _check_columns(file.schema.names)
                for index in range(file.num_record_batches):
                    yield file.get_batch(index)
        else:
            with pa.ipc.open_stream(mapped) as stream:
                _check_columns(stream.schema.names)
                yield from stream


def _check_columns(names: list[str]) -> None:
    if not names:
        raise DataError("the table has no column")
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise DataError(f"the column {twice!a:.60} is given twice")


# ----------------------------------------------------------------------------------------------------------------- rows


def _rows(part: pa.RecordBatch) -> Iterator[tuple[Any, int]]:
    """Yield the rows of a few rows of a table with their sizes; one that is too large or not valid is a RowError.

    Where the few together are large or not all of them are valid, each is looked at by itself.
    """
    rows: list[dict[str, Any]] | None = None
    num_bytes = 0
    finding = too_long()
    try:
        part.validate(full=True)  # without it, a damaged file makes Arrow read outside its memory
        num_bytes = int(part.nbytes)
        if num_bytes <= MAX_LINE_BYTES:
            rows = _plain_rows(part)
    except _INVALID as error:
        reason = "bad_unicode" if "UTF8" in str(error) else "bad_row"
        finding = RowError(reason, f"not a valid row: {reason_of(error)}")
    if rows is not None:
        yield from ((row, num_bytes // part.num_rows) for row in rows)
    elif part.num_rows == 1:
        yield finding, 0
    else:
        for index in range(part.num_rows):
            yield from _rows(part.slice(index, 1))


def _plain_rows(part: pa.RecordBatch) -> list[dict[str, Any]]:
    import pyarrow as pa  # noqa: PLC0415

    odd = [field.name for field in part.schema if not _is_json_type(field.type)]
    for index, field in enumerate(part.schema):
        if pa.types.is_timestamp(field.type) and field.type.unit == "ns":  # for these, Arrow would want pandas
            rounded = part.column(index).cast(pa.timestamp("us", field.type.tz), safe=False)
            part = part.set_column(index, field.name, rounded)
    rows: list[dict[str, Any]] = part.to_pylist(maps_as_pydicts="strict")
    filled = [field for field in part.schema if _holds_keys(field.type)]
    for row in rows:
        row.update({field.name: _as_written(row[field.name], field.type) for field in filled})
        row.update({name: _as_json(row[name]) for name in odd})
    return rows


def _holds_keys(kind: pa.DataType) -> bool:
    import pyarrow.types as t  # noqa: PLC0415

    return t.is_struct(kind) or any(_holds_keys(kind.field(index).type) for index in range(kind.num_fields))


def _as_written(value: Any, kind: pa.DataType) -> Any:
    """Return a value without the keys that its structures have as null, at any depth; keys of a map were written."""
    import pyarrow.types as t  # noqa: PLC0415

    if value is None or not _holds_keys(kind):
        return value
    if t.is_struct(kind):
        fields = (kind.field(index) for index in range(kind.num_fields))
        return {one.name: _as_written(value[one.name], one.type) for one in fields if value[one.name] is not None}
    if t.is_map(kind):
        return {key: _as_written(item, kind.item_type) for key, item in value.items()}
    return [_as_written(item, kind.value_type) for item in value]


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
        with contextlib.suppress(UnicodeDecodeError):
            return value.decode("utf-8")
        return None
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
