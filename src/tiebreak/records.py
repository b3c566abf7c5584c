"""The nouns that stations hand to each other: messages, pairs, dropped records, tokenised pairs.

Frozen values; constructors refuse what must not exist. No I/O, no tokenizer, no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tiebreak.fingerprint import fingerprint

ROLES = ("system", "developer", "user", "assistant", "tool")


@dataclass(frozen=True)
class Message:
    """One chat message, its text untouched."""

    role: str
    content: str
    name: str | None = None
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    tool_call_id: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the message as chat templates take it; absent fields are left out."""
        optional = {"name": self.name, "tool_calls": list(self.tool_calls), "tool_call_id": self.tool_call_id}
        return {"role": self.role, "content": self.content} | {k: v for k, v in optional.items() if v}


@dataclass(frozen=True)
class Source:
    """Where a record stands: file name and line, counted from 1."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True)
class Pair:
    """A prompt and two completions, of which `chosen` is preferred over `rejected`."""

    prompt: tuple[Message, ...]
    chosen: Message
    rejected: Message
    tools: tuple[Mapping[str, Any], ...] = ()
    source: Source | None = None

    def __post_init__(self) -> None:
        if not self.prompt:
            raise ValueError("a pair needs at least one prompt message")
        if self.chosen.role != "assistant" or self.rejected.role != "assistant":
            raise ValueError("both completions are assistant messages")

    @cached_property
    def prompt_id(self) -> str:
        """Content hash of the prompt and its tools."""
        return fingerprint([[m.as_dict() for m in self.prompt], list(self.tools)])

    @cached_property
    def pair_id(self) -> str:
        """Content hash of the prompt and both completions."""
        return fingerprint([self.prompt_id, self.chosen.as_dict(), self.rejected.as_dict()])

    def as_openai(self) -> dict[str, Any]:
        """Return the pair in OpenAI's preference fine-tuning form, which `tiebreak` reads back unchanged."""
        source: dict[str, Any] = {"messages": [m.as_dict() for m in self.prompt]}
        if self.tools:
            source["tools"] = list(self.tools)
        return {
            "input": source,
            "preferred_output": [self.chosen.as_dict()],
            "non_preferred_output": [self.rejected.as_dict()],
        }


@dataclass(frozen=True)
class Dropped:
    """A record that will not be used: where it stands, a short reason code, and the finding in words."""

    source: Source
    reason: str
    detail: str

    def as_dict(self) -> dict[str, Any]:
        """Return the row of `dropped.jsonl`."""
        return {"file": self.source.file, "line": self.source.line, "reason": self.reason, "detail": self.detail}


@dataclass(frozen=True)
class TokenizedPair:
    """A pair as token ids: one prompt, two completions that each end with exactly one EOS."""

    pair_id: str
    prompt_id: str
    prompt_ids: tuple[int, ...]
    chosen_ids: tuple[int, ...]
    rejected_ids: tuple[int, ...]
    num_truncated: int = 0
    """Prompt tokens cut off at the start to fit `data.max_length`."""

    def __post_init__(self) -> None:
        if not (self.prompt_ids and self.chosen_ids and self.rejected_ids):
            raise ValueError("prompt and both completions need at least one token")
        if self.chosen_ids == self.rejected_ids:
            raise ValueError("the two completions are the same tokens")

    @property
    def num_unique_tokens(self) -> int:
        """Tokens of the prompt, counted once, and of both completions."""
        return len(self.prompt_ids) + len(self.chosen_ids) + len(self.rejected_ids)

    @property
    def longest_row(self) -> int:
        """Tokens of the longer of prompt + chosen and prompt + rejected."""
        return len(self.prompt_ids) + max(len(self.chosen_ids), len(self.rejected_ids))
