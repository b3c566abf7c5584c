"""The columns of rows whose completions are judged: the prompt, the completions, their scores.

Owns the names that such columns have and what a score may look like. It knows no form.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from tiebreak.data.formats.cells import column_in, kind_of, optional_text, text_of, value_in
from tiebreak.data.formats.form import Row, RowError
from tiebreak.data.formats.messages import REASONING, SYSTEM_ROLES, reasoning_in
from tiebreak.data.formats.pieces import completion_from, history_of, prompt_messages, prompt_of, with_system
from tiebreak.data.formats.verdicts import APART, FROM_ZERO, side_of, word_of
from tiebreak.records import Message

PROMPTS = ("prompt", "instruction", "question", "query")
SYSTEMS = ("system", "system_prompt", "system_message", "system_instruction", "system_string")
TEXTS = ("content", "text", "response", "completion", "output", "answer", "generation")
STEMS = (
    "completion", "response", "answer", "output", "generation", "reply", "candidate", "summary", "continuation",
    "translation", "argument", "text", "option", "model_output", "model_response",
)  # fmt: skip
_COUNTED = (("1", "2"), ("a", "b"), ("A", "B"), ("0", "1"))
_SIDES = {
    **{
        f"{stem}{joint}{first}": f"{stem}{joint}{second}"
        for stem in STEMS
        for joint in ("", "_", "-", " ")
        for first, second in _COUNTED
    },
    **{
        f"{first}_{stem}": f"{second}_{stem}"
        for stem in STEMS
        for first, second in (("first", "second"), ("left", "right"))
    },
}
_RANKS = {first: rank for rank, first in enumerate(_SIDES)}
MODELS = (
    ("model_a", "model_b"), ("model_1", "model_2"), ("model1", "model2"), ("model_A", "model_B"),
    ("generator_1", "generator_2"), ("model_0", "model_1"),
)  # fmt: skip
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


def are_several(value: Any) -> bool:
    """Whether a cell holds several completions, and not one that is told as messages or as parts of a text."""
    if not isinstance(value, list) or len(value) < 2:
        return False
    return all(isinstance(item, str) or (isinstance(item, Mapping) and not item.keys() & _OF_ONE) for item in value)


_OF_ONE = frozenset(("role", "from", "type"))


def has_prompt(row: Row) -> bool:
    """Whether the row has a column for the prompt."""
    return value_in(row, PROMPTS) is not None


def prompt_in(row: Row, names: Sequence[str] = PROMPTS) -> tuple[Message, ...]:
    """Return the prompt: text or messages; an instruction goes with its `input`, what `started` says comes first."""
    name, value = column_in(row, names)
    if value is None:
        raise RowError("no_prompt", f"none of {', '.join(names)} is there")
    messages = prompt_messages(value)
    extra = optional_text(row, "input") if name == "instruction" and isinstance(value, str) else None
    if extra and extra.strip():
        messages = [Message("user", f"{value}\n{extra}")]
    return prompt_of(started(row, messages))


def started(row: Row, messages: Sequence[Message]) -> list[Message]:
    """Return a prompt with the earlier rounds of the row's `history` and with its system text before it.

    The history of a prompt that tells earlier rounds itself is left alone; so is text, which may be anything.
    """
    rounds = row.get("history")
    first = [message for message in messages if message.role not in SYSTEM_ROLES]
    if isinstance(rounds, list) and len(first) == 1:
        told = len(messages) - len(first)
        messages = [*messages[:told], *history_of(rounds), *messages[told:]]
    return with_system(system_in(row), messages)


def system_in(row: Row) -> Any:
    """Return what the row has for a system text, None where it has none."""
    return next((row[name] for name in SYSTEMS if row.get(name)), None)


def sides_of(row: Row) -> tuple[str, str] | None:
    """Return the names of the two columns that hold completion A and completion B."""
    found = [name for name in row if _SIDES.get(name) in row]
    first = min(found, key=_RANKS.__getitem__, default=None)
    return None if first is None else (first, _SIDES[first])


def completions_of(row: Row) -> tuple[str, ...]:
    """Return the columns of a row's completions: the two of `sides_of`, and those after them that hold something.

    They are called alike and count on, as `response_3` and `response_c` do; () where there are no two.
    """
    sides = sides_of(row)
    if sides is None or sides[0][:-1] != sides[1][:-1]:
        return sides or ()
    stem, counter = (
        sides[0][:-1],
        "[0-9]{1,3}" if sides[0][-1].isdecimal() else "[a-z]" if sides[0][-1].islower() else "[A-Z]",
    )
    counted = [name for name in row if name.startswith(stem) and re.fullmatch(counter, name[len(stem) :])]
    later = [name for name in counted if name not in sides and row[name] not in (None, "", [], {})]
    return tuple(sorted((*sides, *later), key=lambda name: (len(name), name)))


def two_sides(row: Row) -> tuple[str, str] | None:
    """Return the names of `sides_of`; raises RowError where there are more completions than two."""
    columns = completions_of(row)
    if len(columns) > 2:
        names = ", ".join(map(repr, columns))[:200]
        raise RowError("wrong_type", f"{names} are {len(columns)} completions, and the verdict is on two")
    return sides_of(row)


def counts_from(sides: tuple[str, str]) -> int | None:
    """Return the number with which the names of two columns begin to count, None where they do not.

    A place in a list, as in a mapping's `answers.0`, is not what the file calls it.
    """
    ends = {"" if side[-2:-1] == "." else side[-1:] for side in sides}
    return 0 if ends == {"0", "1"} else 1 if ends == {"1", "2"} else None


def are_turned(sides: tuple[str, str]) -> bool:
    """Whether the names of two columns count backwards, as `response_b` and `response_a` do."""
    return tuple(map(side_of, sides)) == ("second", "first") or tuple(side[-1:] for side in sides) == ("1", "0")


def names_of_sides(row: Row, sides: tuple[str, str]) -> dict[str, str]:
    """Return which words of the row's own name its sides, as "a" and "b": columns, models behind them, their texts.

    Where the columns count from zero, so do numbers. Where a mapping names them backwards, its first is the later one
    and of the later model. `APART` begins what stands for a word that names one side, and by itself says the other.
    """
    if are_turned(sides):
        later = names_of_sides(row, (sides[1], sides[0]))
        later |= {word_of(sides[1]): "a", word_of(sides[0]): "b"}
        return {word: side[:-1] + ("b" if side[-1] == "a" else "a") for word, side in later.items()}
    models = next((names for names in MODELS if all(isinstance(row.get(name), str) for name in names)), None)
    couples = [*([(row[models[0]], row[models[1]])] if models else []), tuple(row.get(side) for side in sides)]
    named = dict(FROM_ZERO) if counts_from(sides) == 0 else {}
    named |= {word_of(column): side for column, side in zip(sides, "ab", strict=True) if column}
    for one, other in couples:
        words = word_of(one), word_of(other)
        if not all(isinstance(name, str) for name in (one, other)) or words[0] == words[1]:
            continue
        for word, side in zip(words, "ab", strict=True):
            said = named.get(word) or {"first": "a", "second": "b"}.get(side_of(word) or "", side)
            if word and side_of(word) != "tie":
                named[word] = side if said == side else f"{APART}{said[-1]}"
    return named


_SCORES = tuple(f"{before}{joint}" for before in ("score", "rating", "reward", "scores") for joint in ("", "_", "-"))


def side_scores(row: Row) -> tuple[str, ...] | None:
    """Return the columns of a score for each completion, `score_a`, `score_b` or `response_a_score`, …, numbers all.

    Of three completions or more some may have none.
    """
    columns = completions_of(row)
    own = [tuple(f"{column}{end}" for column in columns) for end in ("_score", "_rating", "_reward")]
    counters = [tuple(one[len(columns[0]) - 1 :] for one in columns)] if len(columns) > 2 else _COUNTED
    counted = [tuple(f"{before}{counter}" for counter in one) for before in _SCORES for one in counters]
    for names in (*own, *counted) if columns else ():
        scores = [score_of(row[name]) for name in names if name in row]
        if len(scores) == len(columns) and sum(score is not None for score in scores) >= 2:
            return names
    return None


def has_scores(row: Row) -> bool:
    """Whether the row has a score for each of its completions."""
    return side_scores(row) is not None


def completion(value: Any, field: str) -> Message:
    """Return a completion that is text, an object with text, or one assistant message, alone or in a list."""
    if value is None:
        raise RowError("no_completion", f"'{field}' is null")
    if isinstance(value, Mapping) and not value.keys() & {"role", "from"}:
        name = next((name for name in TEXTS if name in value), TEXTS[0])
        if isinstance(value.get(name), list) and all(
            isinstance(item, Mapping) and "role" in item for item in value[name]
        ):
            return completion_from(value[name], f"{field}.{name}")
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
