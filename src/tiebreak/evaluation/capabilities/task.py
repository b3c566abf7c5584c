"""What a task is: questions of one kind, and how a model is asked them.

Owns these shapes. What a kind makes of a row and of what a model says is known to that kind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tiebreak.data.render import Renderer
from tiebreak.engine.model import Model
from tiebreak.engine.scorer import Cut
from tiebreak.fingerprint import fingerprint
from tiebreak.progress import Advance
from tiebreak.records import Source


@dataclass(frozen=True)
class Item:
    """One question, prompt or text, of a task."""

    question: str
    source: Source
    choices: tuple[str, ...] = ()
    ending: str = ""
    """What is scored behind each choice, in its place."""
    right: tuple[str, ...] = ()
    """The answers that are right; of choices, the one."""

    @property
    def item_id(self) -> str:
        """The fingerprint of what is asked: the same question in another file, or at another place, is the same."""
        return fingerprint([self.question, self.choices, self.ending, self.right])

    def as_dict(self) -> dict[str, Any]:
        """Return what is asked for JSON; what a kind does not have is left out."""
        asked = {"question": self.question, "choices": self.choices, "ending": self.ending, "right": self.right}
        return {"item": self.item_id, "source": str(self.source)} | {name: one for name, one in asked.items() if one}


@dataclass(frozen=True)
class Said:
    """What one model made of an item: a number, and what it was read off."""

    value: float
    details: Mapping[str, Any]


@dataclass(frozen=True)
class Desk:
    """What a kind needs besides a model and its items."""

    cut: Cut
    """Groups what is scored so that each group fits in memory."""
    advance: Advance
    """Is told how many passages or chats are done."""
    kept_in: Path | None = None
    """Folder in which what is done survives a crash."""


class Kind(Protocol):
    """How items of one kind are read, put to a model, and judged."""

    name: str
    metric: str
    """What the value of an item is, in a word or two."""
    unit: str
    """As a row's: share where values lie in 0..1, nats else."""
    settings: Mapping[str, Any]
    """All that values depend on besides items and model."""

    def read(self, row: Mapping[str, Any], source: Source) -> Item:
        """Return the item that a row of data is; raises ValueError in words."""

    def ready(self, item: Item, model: Model, renderer: Renderer) -> Sequence[Any]:
        """Return what is put to the model, passages or chats; raises RenderError where that cannot be."""

    def ask(self, model: Model, items: Sequence[tuple[Item, Sequence[Any]]], desk: Desk) -> list[Said]:
        """Put items that are ready to a model; return one answer for each, in order."""


@dataclass(frozen=True)
class Task:
    """Questions of one kind under one name."""

    name: str
    kind: Kind
    items: tuple[Item, ...]
    file: str
    num_twice: int = 0
    """Questions that stood there before, which are asked once."""
    num_beyond: int = 0
    """Questions beyond the limit."""
    dropped: tuple[str, ...] = ()
    """Rows that were no question, where that is allowed: where each stands, and why."""

    @property
    def fingerprint(self) -> str:
        """What its values depend on besides the model."""
        return fingerprint([self.kind.name, dict(self.kind.settings), sorted(item.item_id for item in self.items)])
