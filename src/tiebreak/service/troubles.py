"""What stands in the way of jobs: faults of ours and of the machine, and how long each may before the job ends.

Owns which error is whose fault, and what the client of a job that it ended is told. Knows neither jobs nor the store.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Collection
from dataclasses import dataclass, field

from tiebreak.errors import one_line
from tiebreak.service.refusals import full_disk

MOST_FAULTS = 20
"""Looks of one kind at a job, one after the other, that may end in a fault of ours before the job does."""

MOST_TROUBLE_SECONDS = 3600.0
"""How long one fault of the machine may stand in the way of a job before the job ends; a full disk may for ever."""

_OURS = "a fault of the service, which its log tells; please ask its operator"
_MACHINES = "the machine of the service fails it, as its log tells; ask its operator"

_LOG = logging.getLogger("uvicorn.error")

Look = tuple[str, str]
"""A job, and what was looked at: that a doctor starts well says nothing of whether its word can be read."""


@dataclass
class _Trouble:
    """One kind of error that a look ended in each time: since when, when last, how often."""

    kind: str
    since: float
    at: float
    times: int = 0


@dataclass
class Troubles:
    """The troubles of looks at jobs, each from its first time until the look goes well."""

    _standing: dict[Look, _Trouble] = field(default_factory=dict, init=False, repr=False)

    def met(self, look: Look, error: Exception) -> str | None:
        """Say once in the log what a look ended in; return why the job has to end, None where it is to be tried again.

        What the machine refuses (a disk, a database that is locked) may pass; what is wrong with our words does not.
        """
        now, is_ours = time.monotonic(), _is_ours(error)
        kind = "ours" if is_ours else _kind(error)
        standing = self._standing.get(look)
        if standing is None or standing.kind != kind:
            standing = self._standing[look] = _Trouble(kind, now, now)
            if is_ours:
                _LOG.error("%s: the supervisor could not look at it", look[0], exc_info=error)
            else:
                _LOG.warning("%s: %s; tried again until it goes well", look[0], one_line(error, 300))
        standing.at, standing.times = now, standing.times + 1
        if is_ours:
            return _OURS if standing.times > MOST_FAULTS else None
        lasts = now - standing.since > MOST_TROUBLE_SECONDS and full_disk(error) is None
        return _MACHINES if lasts else None

    def passed(self, look: Look) -> None:
        """Forget what stood in the way of a look: it went well."""
        self._standing.pop(look, None)

    def jobs(self) -> set[str]:
        """Return the jobs that something stands in the way of."""
        return {job for job, _ in self._standing}

    def rests(self, look: Look, seconds: float) -> bool:
        """Whether the machine failed a look less than so many seconds ago."""
        standing = self._standing.get(look)
        return standing is not None and standing.kind != "ours" and time.monotonic() - standing.at < seconds

    def forget_all_but(self, jobs: Collection[str]) -> None:
        """Forget the troubles of all other jobs."""
        self._standing = {look: one for look, one in self._standing.items() if look[0] in jobs}


def _is_ours(error: Exception) -> bool:
    """Whether an error stays, however often it is tried: no disk's, and of a database's only those of its own state."""
    if isinstance(error, sqlite3.Error):
        known = (sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.DataError, sqlite3.InterfaceError)
        return isinstance(error, known)
    return not isinstance(error, OSError)


def _kind(error: Exception) -> str:
    return f"{type(error).__name__} {error.errno if isinstance(error, OSError) else error}"
