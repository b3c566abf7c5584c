"""Who judges the answers of a round, and whether a judge that changes still says what it said.

Owns what a judge of rounds is given: the policy that answered, where it is the policy itself; what is left of the
loop's budget; the file in which raw answers of servers are kept, one for the whole loop.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from tiebreak.campaigns.lineup import Lineup
from tiebreak.config import Rounds
from tiebreak.engine.answers.answerer import Chat
from tiebreak.engine.model import Model
from tiebreak.evaluation.judges.given import Given
from tiebreak.evaluation.judges.table import JUDGES
from tiebreak.progress import Progress
from tiebreak.stations.drift import agreement
from tiebreak.stations.harvest import read_answered
from tiebreak.stations.rows import Answered
from tiebreak.stations.ruling import Limits, Ruled, rule

KEPT = "judgements.sqlite"
NUM_FIXED = 16
"""Held-out prompts whose answers a judge that changes is asked about again in each round."""


class Bench:
    """Judges rounds."""

    def __init__(self, asked: Rounds, lineup: Lineup, progress: Progress) -> None:
        self._asked, self._lineup, self._progress = asked, lineup, progress
        self._settings = asked.settings
        self._kind = JUDGES[self._settings.judge.kind]

    def rule(
        self,
        number: int,
        answered: Sequence[Answered],
        path: Path,
        left: float | None,
        first: str | None = None,
        *,
        refuses: bool = True,
    ) -> Ruled:
        """Return what the judge of a round says of answers; 0: that of the first model, on held-out prompts.

        `left` is what it may cost, `first` the identity of the judge that the loop began with. Raises RunError where a
        judge that should stay the same is another one: verdicts of two judges are of two kinds.
        """
        is_known = path.exists()
        with contextlib.nullcontext() if is_known else self._policy(max(0, number - 1)) as policy:
            given = Given(self._progress, self._asked.folder / KEPT, policy=policy)
            wanted = None if self._kind.changes else first
            limits = Limits(self._settings.stop.unjudged, max_cost=left, refuses=refuses, judge=wanted)
            return rule(answered, self._settings.judge, path, given, limits)

    def drift(self, number: int, chats: Sequence[Chat]) -> dict[str, float | None]:
        """Return how far the judge of a round agrees with its first word on the first model's answers.

        Nothing in the first round, and of a judge that stays the same.
        """
        if number < 2 or not self._kind.changes:
            return {}
        heldout = self._lineup.heldout
        answered = read_answered(heldout / "samples.jsonl", chats, self._settings.sampling.n)
        first = self.rule(0, answered, heldout / "verdicts.jsonl", None)
        now = self.rule(number, answered[:NUM_FIXED], self._lineup.place(number) / "drift.jsonl", None, refuses=False)
        return {"agreement_with_first": agreement(first.verdicts[:NUM_FIXED], now.verdicts)}

    @contextlib.contextmanager
    def _policy(self, number: int) -> Iterator[Model | None]:
        """Give the policy where the judge is the policy itself; None where it is not."""
        if not self._kind.changes:
            yield None
            return
        with self._lineup.frozen(number) as policy:
            yield policy
