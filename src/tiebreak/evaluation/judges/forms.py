"""How a function is given completions: as text or as messages, as TRL gives them for prompts that are text or chats.

Owns which of the two it is where nothing is said: what TRL would give, text for prompts that are text, unless the
function takes messages alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

from tiebreak.engine.answers.answerer import Answer, Chat
from tiebreak.errors import JudgeError
from tiebreak.evaluation.judges.judge import Rating

Form = Literal["text", "messages"]
Tried = Sequence[tuple[Chat, Answer]]
_FORMS: tuple[Form, ...] = ("text", "messages")
_FIRST = 16
"""Answers that are tried."""


def told_as(form: Form, chats: Sequence[Chat], texts: Sequence[str]) -> dict[str, Any]:
    """Return prompts and completions in a form; a prompt of several messages has no other one than these."""
    prompts: list[Any] = [[message.as_dict() for message in chat.messages] for chat in chats]
    if form == "messages":
        return {"prompts": prompts, "completions": [[{"role": "assistant", "content": text}] for text in texts]}
    prompts = [one[0]["content"] if len(one) == 1 else one for one in prompts]
    return {"prompts": prompts, "completions": list(texts)}


def form_for(where: str, some: Tried, rate: Callable[[Form, Tried], Sequence[Rating]]) -> Form:
    """Return the form in which a function gives numbers for answers to prompts that are text.

    One that gives numbers for both is given text, as TRL does. `rate` raises JudgeError where the function gives none,
    and so does this where it gives none in either form.
    """
    faults = {}
    for form in _FORMS:
        try:
            rate(form, some[:_FIRST])
        except JudgeError as error:
            faults[form] = str(error).removeprefix(f"{where}: ")
        else:
            return form
    raise JudgeError(f"{where}: gives no numbers: as text, {faults['text']}; as messages, {faults['messages']}")
