"""The cells of a row: columns by their names, texts, JSON, and what is said of a value that is something else.

Owns how a single value is read and shown. It knows no message and no form.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tiebreak.data.formats.form import Row, RowError
from tiebreak.secrecy import masked


def has_all(row: Row, columns: Sequence[str]) -> bool:
    """Whether the row has each of these columns, be it null."""
    return all(name in row for name in columns)


def column_in(row: Row, names: Sequence[str]) -> tuple[str, Any]:
    """Return the first of these columns that holds something (null is nothing), and what; else the first, and None."""
    name = next((name for name in names if row.get(name) is not None), names[0])
    return name, row.get(name)


def value_in(row: Row, names: Sequence[str]) -> Any:
    """Return what the first of these columns holds that holds something, None where none does."""
    return column_in(row, names)[1]


def json_of(text: str, field: str) -> Any:
    """Return the value of JSON text in a field."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise RowError("wrong_type", f"'{field}' is text that is not JSON") from None


def text_of(value: Any, field: str) -> str:
    """Return text, or the joined text parts of a content list."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or not value or not all(isinstance(part, Mapping) for part in value):
        raise RowError("wrong_type", f"'{field}' is text, found {kind_of(value)}")
    for index, part in enumerate(value):
        if part.get("type") != "text" or not isinstance(part.get("text"), str):
            kind = part.get("type")
            raise RowError("wrong_type", f"'{field}[{index}]' is a part of type {kind!r:.40}; only text can be used")
    return "".join(part["text"] for part in value)


def optional_text(item: Row, key: str) -> str | None:
    """Return a field that is text or absent."""
    value = item.get(key)
    if value is not None and not isinstance(value, str):
        raise RowError("wrong_type", f"'{key}' is text, found {kind_of(value)}")
    return value or None


def kind_of(value: Any) -> str:
    """Return what a value is, in words for people."""
    names = {dict: "an object", list: "a list", str: "text", bool: "true/false", int: "a number", float: "a number"}
    return "nothing" if value is None else names.get(type(value), type(value).__name__)


def shown(value: Any) -> str:
    """Return a value as a message shows it: text and numbers cut short, of anything else its kind."""
    # Masked before it is cut: half a token is not recognised.
    return masked(repr(value)[:4096])[:40] if isinstance(value, str | int | float) else kind_of(value)


def keys_of(row: Row) -> str:
    """Return the keys of a row, the first of very many, short enough for a message."""
    return f"{', '.join(map(repr, list(row)[:MAX_KEYS]))}{'…' if len(row) > MAX_KEYS else ''}"[:400]


MAX_KEYS = 30
