"""How a function is given completions: as text or as messages, as TRL gives them for prompts that are text or chats.

Owns which of the two it is where nothing is said. Nothing is guessed: a function is tried both ways, and where both
give numbers, and others, its user is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

from tiebreak.engine.answers.answerer import Answer, Chat
from tiebreak.errors import ConfigError, JudgeError, one_line
from tiebreak.evaluation.judges.judge import Rating

Form = Literal["text", "messages"]
Tried = Sequence[tuple[Chat, Answer]]
_FORMS: tuple[Form, ...] = ("text", "messages")
_FIRST = 16
"""Answers that are tried at first; sixteen times as many where these were all rated alike."""


def told_as(form: Form, chats: Sequence[Chat], texts: Sequence[str]) -> dict[str, Any]:
    """Return prompts and completions in a form; a prompt of several messages has no other one than these."""
    prompts: list[Any] = [[message.as_dict() for message in chat.messages] for chat in chats]
    if form == "messages":
        return {"prompts": prompts, "completions": [[{"role": "assistant", "content": text}] for text in texts]}
    prompts = [one[0]["content"] if len(one) == 1 else one for one in prompts]
    return {"prompts": prompts, "completions": list(texts)}


def form_for(where: str, some: Tried, rate: Callable[[Form, Tried], Sequence[Rating]]) -> Form:
    """Return the form in which a function gives numbers for answers to prompts that are text.

    One that gives equal numbers in both is given messages; it is tried on more answers as long as these are all one
    number, which says nothing. `rate` raises JudgeError where the function gives none. Raises ConfigError where both
    forms give numbers and these differ, and JudgeError where neither gives any.
    """
    num = _FIRST
    while True:
        tried, found, faults = some[:num], dict[Form, Sequence[Rating]](), dict[Form, str]()
        for form in _FORMS:
            try:
                found[form] = rate(form, tried)
            except JudgeError as error:
                faults[form] = str(error).removeprefix(f"{where}: ")
        if not found:
            raise JudgeError(f"{where}: gives no numbers: as text, {faults['text']}; as messages, {faults['messages']}")
        if len(found) == 1:
            return next(iter(found))
        for (_, answer), one, two in zip(tried, found["text"], found["messages"], strict=True):
            if one != two:
                raise ConfigError(
                    f"{where}: takes completions as text and as messages, and rates them otherwise: "
                    f"{one_line(repr(answer.text), 60)} is {one} as text and {two} as messages; say which it is made "
                    "for, judge.completions=text or judge.completions=messages"
                )
        if len(set(found["text"])) > 1 or len(tried) == len(some):
            return "messages"
        num *= _FIRST
