"""Tables as JSON: an object of columns or of rows, as pandas and `datasets` write them, to the texts of their records.

Owns which objects are tables and which are one record. Columns stand one after the other, so that a table is held
whole, as bytes; its cells are not parsed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from tiebreak.data.containers.block import MAX_LINE_BYTES
from tiebreak.data.containers.delimited import is_name_of_text
from tiebreak.data.containers.json_text import Broken, Text
from tiebreak.data.formats import RowError

MAX_BYTES = 2**28
"""A larger object is not read: it would be held in memory."""
WANTED = "to_json('pairs.jsonl', orient='records', lines=True)"

_NUMBER = re.compile(rb'"-?\d+"')
_VIEWED = re.compile(rb'\{\s*"row_idx"\s*:\s*\d+\s*,\s*"row"\s*:\s*\{')
_MESSAGE = re.compile(rb'\{\s*"(?:role|content|from|value)"\s*:')
Member = tuple[bytes, bytes]


class Unnamed(Exception):  # noqa: N818 - a finding
    """A table of which nobody can say what is what."""


def records(members: Sequence[Member]) -> Iterator[bytes]:
    """Yield the records of an object, of which each member is a key and a value: its rows, or the object itself."""
    opening = {value[:1] for _, value in members}
    if opening == {b"{"} and _are_rows(members):
        yield from (value for _, value in members)
    elif opening == {b"{"} and all(_NUMBER.fullmatch(_first_key(value)) for _, value in members):
        yield from _zipped([(name, _text(value).members()) for name, value in members])
    elif opening == {b"["} and _are_columns(members):
        yield from _zipped([(name, ((b"", cell) for cell in _text(value).items())) for name, value in members])
    elif opening == {b"["} and len(members) == 1 and _is_list_of_rows(*members[0]):
        yield from _text(members[0][1]).items()
    else:
        yield _fitting(b"{" + b",".join(key + b":" + value for key, value in members) + b"}")


def named(rows: Iterable[bytes], columns: bytes | None) -> Iterator[bytes | RowError]:
    """Yield rows, each list among them with the names of its columns where such are known.

    The viewer of the Hub numbers its rows (`row_idx`, `row`); one of which it has cut a cell is a RowError.
    """
    names = list(_text(columns).items()) if columns and columns.startswith(b"[") else []
    for row in rows:
        if _VIEWED.match(row):
            viewed = dict(_text(row).members())
            cut = viewed.get(b'"truncated_cells"', b"[]")
            lost = list(_text(cut).items()) if cut.startswith(b"[") else []
            which = ", ".join(cell.decode("utf-8", "replace") for cell in lost[:8])
            what = f"the viewer of the Hub has cut cells of this row ({which:.80}); take the data set's own files"
            yield RowError("bad_row", what) if lost else viewed.get(b'"row"', row)
            continue
        cells = list(_text(row).items()) if row.startswith(b"[") else []
        if cells and not names:
            raise Unnamed("lists of cells: their columns have no names")
        yield _row(names, cells) if cells and len(cells) == len(names) else row


def _are_rows(members: Sequence[Member]) -> bool:
    """Whether the keys are labels of rows: numbers, or names that no column has before rows that have such."""
    if all(_NUMBER.fullmatch(key) for key, _ in members):
        return True
    named_alike = len(members) > 1 and _names_of_text(members[0][1]) > 1
    return named_alike and not any(is_name_of_text(_name(key)) for key, _ in members)


def _are_columns(members: Sequence[Member]) -> bool:
    """Whether lists are columns: several, of one length, and not the messages of one record."""
    if len(members) == 1 or any(_MESSAGE.match(next(_text(value).items(), b"")) for _, value in members):
        return False
    return len({sum(1 for _ in _text(value).items()) for _, value in members}) == 1


def _is_list_of_rows(key: bytes, value: bytes) -> bool:
    """Whether the one list of an object holds records, under a key of anybody's choice."""
    first = next(_text(value).items(), b"")
    return first.startswith(b"{") and not is_name_of_text(_name(key)) and _names_of_text(first) > 1


def _zipped(columns: Sequence[tuple[bytes, Iterator[Member]]]) -> Iterator[bytes]:
    names, cells = [name for name, _ in columns], [column for _, column in columns]
    try:
        for row in zip(*cells, strict=True):
            if len({label for label, _ in row}) > 1:
                raise Broken("its columns name different rows")
            yield _row(names, [cell for _, cell in row])
    except ValueError:
        raise Broken("its columns are of different lengths") from None


def _row(names: Sequence[bytes], cells: Sequence[bytes]) -> bytes:
    return _fitting(b"{" + b",".join(name + b":" + cell for name, cell in zip(names, cells, strict=True)) + b"}")


def _fitting(record: bytes) -> bytes:
    if len(record) > MAX_LINE_BYTES:
        raise Broken(f"a record is longer than {MAX_LINE_BYTES // 2**20} MiB; write one record per line (JSON lines)")
    return record


def _text(value: bytes) -> Text:
    return Text(iter([value]))


def _names_of_text(value: bytes) -> int:
    return sum(is_name_of_text(_name(key)) for key, _ in _text(value).members())


def _first_key(value: bytes) -> bytes:
    return next((key for key, _ in _text(value).members()), b"")


def _name(key: bytes) -> str:
    return key[1:-1].decode("utf-8", "replace")
