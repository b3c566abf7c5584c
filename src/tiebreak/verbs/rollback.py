"""The verb rollback: the version before becomes current again.

Owns nothing but that order: what is gone back to is proven whole before anything is switched.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from tiebreak.errors import RegistryError
from tiebreak.progress import Progress, Silent
from tiebreak.registry import REGISTRY, Event, Registry, before


def rollback(to: str | Path = REGISTRY, progress: Progress | None = None) -> Event:
    """Make the version before current, and record it; loads no model. One that was cut off is completed.

    Raises RegistryError where there is none, or where its files are not those that were promoted.
    """
    registry, progress = Registry(to).existing(), progress or Silent()
    with registry.changing(progress) as events:
        if events and events[-1].what == "rolled back" and (found := registry.unswitched(events)):
            progress.say(f"{found}; put right, as the rollback that was cut off wanted it")
            registry.show(events[-1])
            return events[-1]
        wanted = before(events)
        if wanted is None:
            now_current = f"{events[-1].version} is the first" if events else "nothing was promoted"
            raise RegistryError(f"{registry.path}: {now_current}, so there is nothing to go back to")
        registry.check(wanted.version, wanted.lineage_sha256, progress)
        same = wanted.model_dump(exclude={"event", "what", "time", "replaced", "line_before_sha256"})
        return registry.append(events, "rolled back", time=datetime.now(UTC).isoformat(timespec="seconds"), **same)
