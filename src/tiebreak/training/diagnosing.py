"""The last of the watchers: after the others have looked, it names what is wrong by what was recorded.

Owns when that is asked. What is wrong is known to `diagnosis`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from tiebreak.diagnosis.live import Live
from tiebreak.evaluation.watching import Seen
from tiebreak.files import read_jsonl
from tiebreak.maths.objectives import Objective
from tiebreak.runs import Run


class Diagnosing:
    """Reads what a run has recorded, after the steps that something is looked at."""

    def __init__(self, run: Run, live: Live, steps: Collection[int]) -> None:
        self._run = run
        self._live = live
        self._steps = steps

    def due(self, step: int) -> bool:
        """Say whether something was looked at after that many steps."""
        return step in self._steps

    def look(self, step: int, objective: Objective) -> Seen:
        """Say what is wrong, where that is new; nothing is recorded."""
        self._live.hear(read_jsonl(self._run.metrics_file))
        return Seen({})

    def hear(self, row: Mapping[str, float]) -> None:
        """Take no notice: what an earlier attempt recorded counts, too, so all is read where it is asked."""
