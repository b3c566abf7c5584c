"""Prompts that are to be answered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from tiebreak.records.judged import Message, Origin, Source, prompt_id_of, split_key_of


@dataclass(frozen=True)
class Asked:
    """A prompt without an answer, and what else its row says."""

    prompt: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    columns: Mapping[str, Any] = field(default_factory=dict)
    """What is no part of the prompt, for whoever rates answers."""
    is_text: bool = False
    """Whether it was written as one text, and not as messages."""
    has_answer: bool = False
    """Whether its row holds an answer, which nobody looks at."""
    source: Source | None = None
    origin: Origin = Origin()  # noqa: RUF009 - frozen

    def __post_init__(self) -> None:
        if not self.prompt:
            raise ValueError("a prompt needs at least one message")

    @cached_property
    def prompt_id(self) -> str:
        """Content hash of the prompt and its tools, as of a pair."""
        return prompt_id_of(self.prompt, self.tools)

    @property
    def split_key(self) -> str:
        """What decides on which side of a split it falls, as of a pair."""
        return split_key_of(self.prompt_id, self.origin.group)
