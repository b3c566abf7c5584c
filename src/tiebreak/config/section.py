"""What every group of settings is: frozen, strict, without unknown keys and without passwords.

Owns these rules alone.
"""

from __future__ import annotations

from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, field_validator

from tiebreak.secrecy import has_password


class Section(BaseModel):
    """A frozen group of settings that refuses unknown keys and never guesses types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=())

    @field_validator("*", mode="before")
    @classmethod
    def _holds_no_password(cls, value: Any) -> Any:
        texts = value if isinstance(value, list | tuple) else [value]
        if any(isinstance(text, str) and has_password(text) for text in texts):
            raise ValueError("a user or token before the host of an address would be written into the run folder")
        return value


def section_of(annotation: Any) -> type[Section] | None:
    """Return the section that a field holds, where it holds one."""
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, Section):
            return candidate
    return None
