"""Causes that are named while a run is at work, each once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tiebreak.diagnosis.causes import diagnoses
from tiebreak.diagnosis.reading import seen_so_far
from tiebreak.diagnosis.signals import Row, Settings


class Live:
    """Hears what a run records, and says a cause when its signs are there."""

    def __init__(
        self, settings: Settings, audit: Row, warnings: Callable[[], Sequence[str]], say: Callable[[str], None]
    ) -> None:
        """`audit` is what the doctor found, `warnings` what the run has warned of by now."""
        self._settings = settings
        self._audit = audit
        self._warnings = warnings
        self._say = say
        self._told: set[str] = set()

    def hear(self, rows: Sequence[Row]) -> None:
        """Take all that was recorded by now."""
        for one in diagnoses(seen_so_far(self._settings, rows, self._audit, self._warnings())):
            if one.cause not in self._told:
                self._told.add(one.cause)
                self._say(f"{one.title}: {one.says}; {one.do}")
