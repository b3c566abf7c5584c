"""A reference for one step, whose values were asked before and sent to all processes.

Owns that one process alone asks the store and writes it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import accumulate

import torch

from tiebreak.engine.model import Model
from tiebreak.engine.reference.kinds import asked_now
from tiebreak.maths.distributions import Statistic
from tiebreak.maths.logps import TokenLogps
from tiebreak.records import Example


@dataclass(frozen=True)
class Told:
    """What a reference said of some examples; as a model, it is the reference of this process."""

    own: Callable[[], AbstractContextManager[Model]]
    """Yields the reference as the model that this process keeps."""
    said: TokenLogps | None
    """None where it has to be asked."""
    first: Mapping[int, int]
    """Of each example, by its identity in memory, the place of its first completion."""
    device: torch.device

    @classmethod
    def of(
        cls,
        own: Callable[[], AbstractContextManager[Model]],
        examples: Sequence[Example],
        said: TokenLogps | None,
        device: torch.device,
    ) -> Told:
        """Return what was said of examples, in their order, for arithmetic on a device."""
        ends = accumulate((len(example.completions) for example in examples), initial=0)
        return cls(own, said, dict(zip(map(id, examples), ends, strict=False)), device)

    def logps(self, examples: Sequence[Example], beside: Statistic | None = None) -> TokenLogps:
        """Return what was said, with the statistic that was asked for then."""
        if self.said is None:
            return asked_now(self, examples, beside)
        places = [self.first[id(one)] + number for one in examples for number in range(len(one.completions))]
        found = self.said.picked(places)
        more = None if found.beside is None else found.beside.to(self.device)
        return replace(found, values=found.values.to(self.device), beside=more)

    def model(self) -> AbstractContextManager[Model]:
        """Yield the reference as the model that this process keeps."""
        return self.own()
