"""How many pairs an optimizer step has elsewhere, where it is said in parts: micro-batches, accumulation, processes.

Owns the product, and what each trainer makes of a part that is not said. Pure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from tiebreak.config.foreign.trainers import Trainer
from tiebreak.config.foreign.values import whole

Said = tuple[str, Any] | None
"""A setting of theirs with its value, where there is one."""
_EACH = "multiply by the number of processes"


@dataclass(frozen=True)
class Batch:
    """Pairs of a step, how they came about, and the settings that say it."""

    pairs: int
    origin: str
    used: tuple[str, ...]


def batch_of(trainer: Trainer, micro: Said, steps: Said, total: Said) -> Batch:
    """Return the pairs of a step; raises Unfit where a part is no whole number.

    `total` is all pairs of a step on one process, which is what `steps` follows from where it is not said.
    """
    one = whole(micro[1] if micro else trainer.micro_batch)
    parts = [f"{key} {value}" for key, value in filter(None, (micro, steps))]
    if not micro:
        parts.append(f"micro-batch {one}, the default of {trainer.title}")
    used = tuple(key for key, _ in filter(None, (micro, steps)))
    told = " × ".join(parts)
    if total and not steps:
        pairs = one * max(1, whole(total[1]) // one)
        origin = f"from {total[0]} {total[1]}, by {told}; versions that accumulate once unless told take {one}; {_EACH}"
        return Batch(pairs, origin, (*used, total[0]))
    if not steps and one < trainer.step_pairs:
        pairs = one * math.ceil(trainer.step_pairs / one)
        how = f"accumulation, not set there, makes {trainer.step_pairs} or more of all processes together"
        return Batch(pairs, f"from {told}; {how}", used)
    return Batch(one * whole(steps[1] if steps else 1), f"from {told}; {_EACH}", used)
