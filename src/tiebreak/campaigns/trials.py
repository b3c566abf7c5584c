"""One trial of a sweep: an ordinary run that may be ended early, and how it ended.

Owns what a trial is, what is noted of its end, and the file of those notes: a trial that is noted is never made again.
A trial that diverges has ended, as one that was trained to its end has.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tiebreak.campaigns.campaign import Planned, carry_out
from tiebreak.errors import Preempted, TiebreakError, TrainingError, one_line
from tiebreak.files import append_jsonl, appended_jsonl, read_jsonl
from tiebreak.fingerprint import fingerprint
from tiebreak.progress import Progress
from tiebreak.runs import Run
from tiebreak.secrecy import masked
from tiebreak.training.company import Company

if TYPE_CHECKING:
    from tiebreak.evaluation.watching import Seen
    from tiebreak.maths.objectives import Objective

SCORE = "heldout/rewards/accuracies"
"""What probes of trials are compared by: the share of held-out pairs that the policy prefers rightly."""
State = Literal["done", "stopped", "diverged", "failed"]
DONE: State = "done"
STOPPED: State = "stopped"
DIVERGED: State = "diverged"
FAILED: State = "failed"
FallsBehind = Callable[[Sequence[float]], str | None]
"""Says of the scores so far, one a probe, why a trial should end; None where it goes on."""


@dataclass(frozen=True)
class Trial:
    """Settings that are tried, and the run that tries them."""

    settings: Mapping[str, Any]
    planned: Planned

    @property
    def name(self) -> str:
        """What its folder is called."""
        return self.planned.name


@dataclass(frozen=True)
class Ended:
    """How a trial ended: trained and measured, stopped early, diverged, or refused."""

    name: str
    settings: Mapping[str, Any]
    state: State
    probes: tuple[float, ...]
    """Its held-out accuracy at each probe after the start."""
    seconds: float
    num_reference_asked: int
    """Pairs that the reference was asked about and that were not stored."""
    says: str | None = None

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Ended:
        """Return what `asdict` wrote down."""
        return cls(**{**row, "probes": tuple(map(float, row["probes"]))})


class Outrun(Preempted):
    """Others are ahead: the trial was asked to end by its sweep."""

    def __init__(self, why: str) -> None:
        BaseException.__init__(self, why)


class Journal:
    """The notes of a sweep, in the order in which trials ended; a line that was torn is left out."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def ended(self) -> list[Ended]:
        """How each trial ended, the last word on each."""
        rows = [row["trial"] for row in appended_jsonl(self._path) if "trial" in row]
        return list({row["name"]: Ended.from_dict(row) for row in rows}.values())

    @property
    def confirmed(self) -> dict[str, str]:
        """Folders of what was measured of trials on prompts that no trial saw, by trial."""
        return {str(row["confirmed"]): str(row["folder"]) for row in appended_jsonl(self._path) if "confirmed" in row}

    def note(self, ended: Ended) -> None:
        """Keep how a trial ended."""
        append_jsonl(self._path, [{"trial": asdict(ended)}])

    def note_confirmed(self, name: str, folder: str) -> None:
        """Keep where a trial was measured once more."""
        append_jsonl(self._path, [{"confirmed": name, "folder": folder}])


def named(settings: Mapping[str, Any]) -> str:
    """Return the name of a trial: what it sets, as a folder can be called; what was cut is told apart by its hash."""
    lasts = [key.rsplit(".", 1)[-1] for key in sorted(settings)]  # whatever the order that they are written in
    told = [
        f"{key if lasts.count(last) > 1 else last}={value if isinstance(value, str | int) else f'{value!r}'}"
        for (key, value), last in zip(sorted(settings.items()), lasts, strict=True)
    ]
    whole = "_".join(told)
    plain = re.sub(r"[^\w.+=-]+", "-", whole)[:60]
    return plain if plain == whole else f"{plain}-{fingerprint(dict(settings))[:8]}"


def carried_out(trial: Trial, company: Company, falls_behind: FallsBehind, progress: Progress) -> Ended:
    """Make the run of a trial, or go on with it, and return how it ended; a signal ends the sweep, as any run."""
    run, began = Run(str(trial.planned.config.output.dir)), time.monotonic()

    says: str | None = None
    state: State = DONE
    try:
        [_] = carry_out([trial.planned], progress, company=replace(company, watchers=[_Rival(run, falls_behind)]))
    except Outrun as error:
        state, says = STOPPED, str(error)
    except TrainingError as error:
        state, says = DIVERGED, masked(one_line(error, 300))
    except TiebreakError as error:
        state, says = FAILED, masked(one_line(error, 300))
    manifest = run.manifest if run.manifest_file.exists() else {}
    asked = int(manifest.get("num_reference_asked", 0))
    # Of a trial that is found done, when its note was lost, the time is its run's.
    seconds = round(max(time.monotonic() - began, float(manifest.get("total_seconds") or 0)), 1)
    return Ended(trial.name, dict(trial.settings), state, scores(run), seconds, asked, says)


class _Rival:
    """Watches the scores of a trial, which decide whether it goes on after the next step."""

    def __init__(self, run: Run, falls_behind: FallsBehind) -> None:
        self._run = run
        self._falls_behind = falls_behind
        self._why: str | None = None

    def due(self, step: int) -> bool:
        """Never look; a trial that has fallen behind ends here, one step after what was seen is recorded."""
        if self._why:
            raise Outrun(self._why)
        return False

    def look(self, step: int, objective: Objective) -> Seen:
        """See nothing."""
        return Seen({})

    def hear(self, row: Mapping[str, float]) -> None:
        """Compare a score with those of others."""
        if row["step"] and SCORE in row:
            self._why = self._falls_behind([*scores(self._run, int(row["step"])), row[SCORE]])


def scores(run: Run, before: int | None = None) -> tuple[float, ...]:
    """Return what probes of a run found after its start, and before a step, in their order; it need not be done."""
    rows = [row for row in read_jsonl(run.metrics_file) if SCORE in row and row["step"]]
    found = {int(row["step"]): float(row[SCORE]) for row in rows if before is None or row["step"] < before}
    return tuple(found.values())
