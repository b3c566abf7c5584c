"""CSV and TSV: text with a header to rows, a column a key.

Owns delimiters, quotes and which cells hold JSON. The number of a record is the line on which it begins. A record with
an unbalanced quote costs only its first line: reading goes on at the next one.
"""

from __future__ import annotations

import csv
import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from tiebreak.data.containers.block import MAX_LINE_BYTES, Numbered
from tiebreak.data.containers.json_lines import BYTE_ORDER_MARK, split, too_long, value_of
from tiebreak.data.containers.unpacking import Damaged
from tiebreak.data.formats import RowError
from tiebreak.errors import DataError

DELIMITERS = (",", "\t", ";", "|")
NUM_SAMPLED = 100
"""Records that decide which columns hold JSON."""

SAMPLED_BYTES = 4 * 2**20

_PLAIN = re.compile(
    r"(?:.*[-_ ])?"
    r"(?:prompt|instruction|question|query|problem|document|article|post|context|input|system|system[-_ ]message"
    r"|chosen|rejected|accepted|preferred|dispreferred|completion|response|answer|reply|output|generation|solution|text)"
    r"(?:[-_ ]?(?:\d{1,3}|[ab])|[-_ ][a-z])?",
    re.I,
)
"""Columns of what was asked and answered: JSON there is the text itself, unless it is messages."""

_Record = tuple[int, "list[str] | RowError", int]


def header_of(line: str) -> tuple[str, list[str]] | None:
    """Return the delimiter and the names of a line that can be the header of a table, or None."""
    found = [(delimiter, _names(line, delimiter)) for delimiter in DELIMITERS]
    delimiter, names = max(found, key=lambda item: len(item[1]))
    plausible = len(names) > 1 and all(len(name) <= 64 and "{" not in name for name in names)
    return (delimiter, names) if plausible else None


def _names(line: str, delimiter: str) -> list[str]:
    try:
        return [name.strip() for name in next(csv.reader([line], delimiter=delimiter, strict=True), [])]
    except csv.Error:
        return []


def records(stream: Iterable[bytes], name: str) -> Iterator[Numbered]:
    """Yield each record of a table as a dict, or as a RowError where it does not fit the header."""
    lines = _Lines(stream)
    try:
        delimiter, names = _header(lines, name)
        found = _records(lines, delimiter, names)
        sample = _sample(found)
        structured = _structured(sample, names)
        for number, cells, weight in chain(sample, found):
            yield number, cells if isinstance(cells, RowError) else _row(cells, names, structured), weight
    except Damaged as error:
        raise DataError(f"{name}:{lines.number + 1}: the file is damaged here ({error})") from None


