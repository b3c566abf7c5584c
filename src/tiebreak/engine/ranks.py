"""Several processes that train one policy, or one: who decides and writes, who takes part, what is added up.

Owns every place where a run would differ with the number of processes. One process, the first, carries the whole
program: it reads data, decides, and writes files. The others wait for tasks and take part in them, each with the
objects that it keeps. So nothing has to be decided alike in several places. `Alone` is a run of one process; several
are `Together` (`engine.together`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from torch import Tensor, nn

from tiebreak.maths.dealing import deal
from tiebreak.records import Example, num_unique_tokens

E = TypeVar("E", bound=Example)
T = TypeVar("T")
P = ParamSpec("P")


class Ranks(Protocol):
    """The processes of a run, as one of them sees them."""

    rank: int
    """Which one this is, from 0."""
    size: int
    """How many there are."""
    writes: bool
    """Whether this one decides and writes the run's files; exactly one does."""
    kept: dict[str, Any]
    """What this process keeps between tasks, by name: its policy, its optimizer."""

    @property
    def num_asked(self) -> int:
        """How many processes share what is asked now: all of them, or within a task this one alone."""

    def run(self, task: Callable[Concatenate[Ranks, P], T], *args: P.args, **named: P.kwargs) -> T:
        """Carry out a task in every process, and return what it returned here.

        It is a function of a module; its arguments are sent. Within a task, it is carried out here alone.
        """

    def shares(self, examples: Sequence[Example]) -> list[list[int]]:
        """Return the places among some examples that each process gets, by unique tokens; all know all of them."""

    def deal(self, examples: Sequence[E]) -> list[E]:
        """Return the share of a step's examples that this process learns from; together they are all, each once."""

    def total(self, values: Tensor) -> Tensor:
        """Return the sum over all processes."""

    def gather(self, rows: Tensor) -> Tensor:
        """Return the rows of all processes, in the order of ranks; one that has none gives an empty tensor."""

    def collect(self, value: T) -> list[T]:
        """Return a small value of each process, in the order of ranks."""

    def any(self, flag: bool) -> bool:
        """Say whether any process says so: a loss that is not finite, memory that ran out."""

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Give parameters the sum of their gradients over all processes, where it is not there yet."""


class Alone:
    """A run of one process."""

    rank = 0
    size = 1
    writes = True
    num_asked = 1

    def __init__(self) -> None:
        self.kept: dict[str, Any] = {}

    def run(self, task: Callable[Concatenate[Ranks, P], T], *args: P.args, **named: P.kwargs) -> T:
        """Carry it out."""
        return task(self, *args, **named)

    def shares(self, examples: Sequence[Example]) -> list[list[int]]:
        """Return all places."""
        return [[*range(len(examples))]]

    def deal(self, examples: Sequence[E]) -> list[E]:
        """Return all examples."""
        return [*examples]

    def total(self, values: Tensor) -> Tensor:
        """Return the values."""
        return values

    def gather(self, rows: Tensor) -> Tensor:
        """Return the rows."""
        return rows

    def collect(self, value: T) -> list[T]:
        """Return the value."""
        return [value]

    def any(self, flag: bool) -> bool:
        """Return the flag."""
        return flag

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Do nothing."""


def dealt(examples: Sequence[Example], size: int) -> list[list[int]]:
    """Return the places among examples that each of `size` processes gets."""
    return deal([num_unique_tokens(example) for example in examples], size)
