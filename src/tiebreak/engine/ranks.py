"""Several processes that train one policy, or one: who writes, what all of them agree on, what is added up.

Owns every place where a run would differ with the number of processes. `Alone` is a run of one process.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from torch import Tensor

from tiebreak.records import Example

E = TypeVar("E", bound=Example)


class Ranks(Protocol):
    """The processes of a run, as one of them sees them."""

    rank: int
    """Which one this is, from 0."""
    size: int
    """How many there are."""
    writes: bool
    """Whether this one writes the run's files; exactly one does."""

    def deal(self, examples: Sequence[E]) -> Sequence[E]:
        """Return the share of a step's examples that this process learns from; together they are all, each once."""

    def total(self, values: Tensor) -> Tensor:
        """Return the sum over all processes."""

    def gather(self, rows: Tensor) -> Tensor:
        """Return the rows of all processes, in the order of ranks."""

    def any(self, flag: bool) -> bool:
        """Say whether any process says so: a signal, a loss that is not finite, memory that ran out."""


class Alone:
    """A run of one process."""

    rank = 0
    size = 1
    writes = True

    def deal(self, examples: Sequence[E]) -> Sequence[E]:
        """Return all examples."""
        return examples

    def total(self, values: Tensor) -> Tensor:
        """Return the values."""
        return values

    def gather(self, rows: Tensor) -> Tensor:
        """Return the rows."""
        return rows

    def any(self, flag: bool) -> bool:
        """Return the flag."""
        return flag
