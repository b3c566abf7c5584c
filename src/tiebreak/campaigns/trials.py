"""One trial of a sweep: an ordinary run that may be ended early, and how it ended.

Owns what a trial is, what is noted of its end, and the file of those notes: a trial that is noted is never made again.
A trial that diverges has ended, as one that was trained to its end has.
"""

from __future__ import annotations

import re
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, Literal

from tiebreak.campaigns.campaign import Planned, carry_out
from tiebreak.config import shared_endings
from tiebreak.errors import Diverged, InUse, Preempted, TiebreakError, one_line
from tiebreak.files import append_jsonl, appended_jsonl, read_jsonl
from tiebreak.fingerprint import fingerprint
from tiebreak.progress import Progress
from tiebreak.runs import Run
from tiebreak.secrecy import masked
from tiebreak.training.company import Company
from tiebreak.training.order import num_steps

if TYPE_CHECKING:
    from tiebreak.config import Sweep
    from tiebreak.evaluation.watching import Seen
    from tiebreak.maths.objectives import Objective

SCORE = "heldout/rewards/accuracies"
"""What probes of trials are compared by: the share of held-out pairs that the policy prefers rightly."""
State = Literal["done", "stopped", "diverged", "failed", "in_use"]
DONE: State = "done"
STOPPED: State = "stopped"
DIVERGED: State = "diverged"
FAILED: State = "failed"
IN_USE: State = "in_use"
"""No end: another process has the run, and nothing is known of the trial before that one has ended."""
Probed = tuple[float, float]
"""The share of its steps that a trial had taken, and its held-out accuracy there."""
FallsBehind = Callable[[Sequence[Probed]], str | None]
"""Says of the probes so far why a trial should end; None where it goes on."""


def key_of(settings: Mapping[str, Any]) -> str:
    """Return what tells a trial with these settings from others."""
    return fingerprint(dict(settings))


@dataclass(frozen=True)
class Trial:
    """Settings that are tried, and the run that tries them."""

    settings: Mapping[str, Any]
    planned: Planned

    @property
    def name(self) -> str:
        """What its folder is called."""
        return self.planned.name

    @property
    def key(self) -> str:
        """What tells it from others: its settings, whatever it is called."""
        return key_of(self.settings)


@dataclass(frozen=True)
class Ended:
    """How a trial ended: trained and measured, stopped early, diverged, refused, or not at all yet."""

    name: str
    settings: Mapping[str, Any]
    state: State
    probes: tuple[Probed, ...]
    """What each probe after the start found."""
    seconds: float
    num_reference_asked: int
    """Pairs that the reference was asked about and that were not stored."""
    says: str | None = None

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Ended:
        """Return what `asdict` wrote down."""
        return cls(**{**row, "probes": tuple((float(share), float(score)) for share, score in row["probes"])})

    @property
    def key(self) -> str:
        """What tells it from others: its settings, whatever it is called."""
        return key_of(self.settings)


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
        return list({one.key: one for one in map(Ended.from_dict, rows)}.values())

    @property
    def confirmed(self) -> dict[str, tuple[str, int]]:
        """What was measured of trials on prompts that no trial saw, by trial: its folder, and how many of these pairs
        the reference was asked about.
        """
        rows = (row for row in appended_jsonl(self._path) if "confirmed" in row)
        return {str(row["confirmed"]): (str(row["folder"]), int(row["num_reference_asked"])) for row in rows}

    def note(self, ended: Ended) -> None:
        """Keep how a trial ended; raises OSError on a full disk: a trial that is not noted would be made for ever."""
        append_jsonl(self._path, [{"trial": asdict(ended)}], needed=True)

    def note_confirmed(self, name: str, folder: str, num_reference_asked: int) -> None:
        """Keep where a trial was measured once more."""
        told = {"confirmed": name, "folder": folder, "num_reference_asked": num_reference_asked}
        append_jsonl(self._path, [told], needed=True)


def wanted(asked: Sweep, ended: Sequence[Ended]) -> list[Ended]:
    """Return those of the trials that are asked for now: a grid that has lost values has lost their trials."""
    if not asked.settings.grid:
        return [*ended]
    keys = set(map(key_of, asked.combinations()))
    return [one for one in ended if one.key in keys]


def named(settings: Mapping[str, Any]) -> str:
    """Return the name of a trial: what it sets, as a folder can be called; what was cut is told apart by its hash."""
    told = {key: _worded(value) for key, value in sorted(settings.items())}  # whatever the order that they stand in
    lasts = {key: key if (last := key.rpartition(".")[2]) in shared_endings() else last for key in told}
    whole = "_".join(f"{lasts[key]}={word}" for key, (word, _) in told.items())
    plain = re.sub(r"[^\w.+=-]+", "-", whole)[:60]
    exact = plain == whole and all(exact for _, exact in told.values())
    return plain if exact else f"{plain}-{key_of(settings)[:8]}"


def _worded(value: Any) -> tuple[str, bool]:
    """Return a value in a word, and whether no other value has the same one; of a path the last part is told."""
    if isinstance(value, list | tuple):
        return "+".join(_worded(one)[0] for one in value), False
    if isinstance(value, str):
        word = PurePath(value).name or "none"
        return word, word == value and re.fullmatch(
            r"[A-Za-z][\w.-]*", word
        ) is not None and word not in _READ_OTHERWISE
    return (str(value) if isinstance(value, int) else repr(value)), True


_READ_OTHERWISE = ("True", "False", "None", "inf", "nan", "none")
"""Texts that stand for another value in a name."""


def carried_out(trial: Trial, company: Company, falls_behind: FallsBehind, progress: Progress) -> Ended:
    """Make the run of a trial, or go on with it, and return how it ended; a signal ends the sweep, as any run."""
    run, began = Run(str(trial.planned.config.output.dir)), time.monotonic()

    says: str | None = None
    state: State = DONE
    try:
        [_] = carry_out([trial.planned], progress, company=replace(company, watchers=[_Rival(run, falls_behind)]))
    except Outrun as error:
        state, says = STOPPED, str(error)
    except InUse as error:  # of the files of a run that is under way nothing is read
        return Ended(trial.name, dict(trial.settings), IN_USE, (), 0.0, 0, masked(one_line(error, 300)))
    except Diverged as error:  # no full disk, no lack of memory: those are tried again
        state, says = DIVERGED, masked(one_line(error, 300))
    except TiebreakError as error:
        state, says = FAILED, masked(one_line(error, 300))
    except Exception as error:  # noqa: BLE001 - memory, a disk, a fault of ours: what others found is not lost for it
        where = traceback.extract_tb(error.__traceback__)[-1]
        told = f"unforeseen {type(error).__name__} in {Path(where.filename).name}:{where.lineno}: {error}"
        state, says = FAILED, masked(one_line(told, 300))
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
            self._why = self._falls_behind(scores(self._run, row))


def scores(run: Run, newest: Mapping[str, float] | None = None) -> tuple[Probed, ...]:
    """Return what probes of a run found after its start, in the order of its steps; it need not be done.

    `newest` is a row that may not be written yet; nothing behind its step counts.
    """
    if not run.data_file.exists():
        return ()
    rows = [row for row in read_jsonl(run.metrics_file) if newest is None or row["step"] < newest["step"]]
    rows += [] if newest is None else [dict(newest)]
    found = {int(row["step"]): float(row[SCORE]) for row in rows if SCORE in row and row["step"]}
    total = num_steps(int(run.data["num_train_pairs"]), run.config.training)
    return tuple((step / total, found[step]) for step in sorted(found))
