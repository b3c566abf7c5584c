"""Text with the fields of a row in braces: `"{goal} {sol1}"`. Nothing in it is ever run.

Owns this small language. `{a.b.0}` goes into objects and lists, and over a list of objects; `{answer|after ####}` takes
what stands behind the last `####`, `{…|before _}` what stands before the first `_`, `{…|strip}` takes blanks away from
both ends; `{{` is a brace.
"""

from __future__ import annotations

import json
import re
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

_PARTS = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_FILTERS: Mapping[str, Callable[[str, str], str]] = {
    "before": lambda text, mark: text.partition(mark)[0],
    "after": lambda text, mark: text.rpartition(mark)[2],
    "strip": lambda text, _: text.strip(),
}


@dataclass(frozen=True)
class _Field:
    """A field of a row, and what is done with its text."""

    path: str
    filters: tuple[tuple[str, str], ...]

    def of(self, row: Mapping[str, Any]) -> Any:
        value = _found(row, self.path)
        for name, mark in self.filters:
            if name != "strip" and mark not in _text(value, self.path):
                raise ValueError(f"'{self.path}' holds no {mark!r}")
            value = _FILTERS[name](_text(value, self.path), mark)
        return value


class Template:
    """A text with fields, which is checked when it is made: ValueError says in words what is wrong with it."""

    def __init__(self, text: str) -> None:
        self._parts: list[str | _Field] = []
        end = 0
        for found in _PARTS.finditer(text):
            self._parts.append(text[end : found.start()])
            end = found.end()
            if found[0] in ("{{", "}}"):
                self._parts.append(found[0][0])
            elif found[1] is None:
                raise ValueError(f"{text!r}: a brace has no other; write {found[0] * 2} for one that is meant")
            else:
                self._parts.append(_field(found[1], text))
        self._parts = [part for part in (*self._parts, text[end:]) if part != ""]

    @property
    def has_fields(self) -> bool:
        """Whether it says anything else of another row."""
        return any(isinstance(part, _Field) for part in self._parts)

    def value(self, row: Mapping[str, Any]) -> Any:
        """Return what a field holds, where there is nothing else, as it is; else a text. Raises ValueError in words."""
        match self._parts:
            case [_Field() as only]:
                return only.of(row)
        return self.text(row)

    def text(self, row: Mapping[str, Any]) -> str:
        """Return a text. Raises ValueError in words where a field is missing or holds none."""
        return "".join(part if isinstance(part, str) else _text(part.of(row), part.path) for part in self._parts)

    def texts(self, row: Mapping[str, Any]) -> list[str]:
        """Return a text for each member of the one field that holds a list, or for each key of an object."""
        held = [part if isinstance(part, str) else part.of(row) for part in self._parts]
        lists = [index for index, value in enumerate(held) if isinstance(value, list | dict)]
        if len(lists) != 1:
            raise ValueError(f"wanted one field that holds a list, found {len(lists)}")
        named = [part if isinstance(part, str) else part.path for part in self._parts]
        return [
            "".join(
                _text(member if index == lists[0] else value, name)
                for index, (value, name) in enumerate(zip(held, named, strict=True))
            )
            for member in held[lists[0]]
        ]


def shown(value: Any, most: int = 60) -> str:
    """Return any value in a few characters, for a message."""
    try:
        return reprlib.repr(value)[:most]
    except ValueError:  # a whole number of thousands of digits
        return f"a very long {type(value).__name__}"


def _field(said: str, text: str) -> _Field:
    path, *filters = said.split("|")
    if not path.strip():
        raise ValueError(f"{text!r}: braces name no field; write {{{{ and }}}} for braces that are meant")
    read = []
    for one in filters:
        name, _, mark = one.lstrip().partition(" ")
        if name not in _FILTERS or (name != "strip") != bool(mark):
            raise ValueError(f"{text!r}: behind | stands 'before TEXT', 'after TEXT' or 'strip', found {one!r}")
        read.append((name, mark))
    return _Field(path.strip(), tuple(read))


def _found(value: Any, path: str) -> Any:
    """Return what stands at a path; a field that has the whole path for its name comes first."""
    if isinstance(value, Mapping) and path in value:
        return value[path]
    first, dot, rest = path.partition(".")
    if isinstance(value, list) and all(isinstance(member, Mapping) for member in value) and not first.isdecimal():
        return [_found(member, path) for member in value]
    if isinstance(value, Mapping) and first in value:
        inner = value[first]
    elif isinstance(value, list) and first.isdecimal() and int(first[:9]) < len(value):
        inner = value[int(first[:9])]
    else:
        there = repr(", ".join(map(str, value))[:100]) if isinstance(value, Mapping) else shown(value)
        raise ValueError(f"'{path}' is missing; there is {there}")
    return _found(inner, rest) if dot else inner


def _text(value: Any, path: str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return json.dumps(value)
    raise ValueError(f"'{path}' holds no text but {shown(value)}")
