"""Rows that are pairs already, in the forms of OpenAI and of this project, HH-RLHF and TRL.

Owns these shapes. Pure: a row in, pairs out, or RowError.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from tiebreak.data.formats.annotations import ORIGIN_FIELDS, PREFERENCE_FIELDS, stated_origin, stated_preference
from tiebreak.data.formats.candidates import completion, names_of_sides, prompt_in, sides_of, started
from tiebreak.data.formats.cells import has_all, kind_of
from tiebreak.data.formats.form import Ambiguous, Format, Pairing, Reading, Row, RowError, as_options
from tiebreak.data.formats.guesses import guessed_columns, proposed_columns
from tiebreak.data.formats.messages import messages_of, tools_of
from tiebreak.data.formats.pairing import against_each, pairs_of
from tiebreak.data.formats.pieces import (
    completion_of,
    completions_from,
    prompt_messages,
    prompt_of,
    same_prompt,
    split_dialogues,
    transcript_of,
)
from tiebreak.data.formats.proportions import not_few
from tiebreak.data.formats.references import Place, completions_named, first_place, taken
from tiebreak.data.formats.verdicts import is_apart
from tiebreak.records import Message, Pair


def _is_openai(row: Row) -> bool:
    return has_all(row, ("preferred_output", "non_preferred_output"))


def _is_tiebreak(row: Row) -> bool:
    return _is_openai(row) and (
        _has_only(row.get("preference"), PREFERENCE_FIELDS) or _has_only(row.get("origin"), ORIGIN_FIELDS)
    )


def _has_only(value: Any, names: frozenset[str]) -> bool:
    return isinstance(value, Mapping) and names.issuperset(value)


def _read_openai(row: Row, _: Pairing) -> Reading:
    """OpenAI and Azure preference fine-tuning, with what tiebreak itself writes beside it."""
    source = row.get("input")
    if not isinstance(source, Mapping):
        raise RowError("wrong_type", f"'input' is an object with 'messages', found {kind_of(source)}")
    pair = Pair(
        prompt=prompt_of(messages_of(source.get("messages"), "input.messages")),
        chosen=_output(row, "preferred_output"),
        rejected=_output(row, "non_preferred_output"),
        tools=tools_of(source.get("tools")),
    )
    pair = replace(pair, prompt=tuple(started(row, pair.prompt)))
    if _has_only(row.get("preference"), PREFERENCE_FIELDS):
        pair = replace(pair, preference=stated_preference(row["preference"]))
    if _has_only(row.get("origin"), ORIGIN_FIELDS):
        pair = replace(pair, origin=stated_origin(row["origin"]))
    return Reading((pair,))


def _output(row: Row, field: str) -> Message:
    value = row[field]
    return completion_of(messages_of([value] if isinstance(value, Mapping) else value, field), field)


_HH_TURN = re.compile(r"(?:^|\r?\n\r?\n)\s{0,40}(Human|Assistant):")
_HH_ROLES = {"Human": "user", "Assistant": "assistant"}


def _is_hh(row: Row) -> bool:
    chosen, rejected, prompt = row.get("chosen"), row.get("rejected"), row.get("prompt")
    if not isinstance(chosen, str) or not isinstance(rejected, str):
        return False
    if (prompt is None or isinstance(prompt, str)) and all(map(_begins_with_a_user, (chosen, rejected))):
        return True
    return isinstance(prompt, str) and prompt.startswith("\n\nHuman:") and prompt.rstrip().endswith("\n\nAssistant:")


def _begins_with_a_user(text: str) -> bool:
    found = _HH_TURN.match(text)
    return found is not None and found[1] == "Human"


def _read_hh(row: Row, _: Pairing) -> Reading:
    """HH-RLHF (Bai et al. 2022): two dialogues as text with `\\n\\nHuman:` and `\\n\\nAssistant:` before each turn.

    Their start may stand in `prompt` alone, or there as well.
    """
    start, sides = row.get("prompt") or "", (row["chosen"], row["rejected"])
    if all(map(_begins_with_a_user, sides)):
        pair = split_dialogues(*map(_hh_messages, sides))
        if start:
            same_prompt(prompt_messages(start), pair.prompt)
    else:
        pair = split_dialogues(*(_hh_messages(start + side) for side in sides))
    return Reading((replace(pair, prompt=tuple(started(row, pair.prompt)), tools=tools_of(row.get("tools"))),))


def _hh_messages(text: str) -> list[Message]:
    _, *parts = _HH_TURN.split(text)
    roles, texts = parts[0::2], parts[1::2]
    return [Message(_HH_ROLES[role], body.strip()) for role, body in zip(roles, texts, strict=True)]


def _is_named(row: Row) -> bool:
    """Whether `chosen` and `rejected` each name another completion of the row, and hold no text to learn."""
    return has_all(row, ("chosen", "rejected")) and _named(row, _first_of(row)) is not None


def _named(row: Row, first: int | None) -> tuple[Place, Place] | None:
    return completions_named(row, (row.get("chosen"), row.get("rejected")), first)


def _first_of(row: Row) -> int | None:
    return first_place([(row, (row.get("chosen"), row.get("rejected")))])


def _settled_named(form: Format, rows: Sequence[Row]) -> Format:
    """Ask all rows with which number the places of their lists begin; refuse names that say the other side."""
    are_apart = [_says_other_side(row) for row in rows if has_all(row, ("chosen", "rejected"))]
    if not_few(are_apart):
        raise Ambiguous(
            f"'chosen' and 'rejected' hold words that are the name of one side and the word for the other in "
            f"{sum(are_apart)} of {len(are_apart)} rows; write the names of the columns that they mean in their place"
        )
    first = first_place([(row, (row["chosen"], row["rejected"])) for row in rows if _is_named(row)])
    return replace(
        form,
        read=partial(_read_named, first=first),
        why=partial(_why_named, first=first),
        matches=partial(has_all, columns=("chosen", "rejected")),
    )


def _says_other_side(row: Row) -> bool:
    sides = sides_of(row)
    words = names_of_sides(row, sides) if sides else {}
    return any(is_apart(row[name], words) for name in ("chosen", "rejected"))


def _read_named(row: Row, _: Pairing, first: int | None = None) -> Reading:
    """Completions in columns of their own, in a list or an object; `chosen` and `rejected` say which is which."""
    named = _named(row, _first_of(row) if first is None else first)
    if named is None:
        raise RowError("wrong_type", "'chosen' and 'rejected' each name one of the row's completions")
    return Reading((Pair(prompt_in(row), *taken(row, named), tools_of(row.get("tools"))),))


def _why_named(row: Row, first: int | None = None) -> str:
    named = _named(row, _first_of(row) if first is None else first)
    return f"chosen names {named[0][0]}" if named else ""


def _is_trl(row: Row) -> bool:
    if not has_all(row, ("chosen", "rejected")):
        return False
    is_text = isinstance(row["chosen"], str) and isinstance(row["rejected"], str)
    return not is_text or row.get("prompt") is not None or guessed_columns(row) is None


def _read_trl(row: Row, pairing: Pairing) -> Reading:
    """TRL: `prompt`, `chosen`, `rejected` as text or messages; without a prompt, dialogues that share their start.

    A side may be a list of texts: each chosen one is better than each rejected one.
    """
    tools, sides = tools_of(row.get("tools")), [row[name] for name in ("chosen", "rejected")]
    are_messages = [
        isinstance(side, Mapping) or (isinstance(side, list) and any(isinstance(item, Mapping) for item in side))
        for side in sides
    ]
    if any(are_messages) and any(isinstance(side, str) for side in sides):
        raise RowError("wrong_type", "'chosen' and 'rejected' are of different types")
    if any(are_messages):
        pair = _message_pair(row)
        return Reading((replace(pair, prompt=tuple(started(row, pair.prompt)), tools=tools),))
    chosen, rejected = (completions_from(side, name) for side, name in zip(sides, ("chosen", "rejected"), strict=True))
    _check_alternatives(chosen, rejected)
    if row.get("prompt") is None:
        start = as_options(proposed_columns(row))
        raise RowError("no_prompt", f"text in 'chosen' and 'rejected' needs a 'prompt'; to name its column: {start}")
    messages = prompt_messages(row["prompt"])
    if isinstance(row["prompt"], str) and transcript_of(row["prompt"]):  # a blank after the header is no completion's
        chosen, rejected = ([replace(side, content=side.content.strip()) for side in one] for one in (chosen, rejected))
    begun = next((row[name] for name in PREFIXES if isinstance(row.get(name), str)), "")
    chosen, rejected = ([replace(side, content=begun + side.content) for side in one] for one in (chosen, rejected))
    prompt = prompt_of(started(row, messages))
    if len(chosen) == len(rejected) == 1:
        return Reading((Pair(prompt, chosen[0], rejected[0], tools),))
    return pairs_of(against_each(prompt, chosen, rejected, tools), pairing)


def _check_alternatives(chosen: Sequence[Message], rejected: Sequence[Message]) -> None:
    """Refuse lists of texts of which one is on both sides: the steps of one answer, or no alternatives."""
    if max(len(chosen), len(rejected)) < 2 or not any(text in rejected for text in chosen):
        return
    if chosen[0] == rejected[0]:
        raise RowError(
            "wrong_type",
            "'chosen' and 'rejected' are lists that begin alike: steps of one answer each (join them to one text; of "
            "two: prefix=chosen.0 chosen=chosen.1 rejected=rejected.1), or alternatives (leave out what both hold)",
        )
    raise RowError("identical", "a text stands on both sides, in lists of which each chosen one is the better")


PREFIXES = ("initial_reason_steps",)
"""What both completions begin with: the steps that Step-DPO (Lai et al. 2024) gives before the step that differs."""


def _message_pair(row: Row) -> Pair:
    """Return the pair of two sides that go on from a stated prompt, or are whole dialogues, which may repeat it."""
    prompt = row.get("prompt")
    chosen, rejected = (
        messages_of(row[name], name) if isinstance(row[name], list) else [completion(row[name], name)]
        for name in ("chosen", "rejected")
    )
    stated = [] if prompt is None else prompt_messages(prompt)
    if stated and len(chosen) <= 1 and len(rejected) <= 1:
        return Pair(tuple(stated), completion_of(chosen, "chosen"), completion_of(rejected, "rejected"))
    begins = chosen[0].role if chosen else None
    if stated and begins == "assistant" and stated[-1].role in ("user", "tool"):
        pair = split_dialogues([*stated, *chosen], [*stated, *rejected])
    else:
        pair = split_dialogues(chosen, rejected)
        if stated:
            same_prompt(stated, pair.prompt)
    return pair


TIEBREAK = Format(
    "tiebreak",
    "what tiebreak writes: OpenAI's form, with preference and origin",
    '{"input": {"messages": […]}, "preferred_output": […], "non_preferred_output": […], "preference": {…}}',
    _is_tiebreak,
    _read_openai,
)
OPENAI = Format(
    "openai",
    "OpenAI, Azure, Together, Fireworks",
    '{"input": {"messages": […]}, "preferred_output": […], "non_preferred_output": […]}',
    _is_openai,
    _read_openai,
)
HH = Format(
    "hh", "Anthropic HH-RLHF", '{"chosen": "\\n\\nHuman: … \\n\\nAssistant: …", "rejected": …}', _is_hh, _read_hh
)
NAMED = Format(
    "named_sides",
    "two completions, and chosen and rejected name theirs",
    '{"prompt": …, "response_a": …, "response_b": …, "chosen": "A", "rejected": "B"}',
    _is_named,
    _read_named,
    _settled_named,
    _why_named,
)
TRL = Format("trl", "TRL, Axolotl, Hugging Face", '{"prompt": …, "chosen": …, "rejected": …}', _is_trl, _read_trl)
