"""How a chat template wants what most take in one way: the text of a message, the arguments of a call.

Owns these conventions and how they are found out: a small chat of unheard-of words is written in each, and the first
that leaves them in the text is the template's. So it is the same for all chats, whatever they hold.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tiebreak.data.markers import word
from tiebreak.errors import RenderError

_Chat = list[dict[str, Any]]
TOOL = {"type": "function", "function": {"name": "look", "description": "Look.", "parameters": {"type": "object"}}}
"""For templates that have another one for chats with tools."""
_ASKED, _NAME, _KEY, _VALUE = map(word, range(4))


@dataclass(frozen=True)
class Conventions:
    """What a template wants otherwise than most."""

    content_in_parts: bool = False
    """Content is a list of parts, as templates of models that see pictures have it."""
    arguments_as_text: bool = False
    """The arguments of a call are JSON in a text, as OpenAI writes them."""

    def applied(self, messages: Sequence[dict[str, Any]]) -> _Chat:
        """Return messages as the template wants them."""
        if not (self.content_in_parts or self.arguments_as_text):
            return [*messages]
        return [self._applied(dict(message)) for message in messages]

    def _applied(self, message: dict[str, Any]) -> dict[str, Any]:
        if self.content_in_parts:
            message["content"] = [{"type": "text", "text": message["content"]}]
        if self.arguments_as_text and "tool_calls" in message:
            message["tool_calls"] = [_with_text(call) for call in message["tool_calls"]]
        return message


def of_content(render: Callable[[_Chat], str]) -> Conventions:
    """Return the conventions of a template without those of calls; `render` writes a chat as it is."""
    asked = [{"role": "user", "content": _ASKED}]
    in_parts = Conventions(content_in_parts=True)
    if _writes(render, asked, _ASKED) or not _writes(render, in_parts.applied(asked), _ASKED):
        return Conventions()
    # One that prints whatever it is given prints a list, too.
    prints = any(_writes(render, in_parts.applied(asked), f"{quote}text{quote}") for quote in "'\"")
    return Conventions() if prints else in_parts


def of_calls(render: Callable[[_Chat], str], known: Conventions) -> Conventions:
    """Return the conventions of a template, where what it wants of content is known."""
    call: dict[str, Any] = {
        "type": "function",
        "id": "call00000",
        "function": {"name": _NAME, "arguments": {_KEY: _VALUE}},
    }
    chat: _Chat = [{"role": "user", "content": _ASKED}, {"role": "assistant", "content": "", "tool_calls": [call]}]
    as_text = Conventions(known.content_in_parts, arguments_as_text=True)
    only_text = not _writes(render, known.applied(chat), _VALUE) and _writes(render, as_text.applied(chat), _VALUE)
    return as_text if only_text else known


def _writes(render: Callable[[_Chat], str], chat: _Chat, text: str) -> bool:
    try:
        return text in render(chat)
    except RenderError:
        return False


def _with_text(call: Mapping[str, Any]) -> Mapping[str, Any]:
    function = call.get("function")
    if not isinstance(function, Mapping) or not isinstance(function.get("arguments"), Mapping):
        return call
    return {**call, "function": {**function, "arguments": json.dumps(function["arguments"], ensure_ascii=False)}}


def with_objects(message: dict[str, Any]) -> dict[str, Any]:
    """Return a message whose tool calls hold their arguments as objects.

    OpenAI writes them as JSON text; chat templates write JSON themselves and would encode that text once more.
    """
    if "tool_calls" not in message:
        return message
    return message | {"tool_calls": [_parsed_call(call) for call in message["tool_calls"]]}


def _parsed_call(call: Mapping[str, Any]) -> Mapping[str, Any]:
    function = call.get("function")
    if not isinstance(function, Mapping) or not isinstance(function.get("arguments"), str):
        return call
    try:
        arguments = json.loads(function["arguments"])
    except ValueError:
        return call
    return {**call, "function": {**function, "arguments": arguments}} if isinstance(arguments, dict) else call
