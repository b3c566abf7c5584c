"""What an objective remembers of steps that were taken: the mean and the spread of a gap, each a running one.

Owns how they move. A value is frozen; a step that was taken makes the next one, once, from all of its pairs.
"""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

MOMENTUM = 0.9
"""Share of what was before in what is now; that of the authors of β-DPO and α-DPO."""
LEAST_SPREAD = 1e-3
"""Nats of a completion (β-DPO) or of a token (α-DPO): below it, as at the start, a gap is rounding and is not blown up
to a standard one."""


class Running(NamedTuple):
    """A running mean and a running standard deviation; both 0 at the start, where every gap is."""

    mean: float = 0.0
    spread: float = 0.0

    def after(self, gaps: Tensor) -> Running:
        """Return what is remembered after a step whose pairs had these gaps; float64."""
        mean, spread = (float(one) for one in (gaps.double().mean(), gaps.double().std(correction=0)))
        return Running(*(MOMENTUM * was + (1 - MOMENTUM) * now for was, now in zip(self, (mean, spread), strict=True)))

    def standard(self, gaps: Float[Tensor, " pairs"]) -> Float[Tensor, " pairs"]:
        """Return gaps in standard deviations from the mean."""
        return (gaps - self.mean) / max(self.spread, LEAST_SPREAD)


AT_REST = Running()
