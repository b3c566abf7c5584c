"""What one station hands to the next: a prompt with its answers, and what a judge said of them.

Owns these rows and their form on disk. Both stand in the order of the round's prompts, one line for each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tiebreak.engine.answers.answerer import Answer, Chat
from tiebreak.records import Message


@dataclass(frozen=True)
class Answered:
    """A prompt and the answers that were drawn to it, in their order."""

    chat: Chat
    answers: tuple[Answer, ...]

    @property
    def prompt_id(self) -> str:
        """Content hash of the prompt."""
        return self.chat.prompt_id

    def as_dict(self) -> dict[str, Any]:
        """Return the row of samples.jsonl."""
        extras = {"tools": list(self.chat.tools), "columns": dict(self.chat.columns), "is_text": self.chat.is_text}
        return {
            "prompt_id": self.prompt_id,
            "prompt": [message.as_dict() for message in self.chat.messages],
            **{name: value for name, value in extras.items() if value},
            "answers": [asdict(answer) for answer in self.answers],
        }

    @staticmethod
    def from_dict(row: Mapping[str, Any]) -> Answered:
        """Return what `as_dict` wrote; raises KeyError, TypeError or ValueError where it is none."""
        messages = tuple(Message.from_dict(one) for one in row["prompt"])
        columns = dict(row.get("columns") or {})
        chat = Chat(messages, tuple(row.get("tools") or ()), columns, bool(row.get("is_text", False)))
        answers = [
            Answer(str(one["text"]), tuple(map(int, one["ids"])), bool(one["finished"])) for one in row["answers"]
        ]
        return Answered(chat, tuple(answers))


@dataclass(frozen=True)
class Verdict:
    """What a judge said of the answers to one prompt."""

    prompt_id: str
    scores: tuple[float | None, ...]
    """A number for each answer, larger is better; None where the judge did not say."""
    reasons: tuple[str, ...] = ()
    """Why comparisons or answers have no verdict, each as a reason that is counted, then a colon and more of it."""
    rates: tuple[float | None, ...] = ()
    """The mean probability of each answer to win against the others of its prompt, itself left out and equal texts
    not: a tie is one half. Empty where answers were rated."""
    num_compared: int = 0
    """Comparisons that were asked; 0 where answers were rated, each on its own."""
    num_flipped: int = 0
    """Comparisons where the order of the answers changed what the judge said."""
    wins: tuple[tuple[float | None, ...], ...] = ()
    """Where answers were compared, for each its probability to win against each of them, one half where both are the
    same text; None where nobody said, and against itself. One order of two is enough: the other is the rest of it."""

    def as_dict(self) -> dict[str, Any]:
        """Return the row of verdicts.jsonl."""
        return asdict(self)

    @staticmethod
    def from_dict(row: Mapping[str, Any]) -> Verdict:
        """Return what `as_dict` wrote; raises KeyError, TypeError or ValueError where it is none."""
        return Verdict(
            str(row["prompt_id"]),
            _numbers(row["scores"]),
            tuple(map(str, row["reasons"])),
            _numbers(row["rates"]),
            int(row["num_compared"]),
            int(row["num_flipped"]),
            tuple(_numbers(one) for one in row.get("wins", ())),
        )


def _numbers(told: Sequence[Any]) -> tuple[float | None, ...]:
    return tuple(None if one is None else float(one) for one in told)
