"""Whether a chat template wrote all of a chat: each part of it must have left its text.

Owns what counts as a part and how its text is known again: as it is, escaped as in JSON, or word by word where the
template arranged it anew. A text that also stands in another part must be there as often as in all of them. What need
not be written: names, ids of calls, and the reasoning of earlier turns, which templates cut by design.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tiebreak.data.thoughts import Spoken, spoken_of

Part = tuple[str, str]
"""What it is, in words, and its text."""
_REASONING = "the reasoning of a completion"
_TURNS = {
    "system": "the system message",
    "developer": "the developer message",
    "user": "a turn of the user",
    "assistant": "an earlier turn of the assistant",
    "tool": "the result of a tool",
}
_WORD = re.compile(r"\w+")


def parts_of_prompt(messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]) -> list[Part]:
    """Return what a prompt says."""
    parts = [("the tools", name) for tool in tools if (name := _name_of(tool))]
    for message in messages:
        role, content = message["role"], message["content"]
        if role == "assistant" and (spoken := spoken_of(content)):
            content = content.rpartition(spoken.mark.end)[2] if spoken.ends else ""
        parts.append((_TURNS[role], content))
        parts += [("the tool calls of earlier turns", text) for text in _texts_of_calls(message)]
    return parts


def parts_of_completion(message: Mapping[str, Any], spoken: Spoken | None) -> list[Part]:
    """Return what a completion says; `spoken` is its text taken apart, where that reasons."""
    calls, thought, answer = list(_texts_of_calls(message)), message.get("reasoning_content", ""), message["content"]
    if spoken is not None:
        thought, answer = spoken.thought, spoken.answer
    words = "the words of a completion beside its tool calls" if calls else "the text of a completion"
    return [(_REASONING, thought), (words, answer), *(("the tool calls of a completion", text) for text in calls)]


def reasoning_left_out(parts: Sequence[Part], spoken: Spoken | None, written: str, ignoring: str) -> bool:
    """Whether a completion's reasoning is not in what was written of it, or behind the mark where reasoning ends."""
    own = [part for part in parts if part[0] == _REASONING and part[1]]
    before = written.partition(spoken.mark.end)[0] if spoken and spoken.ends else written
    return left_out(own, before, ignoring) is not None


def left_out(parts: Sequence[Part], written: str, ignoring: str) -> str | None:
    """Return the first part that left no text in what was written, None where all did.

    `ignoring` holds characters at the ends of a part that are none of its text, besides blanks. Costs one search of
    `written` for all parts, where they stand in it in their order.
    """
    blanks = f"{ignoring} \t\r\n\f\v"
    told = [(what, bare) for what, text in parts if (bare := text.strip(blanks).strip())]
    at = 0
    for _, text in told:
        at = written.find(text, at)
        if at < 0:
            return _missing(told, written)
        at += len(text)
    return None


def _missing(parts: Sequence[Part], written: str) -> str | None:
    texts = [text for _, text in parts]
    lower = ""
    words: Counter[str] = Counter()
    for what, text in parts:
        # Python's own spelling of a text and both of JSON's.
        forms = {text, *(json.dumps(text, ensure_ascii=ascii_only)[1:-1] for ascii_only in (False, True))}
        needed = sum(other.count(text) for other in texts if len(other) >= len(text))
        if any(written.count(form) >= needed for form in forms):
            continue
        if not lower:
            lower = written.casefold()
            words.update(word for other in texts for word in _WORD.findall(other.casefold()))
        own = set(_WORD.findall(text.casefold()))
        if not own or any(lower.count(word) < words[word] for word in own):
            return what
    return None


def _texts_of_calls(message: Mapping[str, Any]) -> Iterator[str]:
    for call in message.get("tool_calls") or ():
        yield _name_of(call)
        function = call.get("function", call)
        yield from _leaves(function.get("arguments") if isinstance(function, Mapping) else None)


def _name_of(tool: Mapping[str, Any]) -> str:
    function = tool.get("function", tool)
    name = function.get("name") if isinstance(function, Mapping) else None
    return name if isinstance(name, str) else ""


def _leaves(value: Any) -> Iterator[str]:
    """Yield the keys and texts of arguments; numbers may be written in more than one way."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield key
            yield from _leaves(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _leaves(item)
