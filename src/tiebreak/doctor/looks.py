"""What is examined, and who looks at it: pairs, or completions on their own.

Owns the seam between the order of an examination and what is looked for in judgements of one kind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tiebreak.doctor.facts import Rows
from tiebreak.doctor.findings import Hit
from tiebreak.records import Record

Ints = NDArray[np.int64]


class Look(Protocol):
    """What is found in the facts of all judgements of one kind."""

    @property
    def sampled(self) -> Ints:
        """Rows whose completions are to be read once more."""

    def hits(self) -> Iterator[Hit]:
        """Yield what the facts say."""

    def hits_of(self, texts: Sequence[tuple[str, ...]]) -> Iterator[Hit]:
        """Yield what the completions of the sampled rows say; asked once, before the numbers."""

    def counts(self) -> Mapping[str, Any]:
        """Return the counts that only this kind has."""

    def measurements(self) -> Mapping[str, Any]:
        """Return everything else that the report holds of it."""


@dataclass(frozen=True)
class Kind:
    """Judgements of one kind: which facts are taken of them, and who looks at these."""

    facts: type[Rows]
    facts_of: Callable[[Sequence[Record]], Rows]
    """Of one block of records; runs in worker processes."""
    look: Callable[[Any, float, str | None], Look]
    """At the facts of all blocks, where a share of prompts is held out, or a split that is named."""
