"""CSV and TSV: text with a header to rows, a column a key.

Owns delimiters, quotes and what spreadsheets add. A cell is text, whatever it holds (`unfolding`). A record's number is
the line on which it begins. One with an unbalanced quote costs only its first line: reading goes on at the next.
"""

from __future__ import annotations

import csv
import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

from tiebreak.data.containers.block import MAX_LINE_BYTES, Numbered
from tiebreak.data.containers.json_lines import BYTE_ORDER_MARK, split, too_long
from tiebreak.data.containers.unpacking import Damaged
from tiebreak.data.formats import RowError
from tiebreak.errors import DataError

DELIMITERS = (",", "\t", ";", "|")
NUM_SAMPLED = 100
"""Records that decide which columns hold numbers with a decimal comma."""

SAMPLED_BYTES = 4 * 2**20

_PLAIN = re.compile(
    r"(?:.*[-_ ])?"
    r"(?:prompt|instruction|question|query|problem|document|article|post|context|input|system|system[-_ ]message"
    r"|chosen|rejected|accepted|preferred|dispreferred|completion|response|answer|reply|output|generation|solution|text)"
    r"(?:[-_ ]?(?:\d{1,3}|[ab])|[-_ ][a-z])?",
    re.I,
)
"""Columns of what was asked and answered."""

_SEPARATOR = re.compile(r'"?sep=(.)"?[;,\t|]*\s*')
"""The first line by which a spreadsheet is told the delimiter."""

_NAMES_A_NUMBER = re.compile(r"score|rating|rank|margin|weight|reward|grade|points|prob|confidence", re.I)
_DECIMAL_COMMA = re.compile(r"[-+]?\d+(,\d+)?")

_Record = tuple[int, "list[str] | RowError", int]


def is_name_of_text(name: str) -> bool:
    """Whether a column of this name is what was asked or answered."""
    return _PLAIN.fullmatch(name) is not None


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
        sample: list[_Record] = []
        num_bytes = 0
        while len(sample) < NUM_SAMPLED and num_bytes <= SAMPLED_BYTES and (record := next(found, None)):
            sample.append(record)
            num_bytes += record[2]
        rows = [cells for _, cells, _ in sample if not isinstance(cells, RowError)]
        decimal = _with_decimal_commas(rows, names, delimiter)
        for number, cells, weight in chain(sample, found):
            row: Any = cells
            if not isinstance(cells, RowError):
                values = (_with_point(cell) if index in decimal else cell for index, cell in enumerate(cells))
                row = dict(zip(names, values, strict=True))
            yield number, row, weight
    except Damaged as error:
        raise DataError(f"{name}:{lines.number + 1}: the file is damaged here ({error})") from None


def _header(lines: _Lines, name: str) -> tuple[str, list[str]]:
    try:
        text = next((line for line in lines if line.strip()), "")
        stated = _SEPARATOR.fullmatch(text)
        if stated:
            text = next((line for line in lines if line.strip()), "")
    except _TooLong:
        raise DataError(f"{name}:{lines.number}: the header is longer than {MAX_LINE_BYTES // 2**20} MiB") from None
    if lines.broken:
        raise DataError(f"{name}:{lines.number}: the header is not UTF-8; save the file as UTF-8")
    found = (stated[1], _names(text, stated[1])) if stated else header_of(text)
    delimiter, names = found or (",", _names(text, ",")[:1] or [text.strip()])
    while len(names) > 1 and not names[-1]:
        names.pop()  # spreadsheets write columns that are empty
    twice = next((key for key, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise DataError(f"{name}:{lines.number}: the header names the column {twice!a:.60} twice")
    return delimiter, names


def _records(lines: _Lines, delimiter: str, names: list[str]) -> Iterator[_Record]:
    """Yield first line, cells and size of each record but blank ones; a RowError for cells that do not fit."""
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        lines.begin()
        limit = csv.field_size_limit(MAX_LINE_BYTES)
        try:
            found: list[str] | RowError = next(reader)
        except StopIteration:
            return
        except _TooLong:
            lines.give_back()
            found = too_long()
        except csv.Error as error:
            lines.give_back()
            found = RowError("bad_row", f"not a record of a table: {error}".replace("\t", "\\t"))
        finally:
            csv.field_size_limit(limit)  # the limit is the process's; others find it as it was
        if isinstance(found, list):
            is_blank = not found or (len(names) > 1 and lines.hold_only(delimiter))
            while len(found) > len(names) and not found[-1].strip():
                found.pop()
            if lines.broken:
                found = RowError("bad_unicode", "the record is not UTF-8")
            elif is_blank:
                continue
            elif len(found) != len(names):
                found = RowError("bad_row", f"found {len(found)} cells, the header names {len(names)}")
            elif found == names:  # as where tables were put one after another
                found = RowError("bad_row", "repeats the header")
            elif any("\0" in cell for cell in found):
                found = RowError("bad_row", "holds a NUL byte")
        yield lines.first, found, lines.num_bytes


# -------------------------------------------------------------------------------------------------------- cells to rows


def _with_decimal_commas(rows: Sequence[Sequence[str]], names: Sequence[str], delimiter: str) -> frozenset[int]:
    """Return the columns of numbers with a decimal comma, which only a table with another delimiter can hold.

    A column in which three digits follow every comma may as well hold thousands, and stays as it is.
    """
    found = set()
    for index in range(len(names)) if delimiter != "," else ():
        column = [row[index].strip() for row in rows if row[index].strip()]
        if is_name_of_text(names[index]) and not _NAMES_A_NUMBER.search(names[index]):
            continue
        fractions = [cell.partition(",")[2] for cell in column if "," in cell]
        if any(len(digits) != _THOUSANDS for digits in fractions) and all(map(_DECIMAL_COMMA.fullmatch, column)):
            found.add(index)
    return frozenset(found)


_THOUSANDS = 3


def _with_point(cell: str) -> str:
    return cell.strip().replace(",", ".") if _DECIMAL_COMMA.fullmatch(cell.strip()) else cell


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
        if self._ahead:
            line = self._ahead.popleft()
        else:
            found = next(self._source)
            if found is not None and self.number == 0:
                found = found.removeprefix(BYTE_ORDER_MARK)
            line = None if found is None else found.decode("utf-8", "surrogateescape") + "\n"
        self.number += 1
        self._taken.append(line)
        self.num_bytes += len(line or "")
        if line is None or self.num_bytes > MAX_LINE_BYTES:
            raise _TooLong
        try:
            line.encode("utf-8")
        except UnicodeEncodeError:  # bytes that are not UTF-8 came through as halves of surrogate pairs
            self.broken = True
        return line

    def hold_only(self, delimiter: str) -> bool:
        """Whether nothing but delimiters stands on the lines of the present record, as spreadsheets end a sheet."""
        return not any((line or "").strip(delimiter + " \t\r\n") for line in self._taken)

    def begin(self) -> None:
        """Begin a record at the next line."""
        self._taken.clear()
        self.first, self.num_bytes, self.broken = self.number + 1, 0, False

    def give_back(self) -> None:
        """Read all lines of the present record but its first once more."""
        again = self._taken[1:]
        self._ahead.extendleft(reversed(again))
        self.number -= len(again)
