"""What one loss is of, as token ids: a pair, or a completion on its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

Ids = tuple[int, ...]


@runtime_checkable
class Example(Protocol):
    """What one loss is of, as token ids: a prompt, and completions that are scored; nobody here knows their sides."""

    @property
    def example_id(self) -> str:
        """Content hash."""

    @property
    def prompt_id(self) -> str:
        """Content hash of the prompt."""

    @property
    def prompt_ids(self) -> Ids:
        """At least one token."""

    @property
    def completions(self) -> tuple[Ids, ...]:
        """At least one, each of at least one token; each is scored once, however many examples it is in."""

    @property
    def weight(self) -> float:
        """Factor on the loss."""


@dataclass(frozen=True)
class TokenizedPair:
    """A pair as token ids: one prompt, two completions that each end with exactly one EOS."""

    example_id: str
    prompt_id: str
    prompt_ids: Ids
    chosen_ids: Ids
    rejected_ids: Ids
    num_truncated: int = 0
    """Prompt tokens cut off at the start to fit `data.max_length`."""
    weight: float = 1.0
    """Factor on the pair's loss."""
    soft_label: float | None = None
    margin: float | None = None
    chosen_win_rate: float | None = None
    rejected_win_rate: float | None = None
    """What a `Preference` states, for objectives that read it."""

    def __post_init__(self) -> None:
        if not (self.prompt_ids and self.chosen_ids and self.rejected_ids):
            raise ValueError("prompt and both completions need at least one token")
        if self.chosen_ids == self.rejected_ids:
            raise ValueError("the two completions are the same tokens")

    @property
    def completions(self) -> tuple[Ids, ...]:
        """Chosen, then rejected: the order in which an objective of pairs finds them again."""
        return self.chosen_ids, self.rejected_ids


@dataclass(frozen=True)
class TokenizedThumb:
    """A completion that was judged on its own, as token ids: one prompt, one completion that ends with one EOS."""

    example_id: str
    prompt_id: str
    prompt_ids: Ids
    completion_ids: Ids
    liked: bool
    num_truncated: int = 0
    """Prompt tokens cut off at the start to fit `data.max_length`."""
    weight: float = 1.0
    """Factor on its loss."""

    def __post_init__(self) -> None:
        if not (self.prompt_ids and self.completion_ids):
            raise ValueError("prompt and completion need at least one token")

    @property
    def completions(self) -> tuple[Ids, ...]:
        """The one."""
        return (self.completion_ids,)


Tokenized = TokenizedPair | TokenizedThumb


def num_unique_tokens(example: Example) -> int:
    """Return the tokens of the prompt, counted once, and of all completions."""
    return len(example.prompt_ids) + sum(map(len, example.completions))


def longest_row(example: Example) -> int:
    """Return the tokens of the prompt with its longest completion."""
    return len(example.prompt_ids) + max(map(len, example.completions))


def unit_of(examples: Sequence[Example]) -> str:
    """Return what examples are called: pairs, or completions where each stands on its own."""
    return "completions" if len(examples) and len(examples[0].completions) == 1 else "pairs"
