"""The pieces that rows of every form are made of: columns, texts, messages, prompts, completions, tools.

Owns how a piece is read and what is said when it is of the wrong kind. It knows no form.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tiebreak.data.formats.form import Row, RowError
from tiebreak.records import ROLES, Message, Pair


def has_all(row: Row, columns: Sequence[str]) -> bool:
    """Whether the row has each of these columns, be it null."""
    return all(name in row for name in columns)


def column_in(row: Row, names: Sequence[str]) -> tuple[str, Any]:
    """Return the first of these columns that holds something (null is nothing), and what; else the first, and None."""
    name = next((name for name in names if row.get(name) is not None), names[0])
    return name, row.get(name)


def value_in(row: Row, names: Sequence[str]) -> Any:
    """Return what the first of these columns holds that holds something, None where none does."""
    return column_in(row, names)[1]


def split_dialogues(chosen: Sequence[Message], rejected: Sequence[Message]) -> Pair:
    """Split two whole dialogues at their last assistant turn; what comes before must be the same on both sides."""
    prompts = []
    for name, dialogue in (("chosen", chosen), ("rejected", rejected)):
        if not dialogue or dialogue[-1].role != "assistant":
            raise RowError("no_completion", f"'{name}' does not end with an assistant turn")
        prompts.append(tuple(dialogue[:-1]))
    if prompts[0] != prompts[1]:
        raise RowError("prompts_differ", "the dialogues differ before the last assistant turn")
    return Pair(prompt_of(list(prompts[0])), chosen[-1], rejected[-1])


def same_prompt(stated: Sequence[Message], found: tuple[Message, ...]) -> None:
    """Refuse a stated prompt that is not what comes before the completions."""
    if tuple(stated) not in (found, found[-len(stated) :]):
        raise RowError("prompts_differ", "'prompt' is not what comes before the last assistant turn of 'chosen'")


def with_system(value: Any, messages: Sequence[Message]) -> list[Message]:
    """Put a stated system text before messages that have no system message of their own."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return list(messages)
    if any(message.role in ("system", "developer") for message in messages):
        return list(messages)
    return [Message("system", text_of(value, "system")), *messages]


def history_of(value: Any) -> list[Message]:
    """Return earlier rounds, told as a list of [user text, assistant text], as messages."""
    rounds = value or []
    if not isinstance(rounds, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in rounds):
        raise RowError("wrong_type", f"'history' is a list of [user text, assistant text], found {kind_of(rounds)}")
    texts = [(text_of(user, "history"), text_of(assistant, "history")) for user, assistant in rounds]
    return [message for user, reply in texts for message in (Message("user", user), Message("assistant", reply))]


def completion_from(value: Any, field: str) -> Message:
    """Return a completion that is text, one assistant message, or a list of one."""
    if isinstance(value, str):
        return Message("assistant", value)
    return completion_of(messages_of([value] if isinstance(value, Mapping) else value, field), field)


def prompt_messages(value: Any) -> list[Message]:
    """Return a prompt that is text or messages as messages."""
    return [Message("user", value)] if isinstance(value, str) else messages_of(value, "prompt")


def prompt_of(messages: list[Message]) -> tuple[Message, ...]:
    """Return the messages of a prompt, of which there is at least one."""
    if not messages:
        raise RowError("no_prompt", "there is no message before the completions")
    return tuple(messages)


def completion_of(messages: list[Message], field: str) -> Message:
    """Return the one assistant message of a completion."""
    if len(messages) != 1 or messages[0].role != "assistant":
        raise RowError("no_completion", f"'{field}' is one assistant message, found roles {[m.role for m in messages]}")
    return messages[0]


def messages_of(value: Any, field: str) -> list[Message]:
    """Return a list of messages, each with a known role and text; turns that only call tools join the turn before."""
    if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
        raise RowError("wrong_type", f"'{field}' is text or a list of messages, found {kind_of(value)}")
    return turns([message_of(item, f"{field}[{index}]") for index, item in enumerate(value)])


