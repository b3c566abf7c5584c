"""The pieces that rows of every form are made of: columns, texts, messages, prompts, completions, tools.

Owns how a piece is read and what is said when it is of the wrong kind. It knows no form.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from tiebreak.data.formats.cells import kind_of, text_of
from tiebreak.data.formats.form import RowError
from tiebreak.data.formats.messages import ROLE_KEYS, SYSTEM_ROLES, TEXT_KEYS, messages_of
from tiebreak.records import Message, Pair


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
    """Refuse a stated prompt that is not what comes before the completions, nor how that ends or begins (Tülu 3)."""
    turns_found = tuple(message for message in found if message.role not in SYSTEM_ROLES)
    if tuple(stated) not in (found, found[-len(stated) :], turns_found[: len(stated)]):
        raise RowError("prompts_differ", "'prompt' is not what comes before the last assistant turn of 'chosen'")


def with_system(value: Any, messages: Sequence[Message]) -> list[Message]:
    """Put a stated system text, told as one or as a message, before messages that have no system message of their own.

    An empty one is as good as none.
    """
    told = value[0] if isinstance(value, list) and len(value) == 1 else value
    if isinstance(told, Mapping) and told.keys() & {"role", "from"}:
        stated = messages_of([told], "system")
        if any(message.role not in SYSTEM_ROLES for message in stated):
            raise RowError("wrong_type", f"'system' is a message of the role {stated[0].role!r}, wanted 'system'")
        value = stated[0].content if stated else None
    if value is None or (isinstance(value, str) and not value.strip()):
        return list(messages)
    if any(message.role in SYSTEM_ROLES for message in messages):
        return list(messages)
    return [Message("system", text_of(value, "system")), *messages]


def history_of(value: Any) -> list[Message]:
    """Return earlier rounds, told as messages or as a list of [user text, assistant text], as messages."""
    rounds = value or []
    if isinstance(rounds, list) and rounds and all(isinstance(item, Mapping) for item in rounds):
        return messages_of(rounds, "history")
    if not isinstance(rounds, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in rounds):
        found = kind_of(rounds)
        raise RowError(
            "wrong_type", f"'history' is a list of messages or of [user text, assistant text], found {found}"
        )
    texts = [(text_of(user, "history"), text_of(assistant, "history")) for user, assistant in rounds]
    return [message for user, reply in texts for message in (Message("user", user), Message("assistant", reply))]


def completion_from(value: Any, field: str) -> Message:
    """Return a completion that is text, one assistant message, or a list of one."""
    if isinstance(value, str):
        return Message("assistant", value)
    return completion_of(messages_of([value] if isinstance(value, Mapping) else value, field), field)


def completions_from(value: Any, field: str) -> list[Message]:
    """Return one completion, or several that are told as a list of texts or of lists of one message."""
    if isinstance(value, list) and value and not any(isinstance(item, Mapping) for item in value):
        return [completion_from(item, f"{field}[{index}]") for index, item in enumerate(value)]
    return [completion_from(value, field)]


def prompt_messages(value: Any) -> list[Message]:
    """Return a prompt that is text, a transcript in text, or messages as messages."""
    if isinstance(value, str):
        return transcript_of(value) or [Message("user", value)]
    if isinstance(value, Mapping) and value.keys().isdisjoint(ROLE_KEYS):  # WebGPT's question, with what it is from
        name = next((name for name in ("full_text", *TEXT_KEYS) if isinstance(value.get(name), str)), TEXT_KEYS[0])
        return [Message("user", text_of(value.get(name), f"prompt.{name}"))]
    return messages_of([value] if isinstance(value, Mapping) else value, "prompt")


# Who speaks, at the start of a line: `Human:`, `### User:`, `ASSISTANT:`; or as Alpaca's template has it.
_SPOKEN = r"(?:#{2,3} ?)?(?:(Human|User|USER|Prompter)|(Assistant|ASSISTANT|AI|Bot|GPT)) ?:"
_WRITTEN = r"#{2,3} ?(?:(Instruction)|(Response)) ?:"


def transcript_of(text: str) -> list[Message]:
    """Return the turns of a prompt that is written as a transcript, without the headers; [] where it is none.

    It begins with a header of the user, ends with a bare one of the assistant, and the two take turns; all headers
    stand after blank lines where the last one does. Anything else is text.
    """
    bare = text.strip()
    if not bare.endswith(":"):
        return []
    for header in (_SPOKEN, _WRITTEN):
        last = re.search(rf"(\n{{1,40}})[ \t]{{0,40}}{header}$", bare)
        if not last or not last[3] or not re.match(header, bare):
            continue
        apart = r"\n[ \t]{0,40}\n\s{0,40}" if "\n\n" in last[1] else r"\n\s{0,40}"
        _, *parts = re.split(rf"(?:^|{apart}){header}", bare)
        users, texts = parts[0::3], parts[2::3]
        if all((user is not None) == (index % 2 == 0) for index, user in enumerate(users)):
            roles = ["user" if user else "assistant" for user in users]
            return [Message(role, said.strip()) for role, said in zip(roles[:-1], texts[:-1], strict=True)]
    return []


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
