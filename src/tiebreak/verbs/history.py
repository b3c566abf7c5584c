"""The verb history: what became current in a registry, when, and by which verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tiebreak.registry import REGISTRY, Event, Registry


@dataclass(frozen=True)
class History:
    """Everything that happened to a registry."""

    registry: str
    current: str | None
    """The version of the last event."""
    unswitched: str | None
    """Where the link or current.json lead elsewhere, as after a promotion that was cut off; None where all agree."""
    events: Sequence[Event]

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON takes it."""
        events = [event.model_dump() for event in self.events]
        return {"registry": self.registry, "current": self.current, "unswitched": self.unswitched, "events": events}


def history(to: str | Path = REGISTRY) -> History:
    """Return what happened, oldest first; nothing is written and no lock is taken.

    Raises RegistryError where there is no registry, or a line of its history is not what was written.
    """
    registry = Registry(to).existing()
    events = registry.events()
    current = events[-1].version if events else None
    return History(str(registry.path), current, registry.unswitched(events) if events else None, events)
