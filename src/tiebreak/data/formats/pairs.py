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
    has_all,
    kind_of,
    messages_of,
    prompt_messages,
    prompt_of,
    same_prompt,
    split_dialogues,
    tools_of,
    with_system,
)
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
    if not has_all(row, ("chosen", "rejected")):
        return False
    is_text = isinstance(row["chosen"], str) and isinstance(row["rejected"], str)
    return not is_text or row.get("prompt") is not None or guessed_columns(row) is None


def _read_trl(row: Row, _: Pairing) -> Reading:
    """TRL: `prompt`, `chosen`, `rejected` as text or messages; without a prompt, dialogues that share their start."""
    is_text = isinstance(row["chosen"], str)
    if is_text != isinstance(row["rejected"], str):
        raise RowError("wrong_type", "'chosen' and 'rejected' are of different types")
    if is_text:
        if row.get("prompt") is None:
            raise RowError("no_prompt", "plain text 'chosen' and 'rejected' need a 'prompt'; 'columns' can name it")
        prompt = prompt_of(prompt_messages(row["prompt"]))
        sides = Message("assistant", row["chosen"]), Message("assistant", row["rejected"])
        pair = Pair(prompt, *sides, tools_of(row.get("tools")))
    else:
        pair = _message_pair(row)
    if row.get("system"):
        pair = replace(pair, prompt=tuple(with_system(row["system"], pair.prompt)))
    return Reading((pair,))


def _message_pair(row: Row) -> Pair:
    """Return the pair of two sides that go on from a stated prompt, or are whole dialogues, which may repeat it."""
    tools, prompt = tools_of(row.get("tools")), row.get("prompt")
    chosen, rejected = (
        [completion_from(row[name], name)] if isinstance(row[name], Mapping) else messages_of(row[name], name)
        for name in ("chosen", "rejected")
    )
    stated = [] if prompt is None else prompt_messages(prompt)
    if stated and len(chosen) <= 1 and len(rejected) <= 1:
        return Pair(tuple(stated), completion_of(chosen, "chosen"), completion_of(rejected, "rejected"), tools)
    begins = chosen[0].role if chosen else None
    if stated and begins == "assistant" and stated[-1].role in ("user", "tool"):
        pair = split_dialogues([*stated, *chosen], [*stated, *rejected])
    else:
        pair = split_dialogues(chosen, rejected)
        if stated:
            same_prompt(stated, pair.prompt)
    return replace(pair, tools=tools)


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
