"""Messages of every spelling: roles and speakers, content, reasoning, tool calls, the tools that a prompt offers.

Owns how one message is read and what is refused of it. It knows no form.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tiebreak.data.formats.cells import column_in, json_of, kind_of, optional_text, text_of
from tiebreak.data.formats.form import Row, RowError
from tiebreak.data.formats.media import media_in
from tiebreak.data.literals import json_of as printed_json
from tiebreak.records import ROLES, Message


def messages_of(value: Any, field: str) -> list[Message]:
    """Return a list of messages, each with a known role and text; turns that only call tools join the turn before.

    A system message without text is left out, as if nothing had been said.
    """
    if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
        raise RowError("wrong_type", f"'{field}' is text or a list of messages, found {kind_of(value)}")
    found = turns([message_of(item, f"{field}[{index}]") for index, item in enumerate(value)])
    return [message for message in found if message.role not in SYSTEM_ROLES or message.content.strip()]


def message_of(item: Row, field: str) -> Message:
    """Return one message, told as `role` and `content` or, as ShareGPT has it, as `from` and `value`."""
    role_key, text_key = (column_in(item, keys)[0] for keys in (ROLE_KEYS, TEXT_KEYS))
    told, value = item.get(role_key), item.get(text_key)
    role = told.strip().casefold() if isinstance(told, str) else ""
    known = SPEAKERS
    if role not in known:
        others = [word for word in known if word not in ROLES]
        words = f"{', '.join(ROLES)} (or {', '.join(others)})"
        raise RowError("unknown_role", f"{field}.{role_key} is one of {words}; found {told!r:.40}")
    if role in CALLING:
        return Message("assistant", "", tool_calls=told_calls(value, f"{field}.{text_key}"))
    for held in media_in(item):
        raise RowError("wrong_type", f"'{field}' has '{held}'; only text can be used")
    calls = _calls_in(item, field)
    thought, value = reasoning_in(item, value, field)
    if known[role] != "assistant" and thought:
        raise RowError(
            "wrong_type", f"'{field}' has reasoning in a turn of the role {role!r}; only an assistant reasons"
        )
    text = "" if value is None and (calls or thought) else text_of(value, f"{field}.{text_key}")
    name, call_id = optional_text(item, "name"), optional_text(item, "tool_call_id")
    return Message(known[role], text, name, calls, call_id, thought)


ROLE_KEYS = ("role", "from", "speaker")


TEXT_KEYS = ("content", "value", "text")


SYSTEM_ROLES = ("system", "developer")


# ShareGPT and its readers (LLaMA-Factory, Axolotl) name the speakers; ms-swift has its own names for tool turns,
# Gemini and Gemma call the assistant `model`, Open Assistant the user `prompter`.
CALLING = ("function_call", "tool_call")


SPEAKERS = (
    {role: role for role in ROLES}
    | dict.fromkeys(("human", "prompter"), "user")
    | dict.fromkeys(("gpt", "model", "bot", "ai", "chatbot", "chatgpt", *CALLING), "assistant")
    | dict.fromkeys(("observation", "tool_response", "function"), "tool")
)


def written_messages(text: str) -> Any:
    """Return the messages that a text is, in JSON or as Python prints them; None where it is something else."""
    text = text.strip()
    if text[-1:] not in ("]", "}", ")"):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        printed = printed_json(text)
        value = None if printed is None else json.loads(printed)
    items = [value] if isinstance(value, dict) else value if isinstance(value, list) else []
    return value if items and all(map(is_message, items)) else None


def is_message(item: Any) -> bool:
    """Whether a value is a message: somebody who is known, and something said."""
    if not isinstance(item, dict) or item.keys().isdisjoint((*TEXT_KEYS, "tool_calls")):
        return False
    role = next((item[key] for key in ROLE_KEYS if key in item), None)
    return isinstance(role, str) and role.strip().casefold() in SPEAKERS


def is_written(text: str) -> bool:
    """Whether a text is messages, or the parts of a message, written as text."""
    if text.lstrip()[:1] not in ("[", "{", "a"):
        return False
    if written_messages(text) is not None:
        return True
    if not text.lstrip().startswith("[{") or '"type"' not in text:
        return False
    try:
        parts = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return all(isinstance(part, dict) and part.get("type") == "text" and "text" in part for part in parts)


# As servers of reasoning models, and chat templates, name it; LiteLLM and OpenRouter repeat it in parts.
REASONING = ("reasoning_content", "reasoning", "thinking", "reasoning_text", "thoughts", "thought")


_REASONING_PARTS = ("thinking_blocks", "reasoning_details")


_REASONING_KEYS = frozenset((*REASONING, *_REASONING_PARTS))


# What an assistant said that is neither content nor a call nor reasoning; no chat template writes it.
_UNSPOKEN = ("refusal", "audio", "tool_plan", "function_calls", "functions")


def reasoning_in(item: Row, content: Any, field: str) -> tuple[str, Any]:
    """Return the reasoning of a message, "" where it has none, and its content without the parts that are reasoning."""
    if isinstance(content, str) and _REASONING_KEYS.isdisjoint(item):
        return "", content
    named = {name: item[name] for name in REASONING if item.get(name)}
    named |= {name: item[name] for name in _REASONING_PARTS if item.get(name) and not named}
    found = {name: _thought(value, f"{field}.{name}") for name, value in named.items()}
    if isinstance(content, list) and any(_is_thought(part) for part in content):
        found["content"] = _thought([part for part in content if _is_thought(part)], f"{field}.content")
        content = [part for part in content if not _is_thought(part)] or None
    told = {text: name for name, text in found.items() if text.strip()}
    if len(told) > 1:
        raise RowError("wrong_type", f"'{field}' tells two reasonings, in {' and '.join(map(repr, told.values()))}")
    return next(iter(told), ""), content


def _is_thought(part: Any) -> bool:
    return isinstance(part, Mapping) and str(part.get("type")).partition(".")[0] in ("thinking", "reasoning")


def _thought(value: Any, field: str) -> str:
    """Return reasoning told as text or as parts, each with its text under one of a few names."""
    if isinstance(value, str):
        return value
    texts = [_part_text(part) for part in value] if isinstance(value, list) else [None]
    if any(text is None for text in texts):
        raise RowError("wrong_type", f"'{field}' is the text of a reasoning, found {kind_of(value)}")
    return "".join(text for text in texts if text is not None)


def _part_text(part: Any) -> str | None:
    if not isinstance(part, Mapping):
        return None
    told = next((part[name] for name in ("thinking", "text", "reasoning", "content") if part.get(name)), None)
    if isinstance(told, list):  # Mistral nests parts of text
        texts = [inner.get("text") for inner in told if isinstance(inner, Mapping)]
        return "".join(map(str, texts)) if all(isinstance(text, str) for text in texts) else None
    return told if isinstance(told, str) else None


def _calls_in(item: Row, field: str) -> tuple[Mapping[str, Any], ...]:
    """Return the tool calls of a message, also in OpenAI's first form; refuses what else would be passed over."""
    for name in _UNSPOKEN:
        if item.get(name):
            raise RowError("wrong_type", f"'{field}.{name}' cannot be used; put into 'content' what is to be learned")
    calls = calls_of(item.get("tool_calls"), f"{field}.tool_calls")
    if not item.get("function_call"):
        return calls
    if calls:
        raise RowError("wrong_type", f"'{field}' has both 'tool_calls' and 'function_call'")
    return told_calls(item["function_call"], f"{field}.function_call")


