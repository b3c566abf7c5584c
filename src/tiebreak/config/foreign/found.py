"""What a configuration of another trainer says, as it is read: settings by name, and what could not be read;
and a setting of ours that comes of it.

Owns how a value is shown in a few characters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from reprlib import Repr
from typing import Any

from tiebreak.config.yaml_text import write_yaml
from tiebreak.errors import one_line
from tiebreak.secrecy import masked, secrets_of

COMPUTED = object()
"""Stands for a value that only running the code would give."""
_BRIEFLY = Repr()
_BRIEFLY.maxstring = _BRIEFLY.maxother = 60


@dataclass(frozen=True)
class Line:
    """A setting of ours with its value, and where that comes from."""

    key: str
    value: Any
    origin: str
    theirs: str = ""
    """The one setting that it is taken from, where it is one."""


@dataclass(frozen=True)
class Foreign:
    """What a configuration says: settings by their names, and the words around them that tell whose it is."""

    settings: Mapping[str, Any]
    words: frozenset[str]
    unread: Mapping[str, str] = field(default_factory=dict)
    """What else stands there, each with the reason; of a setting whose value is `COMPUTED`, why."""
    hidden: tuple[str, ...] = ()
    """What may hold more settings, and was not read."""


def shown(key: str, value: Any) -> str:
    """Return a value in a few characters; none of a secret."""
    if value is COMPUTED:
        return "…"
    if value is None or isinstance(value, bool):
        return write_yaml(value, inline=True)
    try:
        text = value if isinstance(value, str) else _BRIEFLY.repr(value)
    except ValueError:  # a whole number of thousands of digits
        text = f"a very long {type(value).__name__}"
    return masked(one_line(text), secrets_of({key: text}) if isinstance(value, str) else ())[:80]
