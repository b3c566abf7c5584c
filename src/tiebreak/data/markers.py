"""Words that stand nowhere else, in the place of all that a chat says: what a template writes shows in its text.

Owns what counts as a part of a chat, and how parts are exchanged for such words. What need not be written: names, ids
of calls, and the reasoning of earlier turns, which templates cut by design.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any

from tiebreak.data.breaks import BREAK
from tiebreak.data.thoughts import Mark, spoken_of

Put = Callable[[str, Any], Any]
"""Given what a part is, in words, and its text or number: what stands in its place. No words are no part."""
Chat = tuple[list[dict[str, Any]], list[Any]]
"""Messages and tools."""
Part = tuple[str, Any]
"""What it is, in words, and its text, or a number, true, false or nothing."""
REASONING = "the reasoning of a completion"
_TURNS = {
    "system": "the system message",
    "developer": "the developer message",
    "user": "a turn of the user",
    "assistant": "an earlier turn of the assistant",
    "tool": "the result of a tool",
}
_THOUGHTS = ("reasoning_content", "reasoning", "thinking")
_BLANKS = f"{BREAK} \t\r\n\f\v"
_FIRST_NUMBER = 10**6


def bare(text: str) -> str:
    """Return a text without the blanks around it, which templates trim."""
    return text.strip(_BLANKS).strip()


@lru_cache(maxsize=1024)
def word(number: int) -> str:
    """Return a word that no chat holds, of plain letters in lower case; one word is no part of another."""
    letters = "".join(string.ascii_lowercase[number // place % 26] for place in (26**3, 26**2, 26, 1))
    return f"qxz{letters}vkq"


# ---------------------------------------------------------------------------------------------------- what a chat says


def prompt_with(put: Put, messages: Sequence[Mapping[str, Any]], tools: Sequence[Any], marks: Collection[Mark]) -> Chat:
    """Return a prompt with each of its parts exchanged."""
    told = [_tool_with(put, tool) for tool in tools]
    return [_turn_with(put, message, marks) for message in messages], told


def completion_with(put: Put, message: Mapping[str, Any], marks: Collection[Mark]) -> dict[str, Any]:
    """Return a completion with each of its parts exchanged; `marks` are those around reasoning in its text."""
    changed = dict(message)
    for name in _THOUGHTS:
        if name in message:
            changed |= dict.fromkeys(_THOUGHTS, _put(put, REASONING, message[name]))
            break
    content, calls = message["content"], message.get("tool_calls") or ()
    words = "the words of a completion beside its tool calls" if calls else "the text of a completion"
    if spoken := None if changed.keys() & set(_THOUGHTS) else spoken_of(content, marks):
        begin = content[: content.index(spoken.mark.begin) + len(spoken.mark.begin)] if spoken.begins else ""
        thought, answer = _put(put, REASONING, spoken.thought), _put(put, words, spoken.answer)
        changed["content"] = f"{begin}{thought}{spoken.mark.end if spoken.ends else ''}{answer}"
    else:
        changed["content"] = _put(put, words, content)
    return _calls_with(put, changed, "the tool calls of a completion")


def _turn_with(put: Put, message: Mapping[str, Any], marks: Collection[Mark]) -> dict[str, Any]:
    role, content, changed = message["role"], message["content"], dict(message)
    for name in ("name", "tool_call_id", *_THOUGHTS):
        if name in message:
            changed[name] = put("", message[name])
    if role == "assistant" and (spoken := spoken_of(content, marks)):
        answer = content.rpartition(spoken.mark.end)[2] if spoken.ends else ""
        kept = content[: len(content) - len(answer)]
        changed["content"] = put("", kept) + _put(put, _TURNS[role], answer)
    else:
        changed["content"] = _put(put, _TURNS[role], content)
    return _calls_with(put, changed, "the tool calls of earlier turns")


def _calls_with(put: Put, message: dict[str, Any], what: str) -> dict[str, Any]:
    if message.get("tool_calls"):
        message["tool_calls"] = [_call_with(put, call, what) for call in message["tool_calls"]]
    return message


def _call_with(put: Put, call: Any, what: str) -> Any:
    function = call.get("function", call)
    if not isinstance(function, Mapping):
        return call
    changed = dict(function)
    if isinstance(function.get("name"), str):
        changed["name"] = _put(put, what, function["name"])
    if "arguments" in function:
        changed["arguments"] = _value_with(put, what, function["arguments"])
    outer = {"id": put("", call["id"])} if "id" in call else {}
    return {**call, **outer, "function": changed} if "function" in call else {**changed, **outer}


def _value_with(put: Put, what: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return {_put(put, what, key): _value_with(put, what, item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_value_with(put, what, item) for item in value]
    return _put(put, what, value)


def _tool_with(put: Put, tool: Any) -> Any:
    function = tool.get("function", tool)
    if not isinstance(function, Mapping):
        return tool
    changed = dict(function)
    for name in ("name", "description"):
        if isinstance(function.get(name), str):
            changed[name] = _put(put, "the tools", function[name])
    if "parameters" in function:
        changed["parameters"] = _schema_with(put, function["parameters"])
    return {**tool, "function": changed} if "function" in tool else changed


def _schema_with(put: Put, schema: Any) -> Any:
    """Return a JSON schema with the names of its properties, and what describes them, exchanged."""
    if isinstance(schema, list | tuple):
        return [_schema_with(put, item) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    changed = dict(schema)
    for key, value in schema.items():
        if key == "properties" and isinstance(value, Mapping):
            changed[key] = {_put(put, "the tools", name): _schema_with(put, item) for name, item in value.items()}
        elif key == "description" and isinstance(value, str):
            changed[key] = _put(put, "the tools", value)
        elif key in ("items", "anyOf", "oneOf", "allOf"):
            changed[key] = _schema_with(put, value)
    return changed


def _put(put: Put, what: str, value: Any) -> Any:
    return value if isinstance(value, str) and not bare(value) else put(what, value)


# ------------------------------------------------------------------------------------------- what stands in their place


def parts_of(visit: Callable[[Put], Any]) -> list[Part]:
    """Return the parts of a chat in their order; `visit` is one of the functions above with all but the first given."""
    return marked(visit)[1]


def marked(visit: Callable[[Put], Any], start: int = 0) -> tuple[Any, list[Part]]:
    """Return a chat with a word or number of its own for each part, and the parts in their order.

    Two chats that differ only in what they say become the same chat. The words are those from `start` on.
    """
    parts: list[Part] = []
    others: dict[Any, str] = {}

    def mark(what: str, value: Any) -> Any:
        if not what:
            return others.setdefault(value, f"call{len(others):05}") if value else value
        parts.append((what, value))
        number = start + len(parts) - 1
        return word(number) if isinstance(value, str) else _FIRST_NUMBER + number

    return visit(mark), parts


def is_written(text: str, number: int, part: Part) -> bool:
    """Whether the word of a part is in a text, whatever its case there."""
    return (word(number) if isinstance(part[1], str) else str(_FIRST_NUMBER + number)) in text


def with_one(visit: Callable[[Put], Any], index: int) -> Any:
    """Return a chat with one part exchanged for a word, and the others as they are."""
    count = -1

    def mark(what: str, value: Any) -> Any:
        nonlocal count
        count += bool(what)
        if not what or count != index:
            return value
        return word(0) if isinstance(value, str) else _FIRST_NUMBER

    return visit(mark)