def turns(messages: Sequence[Message]) -> list[Message]:
    """Join each turn that only calls tools to the assistant turn right before it, as one message does both."""
    joined: list[Message] = []
    for message in messages:
        before = joined[-1] if joined else None
        only_calls = message.tool_calls and not (message.content or message.reasoning)
        if before and before.role == message.role == "assistant" and only_calls:
            joined[-1] = replace(before, tool_calls=before.tool_calls + message.tool_calls)
        else:
            joined.append(message)
    return joined


def calls_of(value: Any, field: str) -> tuple[Mapping[str, Any], ...]:
    """Return the tool calls of a message in OpenAI's form, none where the field is absent."""
    calls = value or []
    if not isinstance(calls, list) or not all(isinstance(call, Mapping) for call in calls):
        raise RowError("wrong_type", f"{field} is a list of objects, found {kind_of(calls)}")
    return tuple(calls)


def told_calls(value: Any, field: str) -> tuple[Mapping[str, Any], ...]:
    """Return tool calls told as JSON text, `{"name": …, "arguments": …}` or a list of these, in OpenAI's form."""
    found = json_of(value, field) if isinstance(value, str) else value
    calls = found if isinstance(found, list) else [found]
    if not calls or not all(isinstance(call, Mapping) and isinstance(call.get("name"), str) for call in calls):
        raise RowError("wrong_type", f"'{field}' is JSON with the name and arguments of a tool call")
    return tuple(
        {"type": "function", "function": {"name": call["name"], "arguments": call.get("arguments", {})}}
        for call in calls
    )


def tools_of(value: Any) -> tuple[Mapping[str, Any], ...]:
    """Return the tools that a prompt offers, as a list or its JSON text; none where the field is absent or empty."""
    if value is None or value == "":
        return ()
    tools = json_of(value, "tools") if isinstance(value, str) else value
    if isinstance(tools, list):
        tools = [
            json_of(tool, f"tools[{index}]") if isinstance(tool, str) else tool for index, tool in enumerate(tools)
        ]
    if not isinstance(tools, list) or not all(isinstance(tool, Mapping) for tool in tools):
        raise RowError("wrong_type", f"'tools' is a list of objects, found {kind_of(tools)}")
    return tuple(tools)
