"""What every group of settings is: frozen, strict, without unknown keys, passwords and NUL.

Owns these rules alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from os.path import expanduser
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, field_validator

from tiebreak.errors import ConfigError, nearest, one_line
from tiebreak.secrecy import has_password


def _is_a_name(value: str) -> str:
    if not value.strip():
        raise ValueError("wanted a name, and an empty one is none")
    return value


Place = Annotated[str, AfterValidator(_is_a_name), AfterValidator(expanduser)]
"""What is looked for by its name: a file, a folder, a model; no shell has read it, so that ~ is made the home here."""


Store = Annotated[Place, BeforeValidator(lambda value: "off" if value is False else value)]
"""A folder in which something is remembered, auto or off, which YAML reads as false where it stands bare."""


class Section(BaseModel):
    """A frozen group of settings that refuses unknown keys and never guesses types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=())

    @field_validator("*", mode="before")
    @classmethod
    def _can_be_written_down(cls, value: Any) -> Any:
        inner = value.values() if isinstance(value, dict) else value
        texts = inner if isinstance(value, list | tuple | dict) else [value]
        if any(isinstance(text, str) and has_password(text) for text in texts):
            raise ValueError("a user or token before the host of an address would be written into the run folder")
        if any(isinstance(text, str) and "\0" in text for text in texts):
            raise ValueError("a NUL character can stand in no path and no text")
        return value


def require_known_keys(path: str, name: str, told: Any, section: type[Section], wanted: str) -> None:
    """Raise ConfigError unless what stands under a key of its own is a section, and holds only what that has."""
    if not isinstance(told, Mapping):
        raise ConfigError(f"{path}: {name}: wanted a section with {wanted}, found {one_line(repr(told), 80)}")
    if unknown := [key for key in told if key not in section.model_fields]:
        raise ConfigError(f"{path}: unknown key '{name}.{unknown[0]}'.{nearest(str(unknown[0]), section.model_fields)}")


def sections_of(annotation: Any) -> list[type[Section]]:
    """Return the sections that a field may hold: none for a value, several for a union of them."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    if get_origin(annotation) is Annotated:
        return sections_of(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [section for inner in get_args(annotation) for section in sections_of(inner)]
    return []


def regular_expression(value: str) -> str:
    """Return a regular expression that can be searched with, and that is what was meant."""
    if "\b" in value:  # what YAML reads "\b" in double quotes as, the edge of a word without them
        raise ValueError("holds a backspace (U+0008), which \\b is in double quotes; write it in single quotes")
    try:
        re.compile(value)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"not a regular expression ({error})") from None
    return value