def message_of(item: Row, field: str) -> Message:
    """Return one message, told as `role` and `content` or, as ShareGPT has it, as `from` and `value`."""
    role_key, text_key = ("from", "value") if "from" in item and "role" not in item else ("role", "content")
    role, value = item.get(role_key), item.get(text_key)
    known = SPEAKERS if role_key == "from" else CHAT_ROLES
    if not isinstance(role, str) or role not in known:
        raise RowError("unknown_role", f"{field}.{role_key} is one of {', '.join(known)}; found {role!r:.40}")
    if role in CALLING:
        return Message("assistant", "", tool_calls=told_calls(value, f"{field}.{text_key}"))
    calls = _calls_in(item, field)
    thought, value = reasoning_in(item, value, field)
    if known[role] != "assistant" and thought:
        raise RowError(
            "wrong_type", f"'{field}' has reasoning in a turn of the role {role!r}; only an assistant reasons"
        )
    text = "" if value is None and (calls or thought) else text_of(value, f"{field}.{text_key}")
    name, call_id = optional_text(item, "name"), optional_text(item, "tool_call_id")
    return Message(known[role], text, name, calls, call_id, thought)


# ShareGPT and its readers (LLaMA-Factory, Axolotl) name the speakers; ms-swift has its own names for tool turns.
CALLING = ("function_call", "tool_call")
_TOOL_ROLES = dict.fromkeys(CALLING, "assistant") | {"observation": "tool", "tool_response": "tool"}
CHAT_ROLES = {role: role for role in ROLES} | _TOOL_ROLES
SPEAKERS = {"human": "user", "gpt": "assistant"} | CHAT_ROLES


# As servers of reasoning models, and chat templates, name it; LiteLLM and OpenRouter repeat it in parts.
REASONING = ("reasoning_content", "reasoning", "thinking")
_REASONING_PARTS = ("thinking_blocks", "reasoning_details")
# What an assistant said that is neither content nor a call nor reasoning; no chat template writes it.
_UNSPOKEN = ("refusal", "audio", "tool_plan")


def reasoning_in(item: Row, content: Any, field: str) -> tuple[str, Any]:
    """Return the reasoning of a message, "" where it has none, and its content without the parts that are reasoning."""
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
        texts = [inner.get("text") if isinstance(inner, Mapping) else None for inner in told]
        return "".join(texts) if all(isinstance(text, str) for text in texts) else None
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


def json_of(text: str, field: str) -> Any:
    """Return the value of JSON text in a field."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise RowError("wrong_type", f"'{field}' is text that is not JSON") from None


def text_of(value: Any, field: str) -> str:
    """Return text, or the joined text parts of a content list."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or not value or not all(isinstance(part, Mapping) for part in value):
        raise RowError("wrong_type", f"'{field}' is text, found {kind_of(value)}")
    for index, part in enumerate(value):
        if part.get("type") != "text" or not isinstance(part.get("text"), str):
            kind = part.get("type")
            raise RowError("wrong_type", f"'{field}[{index}]' is a part of type {kind!r:.40}; only text can be used")
    return "".join(part["text"] for part in value)


def optional_text(item: Row, key: str) -> str | None:
    """Return a field that is text or absent."""
    value = item.get(key)
    if value is not None and not isinstance(value, str):
        raise RowError("wrong_type", f"'{key}' is text, found {kind_of(value)}")
    return value or None


def tools_of(value: Any) -> tuple[Mapping[str, Any], ...]:
    """Return the tools that a prompt offers, as a list or its JSON text; none where the field is absent or empty."""
    if value is None or value == "":
        return ()
    tools = json_of(value, "tools") if isinstance(value, str) else value
    if not isinstance(tools, list) or not all(isinstance(tool, Mapping) for tool in tools):
        raise RowError("wrong_type", f"'tools' is a list of objects, found {kind_of(tools)}")
    return tuple(tools)


def kind_of(value: Any) -> str:
    """Return what a value is, in words for people."""
    names = {dict: "an object", list: "a list", str: "text", bool: "true/false", int: "a number", float: "a number"}
    return "nothing" if value is None else names.get(type(value), type(value).__name__)


def shown(value: Any) -> str:
    """Return a value as a message shows it: text and numbers cut short, of anything else its kind."""
    return repr(value)[:40] if isinstance(value, str | int | float) else kind_of(value)


def keys_of(row: Row) -> str:
    """Return the first keys of a row, short enough for a message."""
    return f"{', '.join(map(repr, list(row)[:8]))}{'…' if len(row) > 8 else ''}"[:200]
