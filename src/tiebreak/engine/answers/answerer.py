"""Whoever answers: a model in this process, a server, or either of them remembered.

Owns what an answer is and how it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from tiebreak.records import Message, prompt_id_of


@dataclass(frozen=True)
class Chat:
    """Messages that the next answer follows."""

    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    columns: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """What else its row says, for functions that rate answers; no model is shown it, and no key depends on it."""
    is_text: bool = field(default=False, compare=False)
    """Whether its prompt was written as one text, and not as messages."""

    @property
    def prompt_id(self) -> str:
        """Content hash of the prompt, as of a pair."""
        return prompt_id_of(self.messages, self.tools)

    @staticmethod
    def from_dict(row: Mapping[str, Any]) -> Chat:
        """Return the chat of a row with `prompt` and, where there are any, `tools`; raises KeyError or TypeError."""
        return Chat(tuple(Message.from_dict(one) for one in row["prompt"]), tuple(row.get("tools") or ()))

    def as_dict(self) -> dict[str, Any]:
        """Return the chat for JSON."""
        return {"messages": [message.as_dict() for message in self.messages], "tools": list(self.tools)}


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn; temperature 0 is greedy."""

    max_new_tokens: int
    temperature: float = 0.0
    num: int = 1
    """Answers to each chat, one after the other."""
    seed: int = 0
    """What an answer hangs on besides its chat, its number and the weights, where it is drawn."""
    top_p: float = 1.0
    """Share of the probability that tokens are drawn from, the likeliest first; 1: all of it."""

    def __post_init__(self) -> None:
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p {self.top_p}: wanted a share above 0, at most 1")

    def as_dict(self) -> dict[str, Any]:
        """Return what kept answers are keyed by; a nucleus that is all tokens is left out, as before there was one."""
        told = asdict(self)
        return told if self.top_p < 1 else {name: value for name, value in told.items() if name != "top_p"}


@dataclass(frozen=True)
class Answer:
    """What was generated: as text, and as ids without the EOS; `finished` says whether there was one."""

    text: str
    ids: tuple[int, ...]
    finished: bool


Done = Callable[[Sequence[tuple[int, Answer]]], None]
"""Is told answers as they are made, all of a chat at once, with their places in what is returned."""


def nothing(_: Sequence[tuple[int, Answer]]) -> None:
    """Take no notice."""


class Answerer(Protocol):
    """Answers chats."""

    @property
    def identity(self) -> str:
        """What answers depend on besides chat and sampling, as a fingerprint."""

    def answer(self, chats: Sequence[Chat], sampling: Sampling, done: Done = nothing) -> list[Answer]:
        """Return `sampling.num` answers for each chat, chat after chat; `done` is told chats as they are made."""
