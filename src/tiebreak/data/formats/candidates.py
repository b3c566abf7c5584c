"""The columns of rows whose completions are judged: the prompt, the completions, their scores.

Owns the names that such columns have and what a score may look like. It knows no form.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tiebreak.data.formats.form import Row, RowError
from tiebreak.data.formats.pieces import (
    REASONING,
    column_in,
    completion_from,
    kind_of,
    optional_text,
    prompt_messages,
    prompt_of,
    reasoning_in,
    text_of,
    value_in,
    with_system,
)
from tiebreak.records import Message

PROMPTS = ("prompt", "instruction", "question", "query")
TEXTS = ("content", "text", "response", "completion", "output", "answer", "generation")
_SIDES = tuple(
    (f"{stem}{joint}{first}", f"{stem}{joint}{second}")
    for stem in ("completion", "response", "answer", "output", "generation", "reply")
    for joint in ("", "_", "-")
    for first, second in (("1", "2"), ("a", "b"), ("A", "B"))
)
_PAIRED = (
    "chosen",
    "rejected",
    "preferred_output",
    "non_preferred_output",
    "rejected_response",
    "rejected_message",
    "rejected_messages",
)
_LARGEST = 1e100  # no scale of scores goes there, and sums of scores stay finite


def is_paired(row: Row) -> bool:
    """Whether the row names its chosen or rejected completion itself; then no form of judged completions reads it."""
    return any(name in row for name in _PAIRED)


def has_prompt(row: Row) -> bool:
    """Whether the row has a column for the prompt."""
    return value_in(row, PROMPTS) is not None


def prompt_in(row: Row, names: Sequence[str] = PROMPTS) -> tuple[Message, ...]:
    """Return the prompt: text or messages; an instruction goes with its `input`, a `system` text comes first."""
    name, value = column_in(row, names)
    if value is None:
        raise RowError("no_prompt", f"none of {', '.join(names)} is there")
    messages = prompt_messages(value)
    extra = optional_text(row, "input") if name == "instruction" and isinstance(value, str) else None
    if extra and extra.strip():
        messages = [Message("user", f"{value}\n{extra}")]
    return prompt_of(with_system(system_in(row), messages))


def system_in(row: Row) -> Any:
    """Return what the row has for a system text, None where it has none."""
    return next((row[name] for name in ("system", "system_prompt") if row.get(name)), None)


def sides_of(row: Row) -> tuple[str, str] | None:
    """Return the names of the two columns that hold completion A and completion B."""
    return next(((first, second) for first, second in _SIDES if first in row and second in row), None)


def completion(value: Any, field: str) -> Message:
    """Return a completion that is text, an object with text, or one assistant message, alone or in a list."""
    if value is None:
        raise RowError("no_completion", f"'{field}' is null")
    if isinstance(value, Mapping) and not value.keys() & {"role", "from"}:
        name = next((name for name in TEXTS if name in value), TEXTS[0])
        thought, text = reasoning_in({REASONING[0]: value.get(REASONING[0])}, value.get(name), field)
        # A bare 'reasoning' beside a score may be the judge's; nothing but this name is the model's for certain.
        return Message("assistant", text_of(text, f"{field}.{name}"), reasoning=thought)
    if isinstance(value, str | Mapping | list):
        return completion_from(value, field)
    raise RowError("wrong_type", f"'{field}' is text or an assistant message, found {kind_of(value)}")


def has_text(message: Message) -> bool:
    """Whether there is something to learn from: text that is not blank, a tool call, or reasoning."""
    return bool(message.content.strip() or message.tool_calls or message.reasoning)


def score_of(value: Any) -> float | None:
    """Return a score: a number, a number as text, or true and false as 1 and 0; None where it is none of these."""
    if not isinstance(value, int | float | str) or (isinstance(value, str) and len(value) > 40):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) and abs(found) <= _LARGEST else None
