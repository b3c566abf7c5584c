"""Rounds: the model answers, a judge decides, the pairs train it, and again.

Owns the order of the stations, and which model starts, is compared with, and answers. Each station reads a file and
writes one; a loop that was killed goes on with the station that it was at. On-policy DPO in the sense of Dong et al.
2024 (2405.07863) and Xiong et al. 2023 (2312.11456); with two answers and a step a round, online DPO (Guo et al. 2024).

    OUT/rounds.json, rounds.html   the ledger, and all of it on a page
    OUT/heldout/                   what the first model says to held-out prompts: samples, verdicts, pairs, answers
    OUT/round-01/                  samples, verdicts, pairs; train/ is an ordinary run; answers to held-out prompts
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tiebreak import folders
from tiebreak.campaigns.foresight import refuse_unworkable
from tiebreak.campaigns.ledger import DONE, FAILED, INTERRUPTED, PAGE, WAITING, Ledger, best_of, day_of
from tiebreak.campaigns.relay import Enough, Relay, Until
from tiebreak.config import Rounds, load_rounds
from tiebreak.engine.models import load_renderer
from tiebreak.engine.sources import resolve
from tiebreak.errors import Preempted, RunError, Waiting
from tiebreak.progress import OnlyNew, Progress, Silent
from tiebreak.reporting.rounds import write_rounds_page
from tiebreak.runs import Run
from tiebreak.stations.started import clear_left_behind
from tiebreak.stations.walk import digest_of, open_walk
from tiebreak.training.launched import refuse_several
from tiebreak.training.preemption import listening


@dataclass(frozen=True)
class Looped:
    """A loop that was carried out, as far as it got: its folder, and rounds.json."""

    folder: Path
    found: Mapping[str, Any]

    @property
    def page(self) -> Path:
        """All of it on one page."""
        return self.folder / PAGE

    @property
    def best(self) -> Run | None:
        """The run of the best round; None where none is measured."""
        best = self.found.get("best")
        return Run(self.folder / str(best["run"])) if best else None

    @property
    def next(self) -> str | None:
        """What to do with the best round, as a command."""
        best = self.found.get("best")
        return str(best["command"]) if best else None

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON takes it."""
        return {"rounds": str(self.folder), "page": str(self.page), **self.found}


def rounds_of(config: Rounds | str | Path, overrides: Sequence[str] | Mapping[str, Any]) -> Rounds:
    """Return a loop as a program names one: read, or as it is, to which nothing can be added."""
    if not isinstance(config, Rounds):
        return load_rounds(config, overrides)
    if overrides:
        raise TypeError("overrides go with a YAML file; give changed Rounds instead")
    return config


def rounds(asked: Rounds, progress: Progress | None = None, *, until: Until | None = None) -> Looped:
    """Carry out the rounds that are missing, and say which one is the best.

    `until` ends the loop after a station of the round that is under way. Raises RunError where the folder holds a loop
    of other settings, or no round could be trained; JudgeError where a judge stopped half-way; Preempted where a signal
    ended it.
    """
    refuse_several("tiebreak rounds")
    told, folder = OnlyNew(progress or Silent()), asked.folder
    with folders.locked(folder, told.warn), listening():
        clear_left_behind(folder, told)
        asked = asked.of_the_day(day_of(folder))
        base = asked.base
        renderer, context = load_renderer(base.model, base.data, told.say)
        walk = open_walk(asked.settings, base.data, renderer, context.most, told)
        refuse_unworkable(asked, walk, told)
        first = resolve(base.model).identity
        ledger = Ledger.begun(asked, walk.counts, {"the first model": first, "held out": digest_of(walk.heldout)})
        loop = Relay(asked, walk, ledger, told)
        status = FAILED
        try:
            status = DONE if loop.go(until) else WAITING
        except Waiting:
            status = WAITING
            raise
        except Preempted:
            status = INTERRUPTED
            raise
        except Enough as enough:
            ledger.note(stopped={"why": enough.why, "says": enough.says})
            if best_of(ledger.rounds, folder) is None:
                raise RunError(f"{folder}: {enough.says}") from None
            status = DONE
        finally:
            ledger.note(status=status, best=best_of(ledger.rounds, folder))
            write_rounds_page(ledger.told, loop.answers_of_best(), folder / PAGE)
    return Looped(folder, ledger.told)
