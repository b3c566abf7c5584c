"""What a form of row is: how it is recognised and read, and what reading gives.

Owns the words that every form shares. It knows no form.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tiebreak.records import NOTHING_STATED, Pair, Preference, Rated, Thumb

Row = Mapping[str, Any]


class RowError(Exception):
    """A row that is not a usable pair: a reason code, and the finding in words."""

    def __init__(self, reason: str, detail: str, preference: Preference = NOTHING_STATED) -> None:
        super().__init__(reason, detail, preference)
        self.reason = reason
        self.detail = detail
        self.preference = preference

    def __str__(self) -> str:
        return self.detail


class Ambiguous(Exception):  # noqa: N818 - a finding, not a slip
    """Rows of a file that admit two readings: both in words, and how to say which one is meant."""


def as_options(mapping: Mapping[str, str]) -> str:
    """Return a mapping of columns as it is typed in a shell."""
    return " ".join(f"-c {shlex.quote(f'{ours}={theirs}')}" for ours, theirs in mapping.items())


@dataclass(frozen=True)
class Pairing:
    """How several judged completions of one prompt become pairs.

    `best_worst` gives one pair a prompt; `best_second` pairs the best with the next best that it beats, `best_random`
    with one of those that it beats, chosen by a hash of the prompt; `all` gives every pair. A difference below
    `min_margin`, and one of zero, gives no pair. With `none` each completion stays on its own, good or bad: a thumb as
    it is, of what was ranked or scored the best and the worst. With `good` so do the good ones alone, and rows that say
    nothing of their completion are demonstrations.
    """

    choose: Literal["best_worst", "best_second", "best_random", "all", "none", "good"] = "best_worst"
    min_margin: float = 0.0
    turns: Literal["last", "all"] = "last"
    """Of a demonstration that is a dialogue: its last answer, or every one."""

    @property
    def keeps_apart(self) -> bool:
        """Whether no completion is held against another."""
        return self.choose in ("none", "good")


@dataclass(frozen=True)
class Reading:
    """What one row holds: pairs, completions judged on their own, comparisons that nobody won."""

    pairs: tuple[Pair, ...] = ()
    thumbs: tuple[Thumb, ...] = ()
    rated: tuple[Rated, ...] = ()
    num_ties: int = 0

    @property
    def alone(self) -> tuple[Thumb | Rated, ...]:
        """The completions that were judged without a partner."""
        return (*self.thumbs, *self.rated)


def _as_they_are(form: Format, _: Sequence[Row]) -> Format:
    return form


def _by_name(_: Row) -> str:
    return "the columns say which is which"


@dataclass(frozen=True)
class Format:
    """A form of row: its name, who uses it, an example for messages, how it is recognised and read."""

    name: str
    title: str
    example: str
    matches: Callable[[Row], bool]
    read: Callable[[Row, Pairing], Reading]
    settle: Callable[[Format, Sequence[Row]], Format] = _as_they_are
    """The form as the first rows of a file mean it together; raises Ambiguous where they admit two readings."""
    why: Callable[[Row], str] = _by_name
    """Why one side of a usable row is chosen, in words."""
    lists: frozenset[str] | None = None
    """Columns that it reads as lists or objects, where a mapping says which; else their names do."""
    mapping: tuple[tuple[str, str], ...] = ()
    """The mapping that it reads by, where it is one of columns."""
