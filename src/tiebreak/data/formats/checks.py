"""What no chat can be, whatever form it came in: the last look at a pair before it counts as read.

Owns the refusals that hold for every form. It knows no form.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from tiebreak.data.formats.cells import kind_of
from tiebreak.data.formats.form import Row, RowError
from tiebreak.data.formats.media import media_in
from tiebreak.data.formats.messages import SYSTEM_ROLES, is_written
from tiebreak.records import Asked, Judgement, Message, Origin, Pair


def check_media(row: Row) -> None:
    """Refuse a row with pictures, video or sound: text alone would not be what was judged."""
    for name in media_in(row):
        raise RowError("wrong_type", f"the row has '{name}' ({kind_of(row[name])}); only text can be used")


def check_pair(pair: Pair) -> None:
    """Refuse what no chat can be: empty turns, turns out of order, completions without text or equal to each other."""
    for name, message in (("chosen", pair.chosen), ("rejected", pair.rejected)):
        if _is_empty(message):
            raise RowError("empty_completion", f"'{name}' is empty")
    if pair.chosen == pair.rejected:
        raise RowError("identical", "'chosen' and 'rejected' are the same")
    _check_prompt(pair.prompt)
    _check_unfolded([*pair.prompt, pair.chosen, pair.rejected])
    annotators = [vote.annotator for vote in pair.preference.votes]
    _check_text([*pair.prompt, pair.chosen, pair.rejected], pair.tools, [*_stated(pair.origin), *annotators])


def check(judged: Judgement) -> None:
    """Refuse what no chat can be, in a pair or in a completion on its own."""
    if isinstance(judged, Pair):
        check_pair(judged)
    else:
        check_completion(judged.prompt, judged.completion, judged.tools, judged.origin)


def check_completion(prompt: Sequence[Message], completion: Message, tools: Sequence[Row], origin: Origin) -> None:
    """Refuse what no chat can be, in a completion that is judged on its own."""
    if _is_empty(completion):
        raise RowError("empty_completion", "the completion is empty")
    _check_prompt(prompt)
    _check_unfolded([*prompt, completion])
    _check_text([*prompt, completion], tools, _stated(origin))


def check_asked(asked: Asked) -> None:
    """Refuse what no chat can be, in a prompt that is to be answered, and columns that cannot be written again."""
    _check_prompt(asked.prompt)
    _check_unfolded(asked.prompt)
    _check_text(asked.prompt, [*asked.tools, asked.columns], _stated(asked.origin))


def _check_unfolded(messages: Sequence[Message]) -> None:
    """Refuse messages that stand as text in a message; where a whole column is so, it has been unfolded before."""
    for message in messages:
        if is_written(message.content):
            raise RowError("wrong_type", "a text is messages written as text, and not all of its column is; unfold it")


def _stated(origin: Origin) -> list[str]:
    return [name for name in (origin.dataset, origin.licence, origin.split, origin.group) if name]


def _is_empty(message: Message) -> bool:
    return not (message.content.strip() or message.tool_calls or message.reasoning)


def _check_prompt(prompt: Sequence[Message]) -> None:
    """Refuse empty turns, turns out of order, and a tool message that answers no call: none, or none of its id."""
    if any(_is_empty(message) for message in prompt if message.role != "tool"):
        raise RowError("empty_turn", "a prompt message is empty")
    roles = [message.role for message in prompt]
    turns = [role for role in roles if role not in SYSTEM_ROLES]
    if any(role not in SYSTEM_ROLES for role in roles[: len(roles) - len(turns)]):
        raise RowError("turn_order", "a system message stands after the first turn")
    if not turns or turns[0] == "tool" or turns[-1] not in ("user", "tool"):
        raise RowError(
            "turn_order",
            "a prompt begins with a user turn or an assistant's greeting and ends with a user or tool turn; "
            f"found {turns[:8]}",
        )
    for before, after in pairwise(turns):
        if after not in _MAY_FOLLOW[before]:
            raise RowError("turn_order", f"a prompt turn '{after}' follows '{before}'")
    called: Message | None = None
    known: set[Any] = set()
    for message in prompt:
        if message.role == "assistant":
            called = message
            known.update(call["id"] for call in message.tool_calls if isinstance(call.get("id"), str))
        elif message.role == "tool" and called is not None:
            if not called.tool_calls and not any(mark in called.content for mark in _CALL_MARKS):
                raise RowError("tool_mismatch", "a tool message follows an assistant turn that calls no tool")
            if message.tool_call_id is not None and known and message.tool_call_id not in known:
                raise RowError("tool_mismatch", f"no call before it has the id {message.tool_call_id!r:.60}")


def _texts_of(message: Message) -> tuple[str | None, ...]:
    return message.content, message.reasoning, message.name, message.tool_call_id


_MAY_FOLLOW = {"user": ("assistant",), "assistant": ("user", "tool"), "tool": ("tool", "assistant", "user")}
# How models write a call as text, where a file has it that way (Hermes, Llama, Mistral, ReAct, XML).
_CALL_MARKS = ("<tool_call", "<function", "<|python_tag|>", "[TOOL_CALLS]", "Action:", "<invoke", "```")


def _check_text(messages: Sequence[Message], tools: Sequence[Row], names: Sequence[str]) -> None:
    """Refuse what cannot be written again, in any field: half characters, numbers that JSON does not have."""
    try:
        said = (text for message in messages for text in _texts_of(message))
        for text in (*said, *names):
            if text is not None:
                text.encode()
        for value in (tools, *(message.tool_calls for message in messages)):
            if value:
                json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError:
        raise RowError("bad_unicode", "the text holds half of a surrogate pair, which is no character") from None
    except ValueError:
        raise RowError("bad_json", "a field holds NaN or infinity, which JSON does not have") from None
    except RecursionError:
        raise RowError("bad_json", "nested too deeply") from None