def _header(lines: _Lines, name: str) -> tuple[str, list[str]]:
    try:
        text = next((line for line in lines if line.strip()), "")
    except _TooLong:
        raise DataError(f"{name}:{lines.number}: the header is longer than {MAX_LINE_BYTES // 2**20} MiB") from None
    if lines.broken:
        raise DataError(f"{name}:{lines.number}: the header is not UTF-8; save the file as UTF-8")
    delimiter, names = header_of(text) or (",", _names(text, ",")[:1] or [text.strip()])
    twice = next((key for key, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise DataError(f"{name}:{lines.number}: the header names the column {twice!a:.60} twice")
    return delimiter, names


def _sample(found: Iterator[_Record]) -> list[_Record]:
    sample: list[_Record] = []
    num_bytes = 0
    for record in found:
        sample.append(record)
        num_bytes += record[2]
        if len(sample) >= NUM_SAMPLED or num_bytes > SAMPLED_BYTES:
            break
    return sample


def _records(lines: _Lines, delimiter: str, names: list[str]) -> Iterator[_Record]:
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        lines.begin()
        found = _next(reader, lines, names)
        if found is None:
            return
        if found:
            yield lines.first, found, lines.num_bytes


def _next(reader: Any, lines: _Lines, names: list[str]) -> list[str] | RowError | None:
    """Return the cells of the next record, [] for a blank line, None at the end."""
    limit = csv.field_size_limit(MAX_LINE_BYTES)
    try:
        cells: list[str] = next(reader)
    except StopIteration:
        return None
    except _TooLong:
        lines.give_back()
        return too_long()
    except csv.Error as error:
        lines.give_back()
        return RowError("bad_row", f"not a record of a table: {error}")
    finally:
        csv.field_size_limit(limit)  # the limit is the process's; others find it as it was
    if lines.broken:
        return RowError("bad_unicode", "the record is not UTF-8")
    blank = not cells or (len(cells) == 1 < len(names) and not cells[0].strip())
    return [] if blank else _fitting(cells, names)


def _fitting(cells: list[str], names: list[str]) -> list[str] | RowError:
    if len(cells) != len(names):
        return RowError("bad_row", f"found {len(cells)} cells, the header names {len(names)}")
    if cells == names:  # as where tables were put one after another
        return RowError("bad_row", "repeats the header")
    if any("\0" in cell for cell in cells):
        return RowError("bad_row", "holds a NUL byte")
    return cells


# -------------------------------------------------------------------------------------------------------- cells to rows


def _structured(sample: Sequence[_Record], names: Sequence[str]) -> frozenset[int]:
    """Return the columns whose cells are all JSON lists or objects, where there is one at all.

    A whole column is asked, not a cell: a completion that happens to be JSON stays text like its neighbours. Where all
    completions are JSON, as where models call functions, they are text as well: there, only messages are unfolded.
    """
    rows = [cells for _, cells, _ in sample if not isinstance(cells, RowError)]
    columns = ([_value(row[index]) for row in rows if row[index]] for index in range(len(names)))
    return frozenset(
        index for index, (name, column) in enumerate(zip(names, columns, strict=True)) if _unfolds(name, column)
    )


def _unfolds(name: str, column: Sequence[Any]) -> bool:
    if not _PLAIN.fullmatch(name):
        return bool(column) and not any(isinstance(value, str) for value in column)
    return any(column) and all(map(_is_messages, column))


def _is_messages(value: Any) -> bool:
    """Whether the value is a message, a list of messages, or an object with one under `messages`."""
    if isinstance(value, list):
        return all(isinstance(item, Mapping) and _is_messages(item) for item in value)
    has = value.keys() if isinstance(value, Mapping) else frozenset()
    return "messages" in has or {"from", "value"} <= has or ("role" in has and not has.isdisjoint(_SAID))


_SAID = ("content", "tool_calls")


def _value(cell: str) -> Any:
    if not cell.startswith(("[", "{")):
        return cell
    try:
        return value_of(cell)
    except RowError:
        return cell


def _row(cells: list[str], names: Sequence[str], structured: frozenset[int]) -> dict[str, Any]:
    values = ((_value(cell) if index in structured else cell) for index, cell in enumerate(cells))
    return dict(zip(names, values, strict=True))


# ---------------------------------------------------------------------------------------------------------------- lines


class _TooLong(Exception):  # noqa: N818 - a finding
    """A record goes on for longer than the cap: its quote is never closed, or it is too long."""


class _Lines:
    """The lines of a stream as text, of which those of the present record can be given back."""

    def __init__(self, stream: Iterable[bytes]) -> None:
        self._source = split(stream)
        self._ahead: deque[str | None] = deque()
        self._taken: list[str | None] = []
        self.number = 0
        self.first = 1
        self.num_bytes = 0
        self.broken = False

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._ahead.popleft() if self._ahead else self._decoded()
        self.number += 1
        self._taken.append(line)
        self.num_bytes += len(line or "")
        if line is None or self.num_bytes > MAX_LINE_BYTES:
            raise _TooLong
        self.broken = self.broken or (not line.isascii() and _is_broken(line))
        return line

    def begin(self) -> None:
        """Begin a record at the next line."""
        self._taken.clear()
        self.first, self.num_bytes, self.broken = self.number + 1, 0, False

    def give_back(self) -> None:
        """Read all lines of the present record but its first once more."""
        again = self._taken[1:]
        self._ahead.extendleft(reversed(again))
        self.number -= len(again)

    def _decoded(self) -> str | None:
        line = next(self._source)
        if line is not None and self.number == 0:
            line = line.removeprefix(BYTE_ORDER_MARK)
        return None if line is None else line.decode("utf-8", "surrogateescape") + "\n"


def _is_broken(line: str) -> bool:
    try:
        line.encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False
