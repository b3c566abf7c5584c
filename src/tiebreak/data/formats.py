"""How a parsed row becomes a pair: one pure function for each form that people have.

Owns the shapes of rows. It knows nothing of files, tokenizers or models. A row that cannot be used raises `RowError`
with a short reason code that reports count.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from tiebreak.records import ROLES, Message, Pair, Source

Row = Mapping[str, Any]


class RowError(Exception):
    """A row that is not a usable pair: a reason code, and the finding in words."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True)
class Format:
    """A form of row: its name, an example for error messages, how it is recognised and read."""

    name: str
    example: str
    matches: Callable[[Row], bool]
    read: Callable[[Row], Pair]


def read_row(row: Any, form: Format, source: Source) -> Pair:
    """Return the pair of one parsed row, or raise RowError."""
    if not isinstance(row, Mapping):
        raise RowError("not_an_object", f"a row is a JSON object, found {_kind(row)}")
    if not form.matches(row):
        raise RowError("wrong_format", f"not in the '{form.name}' form of the file: keys {_keys(row)}")
    pair = form.read(row)
    _check(pair)
    return Pair(pair.prompt, pair.chosen, pair.rejected, pair.tools, source)


def detect(row: Any) -> Format | None:
    """Return the form whose keys the row has, or None."""
    if not isinstance(row, Mapping):
        return None
    return next((form for form in FORMATS.values() if form.matches(row)), None)


# ------------------------------------------------------------------------------------------------------------ the forms


def _is_openai(row: Row) -> bool:
    return "preferred_output" in row and "non_preferred_output" in row


def _read_openai(row: Row) -> Pair:
    """OpenAI and Azure preference fine-tuning: `input.messages` with `tools`, two lists of output messages."""
    source = row.get("input")
    if not isinstance(source, Mapping):
        raise RowError("wrong_type", f"'input' is an object with 'messages', found {_kind(source)}")
    return Pair(
        prompt=_prompt(_messages(source.get("messages"), "input.messages")),
        chosen=_completion(_messages(row["preferred_output"], "preferred_output"), "preferred_output"),
        rejected=_completion(_messages(row["non_preferred_output"], "non_preferred_output"), "non_preferred_output"),
        tools=_tools(source.get("tools")),
    )


_HH_TURN = re.compile(r"\n\n(Human|Assistant):")
_HH_ROLES = {"Human": "user", "Assistant": "assistant"}


def _is_hh(row: Row) -> bool:
    texts = [row.get("chosen"), row.get("rejected")]
    return "prompt" not in row and all(isinstance(text, str) and _HH_TURN.match(text) for text in texts)


def _read_hh(row: Row) -> Pair:
    """HH-RLHF (Bai et al. 2022): two dialogues as text with `\\n\\nHuman:` and `\\n\\nAssistant:` before each turn."""
    return _split_dialogues(_hh_messages(row["chosen"]), _hh_messages(row["rejected"]))


def _hh_messages(text: str) -> list[Message]:
    _, *parts = _HH_TURN.split(text)
    roles, texts = parts[0::2], parts[1::2]
    return [Message(_HH_ROLES[role], body.strip()) for role, body in zip(roles, texts, strict=True)]


def _is_trl(row: Row) -> bool:
    return "chosen" in row and "rejected" in row


def _read_trl(row: Row) -> Pair:
    """TRL: `prompt`, `chosen`, `rejected` as text or messages; without a prompt, dialogues that share their start."""
    tools, prompt = _tools(row.get("tools")), row.get("prompt")
    if isinstance(row["chosen"], str) != isinstance(row["rejected"], str):
        raise RowError("wrong_type", "'chosen' and 'rejected' are of different types")
    if isinstance(row["chosen"], str):
        if prompt is None:
            raise RowError("no_prompt", "plain text 'chosen' and 'rejected' need a 'prompt'")
        chosen, rejected = Message("assistant", row["chosen"]), Message("assistant", _text(row["rejected"], "rejected"))
        return Pair(_prompt(_prompt_messages(prompt)), chosen, rejected, tools)
    sides = _messages(row["chosen"], "chosen"), _messages(row["rejected"], "rejected")
    if prompt is None or any(len(side) > 1 for side in sides):
        pair = _split_dialogues(*sides)
        _same_prompt(prompt, pair.prompt)
        return Pair(pair.prompt, pair.chosen, pair.rejected, tools)
    chosen, rejected = _completion(sides[0], "chosen"), _completion(sides[1], "rejected")
    return Pair(_prompt(_prompt_messages(prompt)), chosen, rejected, tools)


FORMATS: dict[str, Format] = {
    form.name: form
    for form in (
        Format("openai", '{"input": {"messages": […]}, "preferred_output": […], …}', _is_openai, _read_openai),
        Format("hh", '{"chosen": "\\n\\nHuman: … \\n\\nAssistant: …", "rejected": …}', _is_hh, _read_hh),
        Format("trl", '{"prompt": …, "chosen": …, "rejected": …}', _is_trl, _read_trl),
    )
}


# ------------------------------------------------------------------------------------------------------- shared pieces


