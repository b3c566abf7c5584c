"""How many tokens are in memory at once, and how a step is cut into micro-batches.

Owns that number: planned, restored with a checkpoint, halved where memory runs out. It changes time and memory, never
what is learned.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from tiebreak.engine.memory import release_cached
from tiebreak.engine.model import Model
from tiebreak.engine.planner import MOST_TOKENS
from tiebreak.errors import TrainingError
from tiebreak.records import Example

UNPLANNED = MOST_TOKENS["cpu"]
"""Tokens of a micro-batch where nothing is trained and so nothing is planned. On a CPU they are those of training, as a
rule, so that evaluating again rounds alike."""
E = TypeVar("E", bound=Example)


class Budget:
    """Most tokens of one micro-batch under one model."""

    def __init__(self, model: Model, tokens: int | None = None) -> None:
        self._model = model
        self.tokens = tokens or UNPLANNED

    def cut(self, examples: Sequence[E]) -> list[list[E]]:
        """Group examples so that each group fits in memory; together they are all, each once.

        Where several processes share what is asked, a group is for all of them.
        """
        return self._model.scorer.micro_batches(examples, self.tokens * self._model.ranks.num_asked)

    def halve(self, groups: Sequence[Sequence[Example]], step: int, *, ran_out: bool = True) -> None:
        """Make micro-batches half the size of the largest of these, which did not fit; `step` counts from 1.

        All processes do so alike, by the groups of those that `ran_out`. Raises TrainingError where each of them was a
        single example.
        """
        own = (max(map(self._model.scorer.num_tokens, groups), default=0), all(len(group) == 1 for group in groups))
        told = [one for one in self._model.ranks.collect(own if ran_out else None) if one]
        largest = max(size for size, _ in told)
        if all(single for _, single in told):
            raise TrainingError(
                f"step {step}: out of memory with one pair at a time (up to {largest} tokens); lower "
                "data.max_length or set training.gradient_checkpointing=true; nothing of this step was learned"
            )
        self.tokens = min(self.tokens, largest) // 2
        release_cached(self._model.device)
