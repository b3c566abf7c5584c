"""Rows that hold a conversation and two ways to go on: LLaMA-Factory's ShareGPT, Axolotl, ms-swift, OpenPipe.

Owns these shapes. Pure: a row in, pairs out, or RowError.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from tiebreak.data.formats.candidates import started
from tiebreak.data.formats.cells import column_in, has_all, text_of, value_in
from tiebreak.data.formats.form import Format, Pairing, Reading, Row, RowError
from tiebreak.data.formats.messages import messages_of, tools_of
from tiebreak.data.formats.pairing import against_each, pairs_of
from tiebreak.data.formats.pieces import (
    completion_from,
    completions_from,
    history_of,
    prompt_messages,
    prompt_of,
    same_prompt,
    split_dialogues,
)
from tiebreak.records import Message, Pair

CONVERSATIONS = ("conversations", "conversation", "messages")
REJECTED = ("rejected_messages", "rejected_message", "rejected_response")


def _is_axolotl(row: Row) -> bool:
    """A conversation and one message a side; sides that are whole dialogues are TRL's, which also has `messages`."""
    sides = [row.get("chosen"), row.get("rejected")]
    has_sides = all(isinstance(side, str | Mapping) or (isinstance(side, list) and len(side) == 1) for side in sides)
    return has_sides and row.get("prompt") is None and isinstance(value_in(row, CONVERSATIONS), list)


def _read_sides(row: Row, _: Pairing) -> Reading:
    """A conversation that ends with the user's turn, and the `chosen` and the `rejected` message that go on from it."""
    chosen, rejected = completion_from(row["chosen"], "chosen"), completion_from(row["rejected"], "rejected")
    value = value_in(row, CONVERSATIONS)
    messages = prompt_messages(value) if isinstance(value, str) else messages_of(value, "conversations")
    if len(messages) > 1 and messages[-1] == chosen:
        messages = messages[:-1]  # some files end the conversation with the chosen completion
    prompt = prompt_of(started(row, messages))
    return Reading((Pair(prompt, chosen, rejected, tools_of(row.get("tools"))),))


def _is_rejected_response(row: Row) -> bool:
    has_rejected = value_in(row, REJECTED) is not None
    return has_rejected and (isinstance(row.get("messages"), list) or ("query" in row and "response" in row))


def _read_rejected(row: Row, pairing: Pairing) -> Reading:
    """A conversation whose last assistant turn is chosen, and beside it what was rejected: one, or a list of texts."""
    if row.get("messages") is not None:
        dialogue = started(row, messages_of(row["messages"], "messages"))
    else:
        history_of(row.get("history"))  # text is refused: in this form it can be nothing else
        asked = started(row, [Message("user", text_of(row.get("query"), "query"))])
        dialogue = [*asked, completion_from(row.get("response"), "response")]
    name, value = column_in(row, REJECTED)
    if isinstance(value, list) and value and not all(isinstance(item, Mapping) for item in value):
        rejected = completions_from(value, name)
    else:
        messages = messages_of(value, name) if isinstance(value, list) else [completion_from(value, name)]
        if not messages:
            raise RowError("no_completion", f"'{name}' is empty")
        if len(messages) > 1:
            same_prompt(messages[:-1], tuple(dialogue[:-1]))
        rejected = messages[-1:]
    tools = tools_of(row.get("tools"))
    pair = replace(split_dialogues(dialogue, [*dialogue[:-1], rejected[0]]), tools=tools)
    if len(rejected) == 1:
        return Reading((pair,))
    return pairs_of(against_each(pair.prompt, [pair.chosen], rejected, tools), pairing)


SHAREGPT = Format(
    "sharegpt",
    "LLaMA-Factory (ShareGPT form)",
    '{"conversations": [{"from": "human", "value": …}], "chosen": {"from": "gpt", "value": …}, "rejected": {…}}',
    partial(has_all, columns=("conversations", "chosen", "rejected")),
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