def _split_dialogues(chosen: Sequence[Message], rejected: Sequence[Message]) -> Pair:
    """Split two whole dialogues at their last assistant turn; what comes before must be the same on both sides."""
    prompts = []
    for name, dialogue in (("chosen", chosen), ("rejected", rejected)):
        if not dialogue or dialogue[-1].role != "assistant":
            raise RowError("no_completion", f"'{name}' does not end with an assistant turn")
        prompts.append(tuple(dialogue[:-1]))
    if prompts[0] != prompts[1]:
        raise RowError("prompts_differ", "the dialogues differ before the last assistant turn")
    return Pair(_prompt(list(prompts[0])), chosen[-1], rejected[-1])


def _same_prompt(given: Any, found: tuple[Message, ...]) -> None:
    if given is None:
        return
    stated = tuple(_prompt_messages(given))
    if stated not in (found, found[-len(stated) :]):
        raise RowError("prompts_differ", "'prompt' is not what comes before the last assistant turn of 'chosen'")


def _prompt_messages(value: Any) -> list[Message]:
    return [Message("user", value)] if isinstance(value, str) else _messages(value, "prompt")


def _prompt(messages: list[Message]) -> tuple[Message, ...]:
    if not messages:
        raise RowError("no_prompt", "there is no message before the completions")
    return tuple(messages)


def _completion(messages: list[Message], field: str) -> Message:
    if len(messages) != 1 or messages[0].role != "assistant":
        raise RowError("no_completion", f"'{field}' is one assistant message, found roles {[m.role for m in messages]}")
    return messages[0]


def _messages(value: Any, field: str) -> list[Message]:
    if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
        raise RowError("wrong_type", f"'{field}' is text or a list of messages, found {_kind(value)}")
    return [_message(item, f"{field}[{index}]") for index, item in enumerate(value)]


def _message(item: Row, field: str) -> Message:
    role = item.get("role")
    if role not in ROLES:
        raise RowError("unknown_role", f"{field}.role is one of {', '.join(ROLES)}; found {role!r:.40}")
    calls = item.get("tool_calls") or []
    if not isinstance(calls, list) or not all(isinstance(call, Mapping) for call in calls):
        raise RowError("wrong_type", f"{field}.tool_calls is a list of objects, found {_kind(calls)}")
    content = item.get("content")
    text = "" if content is None and calls else _text(content, f"{field}.content")
    return Message(role, text, _optional(item, "name"), tuple(calls), _optional(item, "tool_call_id"))


def _text(value: Any, field: str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and all(_is_text_part(part) for part in value):
        return "".join(part["text"] for part in value)
    raise RowError("wrong_type", f"'{field}' is text, found {_kind(value)}")


def _is_text_part(part: Any) -> bool:
    return isinstance(part, Mapping) and part.get("type") == "text" and isinstance(part.get("text"), str)


def _optional(item: Row, key: str) -> str | None:
    value = item.get(key)
    if value is not None and not isinstance(value, str):
        raise RowError("wrong_type", f"'{key}' is text, found {_kind(value)}")
    return value


def _tools(value: Any) -> tuple[Mapping[str, Any], ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(tool, Mapping) for tool in value):
        raise RowError("wrong_type", f"'tools' is a list of objects, found {_kind(value)}")
    return tuple(value)


def _check(pair: Pair) -> None:
    """Refuse what no chat can be: empty turns, turns out of order, completions without text or equal to each other."""
    for name, message in (("chosen", pair.chosen), ("rejected", pair.rejected)):
        if not message.content.strip() and not message.tool_calls:
            raise RowError("empty_completion", f"'{name}' is empty")
    if pair.chosen == pair.rejected:
        raise RowError("identical", "'chosen' and 'rejected' are the same")
    if any(not message.content.strip() and not message.tool_calls for message in pair.prompt):
        raise RowError("empty_turn", "a prompt message is empty")
    _check_turns([message.role for message in pair.prompt])
    _check_text(pair)


def _check_turns(roles: list[str]) -> None:
    turns = [role for role in roles if role not in ("system", "developer")]
    if roles[: len(roles) - len(turns)] != [role for role in roles if role in ("system", "developer")]:
        raise RowError("turn_order", "a system message stands after the first turn")
    if not turns or turns[0] != "user" or turns[-1] not in ("user", "tool"):
        raise RowError(
            "turn_order", f"a prompt begins with a user turn and ends with a user or tool turn; found {turns}"
        )
    for before, after in pairwise(turns):
        if after not in _MAY_FOLLOW[before]:
            raise RowError("turn_order", f"a prompt turn '{after}' follows '{before}'")


_MAY_FOLLOW = {"user": ("assistant",), "assistant": ("user", "tool"), "tool": ("tool", "assistant", "user")}


def _check_text(pair: Pair) -> None:
    """Refuse what cannot be written again, in any field: half characters, numbers that JSON does not have."""
    try:
        json.dumps(pair.as_openai(), ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError:
        raise RowError("bad_unicode", "the text holds half of a surrogate pair, which is no character") from None
    except ValueError:
        raise RowError("bad_json", "a field holds NaN or infinity, which JSON does not have") from None
    except RecursionError:
        raise RowError("bad_json", "nested too deeply") from None


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true/false", int: "a number", float: "a number"}
    return "nothing" if value is None else names.get(type(value), type(value).__name__)


def _keys(row: Row) -> str:
    return f"{', '.join(map(repr, list(row)[:8]))}{'…' if len(row) > 8 else ''}"[:200]
