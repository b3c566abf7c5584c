"""Whoever looks at a run while it trains: probes of held-out pairs, signals, early stopping.

Owns what the training loop knows of them: when they are due, what they saw, and what they are told.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from tiebreak.maths.objectives import Objective


@dataclass(frozen=True)
class Seen:
    """What a watcher saw after a step."""

    row: Mapping[str, float]
    """What is recorded; nothing is, where it is empty."""
    stop: str | None = None
    """Why training should end here, where it should."""
    best: bool = False
    """Whether the policy is the best so far, so that its checkpoint is kept until there is a better one."""


class Watcher(Protocol):
    """Looks at a run between its steps."""

    def due(self, step: int) -> bool:
        """Say whether to look after that many steps; 0 is before the first."""

    def look(self, step: int, objective: Objective) -> Seen:
        """Look, with the objective of the step just taken; nothing of the run is changed by it."""

    def hear(self, row: Mapping[str, float]) -> None:
        """Take notice of a row that was recorded: of a step, or of what a watcher saw, this one included."""
