"""Rows that hold a conversation and two ways to go on: LLaMA-Factory's ShareGPT, Axolotl, ms-swift, OpenPipe.

Owns these shapes. Pure: a row in, pairs out, or RowError.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tiebreak.data.formats.form import Format, Pairing, Reading, Row, RowError
from tiebreak.data.formats.pieces import (
    completion_from,
    history_of,
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

CONVERSATIONS = ("conversations", "conversation", "messages")
REJECTED = ("rejected_messages", "rejected_message", "rejected_response")


def _is_sharegpt(row: Row) -> bool:
    return "conversations" in row and "chosen" in row and "rejected" in row


def _is_axolotl(row: Row) -> bool:
    """A conversation and one message a side; sides that are whole dialogues are TRL's, which also has `messages`."""
    has_sides = all(_is_one_message(row.get(side)) for side in ("chosen", "rejected"))
    return has_sides and row.get("prompt") is None and isinstance(_conversation(row), list)


def _is_one_message(value: Any) -> bool:
    return isinstance(value, str | Mapping) or (isinstance(value, list) and len(value) == 1)


def _conversation(row: Row) -> Any:
    return next((row[name] for name in CONVERSATIONS if row.get(name) is not None), None)


def _read_sides(row: Row, _: Pairing) -> Reading:
    """A conversation that ends with the user's turn, and the `chosen` and the `rejected` message that go on from it."""
    chosen, rejected = completion_from(row["chosen"], "chosen"), completion_from(row["rejected"], "rejected")
    value = _conversation(row)
    messages = prompt_messages(value) if isinstance(value, str) else messages_of(value, "conversations")
    if len(messages) > 1 and messages[-1] == chosen:
        messages = messages[:-1]  # some files end the conversation with the chosen completion
    prompt = prompt_of(with_system(row.get("system"), messages))
    return Reading((Pair(prompt, chosen, rejected, tools_of(row.get("tools"))),))


def _is_rejected_response(row: Row) -> bool:
    has_rejected = any(row.get(name) is not None for name in REJECTED)
    return has_rejected and (isinstance(row.get("messages"), list) or ("query" in row and "response" in row))


def _read_rejected(row: Row, _: Pairing) -> Reading:
    """A conversation whose last assistant turn is chosen, and beside it the one that was rejected."""
    dialogue = _chosen_dialogue(row)
    name = next(name for name in REJECTED if row.get(name) is not None)
    pair = split_dialogues(dialogue, _rejected_dialogue(row[name], name, dialogue))
    return Reading((Pair(pair.prompt, pair.chosen, pair.rejected, tools_of(row.get("tools"))),))


def _chosen_dialogue(row: Row) -> list[Message]:
    if row.get("messages") is not None:
        return with_system(row.get("system"), messages_of(row["messages"], "messages"))
    rounds = [*history_of(row.get("history")), Message("user", text_of(row.get("query"), "query"))]
    return [*with_system(row.get("system"), rounds), completion_from(row.get("response"), "response")]


def _rejected_dialogue(value: Any, field: str, chosen: list[Message]) -> list[Message]:
    if isinstance(value, str | Mapping):
        return [*chosen[:-1], completion_from(value, field)]
    messages = messages_of(value, field)
    if len(messages) == 1:
        return [*chosen[:-1], *messages]
    if not messages:
        raise RowError("no_completion", f"'{field}' is empty")
    same_prompt(messages[:-1], tuple(chosen[:-1]))
    return [*chosen[:-1], messages[-1]]


SHAREGPT = Format(
    "sharegpt",
    "LLaMA-Factory (ShareGPT form)",
    '{"conversations": [{"from": "human", "value": …}], "chosen": {"from": "gpt", "value": …}, "rejected": {…}}',
    _is_sharegpt,
    _read_sides,
)
AXOLOTL = Format(
    "axolotl",
    "Axolotl (chat_template.default), LLaMA-Factory (OpenAI form)",
    '{"messages": [{"role": "user", "content": …}], "chosen": {"role": "assistant", …}, "rejected": {…}}',
    _is_axolotl,
    _read_sides,
)
REJECTED_RESPONSE = Format(
    "rejected_response",
    "ms-swift, OpenPipe",
    '{"messages": […, {"role": "assistant", "content": …}], "rejected_response": …}',
    _is_rejected_response,
    _read_rejected,
)
