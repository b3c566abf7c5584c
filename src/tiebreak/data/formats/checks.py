"""What no chat can be, whatever form it came in: the last look at a pair before it counts as read.

Owns the refusals that hold for every form. It knows no form.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

from tiebreak.data.formats.cells import kind_of
from tiebreak.data.formats.form import Row, RowError
from tiebreak.data.formats.messages import SYSTEM_ROLES
from tiebreak.records import Message, Origin, Pair

_MEDIA = re.compile(
    r"(?!(?:has|is|num|no|with|count)_)(?:\w+[_-])?(?:image|img|picture|photo|video|audio|pixel_values)s?"
    r"(?:[_-](?:path|file|filename|url|bytes|base64)s?)?",
    re.IGNORECASE,
)
_NO_MEDIA = frozenset({"", "none", "null", "nan", "n/a", "no", "yes", "true", "false", "0", "1", "[]", "{}"})


def check_media(row: Row) -> None:
    """Refuse a row with pictures, video or sound: text alone would not be what was judged.

    A column of such a name that holds something, or one of any name that holds a file as data sets of the Hub do
    (an object with `bytes` or `path`). An empty cell is no picture.
    """
    for name, value in row.items():
        if isinstance(value, str):
            held = _is_media(name) and value.strip().casefold() not in _NO_MEDIA
        elif isinstance(value, Mapping):
            is_file = "path" in value and not value.keys().isdisjoint(("bytes", "sampling_rate"))
            held = any(value.values()) and (is_file or _is_media(name))
        else:
            held = isinstance(value, bytes | list) and _is_media(name) and any(value)
        if held:
            raise RowError("wrong_type", f"the row has '{name}' ({kind_of(value)}); only text can be used")


@lru_cache(maxsize=4096)
def _is_media(name: str) -> bool:
    return _MEDIA.fullmatch(name) is not None


def check_pair(pair: Pair) -> None:
    """Refuse what no chat can be: empty turns, turns out of order, completions without text or equal to each other."""
    for name, message in (("chosen", pair.chosen), ("rejected", pair.rejected)):
        if _is_empty(message):
            raise RowError("empty_completion", f"'{name}' is empty")
    if pair.chosen == pair.rejected:
        raise RowError("identical", "'chosen' and 'rejected' are the same")
    _check_prompt(pair.prompt)
    annotators = [vote.annotator for vote in pair.preference.votes]
    _check_text([*pair.prompt, pair.chosen, pair.rejected], pair.tools, [*_stated(pair.origin), *annotators])


def check_completion(prompt: Sequence[Message], completion: Message, tools: Sequence[Row], origin: Origin) -> None:
    """Refuse what no chat can be, in a completion that is judged on its own."""
    if _is_empty(completion):
        raise RowError("empty_completion", "the completion is empty")
    _check_prompt(prompt)
    _check_text([*prompt, completion], tools, _stated(origin))


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
