"""JSON lines: bytes to numbered lines, and one line to a row.

Owns what a line is, and strict JSON: no key twice, no half of a surrogate pair, no NaN, no bottomless nesting.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from tiebreak.data.containers.block import MAX_LINE_BYTES, Numbered
from tiebreak.data.containers.unpacking import Damaged
from tiebreak.data.formats import RowError
from tiebreak.errors import DataError

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
MAX_DEPTH = 200
"""Lists and objects inside each other; beyond it, what can be parsed would depend on Python's own stack."""


def records(stream: Iterable[bytes], name: str) -> Iterator[Numbered]:
    """Yield each line that is not blank, with its number; one that is too long comes as a RowError."""
    number = 0
    try:
        for number, line in enumerate(split(stream), 1):
            if line is None:
                yield number, too_long(), 0
                continue
            if number == 1:
                line = line.removeprefix(BYTE_ORDER_MARK)  # noqa: PLW2901
            if line and not line.isspace():
                yield number, line, len(line)
    except Damaged as error:
        raise DataError(f"{name}:{number + 1}: the file is damaged here ({error})") from None


def too_long() -> RowError:
    """Return the finding on a record above the cap."""
    return RowError("line_too_long", f"the record is longer than {MAX_LINE_BYTES // 2**20} MiB")


def split(stream: Iterable[bytes]) -> Iterator[bytes | None]:
    """Yield the lines of a stream of chunks without line feed; None for one that is longer than the cap.

    Memory stays bounded by the cap and one chunk, however long a line is.
    """
    begun: list[bytes] = []
    num_bytes = 0
    for chunk in stream:
        *ended, rest = chunk.split(b"\n")
        for line in ended:
            yield _whole([*begun, line], num_bytes + len(line))
            begun, num_bytes = [], 0
        num_bytes += len(rest)
        if num_bytes <= MAX_LINE_BYTES:
            begun.append(rest)
        else:
            begun.clear()
    if num_bytes:
        yield _whole(begun, num_bytes)


def _whole(parts: list[bytes], num_bytes: int) -> bytes | None:
    return b"".join(parts) if num_bytes <= MAX_LINE_BYTES else None


# ------------------------------------------------------------------------------------------------------ a line to a row


def parsed(line: bytes) -> Any:
    """Return the JSON value of a line, or raise RowError with the reason why it has none."""
    try:
        return value_of(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise RowError("bad_unicode", f"byte {error.start + 1} of the record is not UTF-8") from None


def value_of(text: str) -> Any:
    """Return the value of a JSON text, strictly read, or raise RowError."""
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise RowError("bad_json", f"not JSON at column {error.colno}: {error.msg}") from None
    except RecursionError:
        raise RowError("bad_json", "nested too deeply") from None
    except ValueError:  # an integer with more digits than Python converts
        raise RowError("bad_json", "holds a number that is too long") from None
    if text.count("{") + text.count("[") > MAX_DEPTH:
        _refuse_deep(value)
    if "\\u" in text and ("\\ud" in text or "\\uD" in text):  # one search for nearly all lines
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:
            raise RowError("bad_unicode", "holds half of a surrogate pair, which is no text") from None
    return value


def _unique_keys(items: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(items)
    if len(row) < len(items):
        twice = next(key for key, count in Counter(key for key, _ in items).items() if count > 1)
        raise RowError("duplicate_key", f"key {twice!a:.60} is given twice")
    return row


def _no_constant(literal: str) -> Any:
    raise RowError("bad_json", f"{literal} is not JSON; write null where there is no number")


# One decoder for all lines: json.loads makes a new one for each call with a hook, which costs as much as parsing.
_DECODER = json.JSONDecoder(object_pairs_hook=_unique_keys, parse_constant=_no_constant)


def _refuse_deep(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        inner = [item for item in level if isinstance(item, dict | list)]
        if not inner:
            return
        level = [child for item in inner for child in (item.values() if isinstance(item, dict) else item)]
    raise RowError("bad_json", "nested too deeply")
