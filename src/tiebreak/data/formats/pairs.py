"""Rows that are pairs already, in the forms of OpenAI and of this project, HH-RLHF and TRL.

Owns these shapes. Pure: a row in, pairs out, or RowError.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tiebreak.data.formats.annotations import ORIGIN_FIELDS, PREFERENCE_FIELDS, stated_origin, stated_preference
from tiebreak.data.formats.form import Format, Pairing, Reading, Row, RowError
from tiebreak.data.formats.guesses import guessed_columns
from tiebreak.data.formats.pieces import (
    completion_from,
    completion_of,
    kind_of,
    messages_of,
    prompt_messages,
    prompt_of,
    same_prompt,
    split_dialogues,
    text_of,
    tools_of,
    with_system,
)
from tiebreak.records import Message, Pair


def _is_openai(row: Row) -> bool:
    return "preferred_output" in row and "non_preferred_output" in row


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
    if _has_only(row.get("preference"), PREFERENCE_FIELDS):
        pair = replace(pair, preference=stated_preference(row["preference"]))
    if _has_only(row.get("origin"), ORIGIN_FIELDS):
        pair = replace(pair, origin=stated_origin(row["origin"]))
    return Reading((pair,))


def _output(row: Row, field: str) -> Message:
    value = row[field]
    return completion_of(messages_of([value] if isinstance(value, Mapping) else value, field), field)


_HH_TURN = re.compile(r"\n\n(Human|Assistant):")
_HH_ROLES = {"Human": "user", "Assistant": "assistant"}


def _is_hh(row: Row) -> bool:
    chosen, rejected, prompt = row.get("chosen"), row.get("rejected"), row.get("prompt")
    if not isinstance(chosen, str) or not isinstance(rejected, str):
        return False
    if prompt is None:
        return bool(_HH_TURN.match(chosen) and _HH_TURN.match(rejected))
    return isinstance(prompt, str) and prompt.startswith("\n\nHuman:") and prompt.rstrip().endswith("\n\nAssistant:")


def _read_hh(row: Row, _: Pairing) -> Reading:
    """HH-RLHF (Bai et al. 2022): two dialogues as text with `\\n\\nHuman:` and `\\n\\nAssistant:` before each turn."""
    start = row.get("prompt") or ""
    return Reading((split_dialogues(_hh_messages(start + row["chosen"]), _hh_messages(start + row["rejected"])),))


def _hh_messages(text: str) -> list[Message]:
    _, *parts = _HH_TURN.split(text)
    roles, texts = parts[0::2], parts[1::2]
    return [Message(_HH_ROLES[role], body.strip()) for role, body in zip(roles, texts, strict=True)]


def _is_trl(row: Row) -> bool:
    if "chosen" not in row or "rejected" not in row:
        return False
    is_text = isinstance(row["chosen"], str) and isinstance(row["rejected"], str)
    return not is_text or row.get("prompt") is not None or guessed_columns(row) is None


def _read_trl(row: Row, _: Pairing) -> Reading:
    """TRL: `prompt`, `chosen`, `rejected` as text or messages; without a prompt, dialogues that share their start."""
    if isinstance(row["chosen"], str) != isinstance(row["rejected"], str):
        raise RowError("wrong_type", "'chosen' and 'rejected' are of different types")
    pair = _text_pair(row) if isinstance(row["chosen"], str) else _message_pair(row)
    if row.get("system"):
        pair = replace(pair, prompt=tuple(with_system(row["system"], pair.prompt)))
    return Reading((pair,))


def _text_pair(row: Row) -> Pair:
    if row.get("prompt") is None:
        raise RowError("no_prompt", "plain text 'chosen' and 'rejected' need a 'prompt'; 'columns' can name it")
    chosen, rejected = (Message("assistant", text_of(row[name], name)) for name in ("chosen", "rejected"))
    return Pair(prompt_of(prompt_messages(row["prompt"])), chosen, rejected, tools_of(row.get("tools")))


def _message_pair(row: Row) -> Pair:
    tools, prompt = tools_of(row.get("tools")), row.get("prompt")
    chosen, rejected = (_side(row[name], name) for name in ("chosen", "rejected"))
    stated = None if prompt is None or prompt == [] else prompt_messages(prompt)
    if stated is None or len(chosen) > 1 or len(rejected) > 1:
        return replace(_dialogue_pair(stated, chosen, rejected), tools=tools)
    return Pair(prompt_of(stated), completion_of(chosen, "chosen"), completion_of(rejected, "rejected"), tools)


def _side(value: Any, field: str) -> list[Message]:
    return [completion_from(value, field)] if isinstance(value, Mapping) else messages_of(value, field)


def _dialogue_pair(stated: list[Message] | None, chosen: list[Message], rejected: list[Message]) -> Pair:
    """Both sides are whole dialogues, or go on from a stated prompt with turns that they share."""
    goes_on = stated and chosen[:1] and chosen[0].role == "assistant" and stated[-1].role in ("user", "tool")
    if stated and goes_on:
        return split_dialogues([*stated, *chosen], [*stated, *rejected])
    pair = split_dialogues(chosen, rejected)
    if stated is not None:
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
TRL = Format("trl", "TRL, Axolotl, Hugging Face", '{"prompt": …, "chosen": …, "rejected": …}', _is_trl, _read_trl)
