"""All that a browser may know of an item, and how its texts can be sent. Owns that nothing else gets there."""

from __future__ import annotations

import json
from dataclasses import dataclass

from tiebreak.records import Message


@dataclass(frozen=True)
class Showing:
    """All that a browser may know of an item."""

    id: str
    """Names this showing of this person: says nothing of the item, the side or whether it comes again."""
    number: int
    total: int
    prompt: tuple[Message, ...]
    left: str
    right: str


@dataclass(frozen=True)
class Draft:
    """What was said beside a choice that was taken back, so that nobody writes it anew."""

    showing: str
    tags: tuple[str, ...]
    note: str
    reason: str


def said(message: Message) -> str:
    """Return what a message of a prompt says, its calls of tools among it."""
    calls = [json.dumps(dict(call), ensure_ascii=False) for call in message.tool_calls]
    return sayable("\n".join(text for text in (message.content, *calls) if text))


def sayable(text: str) -> str:
    """Return a text that can be sent: halves of characters, which no encoding has, become question marks."""
    return text.encode("utf-8", "replace").decode("utf-8")
