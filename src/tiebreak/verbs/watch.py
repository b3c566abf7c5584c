"""The verb watch: where a run stands now, read from its folder while somebody else is at work in it.

Owns what is read meanwhile, when a run is dead, and which exit code its end has. Nothing is written, no lock is taken.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from tiebreak import runs
from tiebreak.config import quoted
from tiebreak.errors import (
    EXIT_FAILED,
    EXIT_FAILURE,
    EXIT_INCONCLUSIVE,
    EXIT_PREEMPTED,
    RunError,
    TiebreakError,
    one_line,
)
from tiebreak.folders import NOBODY, holder
from tiebreak.reporting.numbers import is_number
from tiebreak.runs import Run, as_a_run_writes
from tiebreak.training.order import num_steps

PREPARING, MEASURING, DEAD = "getting ready", "measuring", "dead"
WORKING = (PREPARING, runs.RUNNING, MEASURING)
CURVES = ("heldout/rewards/accuracies", "heldout/loss", "heldout/rewards/margins", "heldout/displaced")
LOOKS = "sampled/"
POLL_SECONDS = 1.0
_RECENT = 20
"""Steps that the time left is told by."""
_VERDICTS = {"pass": 0, "fail": EXIT_FAILED, "inconclusive": EXIT_INCONCLUSIVE}
_ENDS = {DEAD: EXIT_FAILURE, runs.FAILED: EXIT_FAILURE, runs.INTERRUPTED: EXIT_PREEMPTED}


@dataclass(frozen=True)
class Watched:
    """Where a run stands."""

    run: str
    state: str
    """getting ready, running, measuring; done, failed, interrupted as its run.json says; dead where it says that it
    runs, and nobody does."""
    holder: str | None = None
    """Whoever is at work in it, or died in it."""
    step: int = 0
    total: int | None = None
    seconds_left: float | None = None
    """Of training, by its last steps."""
    seconds_quiet: float | None = None
    """Since it last wrote anything."""
    curves: Mapping[str, Sequence[tuple[int, float]]] = field(default_factory=dict)
    """What held-out pairs and looks at own answers gave, by key: steps and values."""
    last: Mapping[str, float] = field(default_factory=dict)
    """The numbers of the last step."""
    diagnosis: str | None = None
    warnings: Sequence[str] = ()
    error: str | None = None
    verdict: str | None = None
    reason: str | None = None
    next: str | None = None
    """The command that goes on, where it did not come to its end."""

    @property
    def is_over(self) -> bool:
        """Whether nobody is at work any more."""
        return self.state not in WORKING

    @property
    def exit_code(self) -> int:
        """What its end means: that of the verdict, 1 where it failed or died, 75 where it was stopped; 0 meanwhile."""
        return _VERDICTS.get(str(self.verdict), 0) if self.state == runs.DONE else _ENDS.get(self.state, 0)

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON takes it."""
        return asdict(self) | {"exit_code_of_the_run": self.exit_code}


def watch(path: str | Path | Run) -> Watched:
    """Return where a run stands now. Raises RunError for a folder that is none, and where nobody is making it one."""
    run = path if isinstance(path, Run) else Run(path)
    if not run.path.is_dir():
        raise RunError(f"{run.path}: no such run folder; --wait waits for it")
    before = holder(run.path)
    if not run.manifest_file.exists():
        if before and before.alive is not False:
            return Watched(str(run.path), PREPARING, before.name)
        raise RunError(f"{run.path}: holds no {run.manifest_file.name}, and nobody is at work in it; train makes a run")
    with as_a_run_writes(run.path):
        manifest = run.manifest
        found = _read(run, manifest)
    now = holder(run.path)
    # One who came or went while this was read is no dead one.
    at_work = next((one for one in (now, before) if one and one.alive is not False), None)
    named = (at_work or now or before or NOBODY).name or None
    if found.state in WORKING and at_work is None:
        return replace(found, state=DEAD, holder=named, next=_next(run), seconds_left=None)
    return replace(found, holder=named)


def follow(path: str | Path, *, wait: bool = False, every: float = POLL_SECONDS) -> Iterator[Watched | None]:
    """Yield where a run stands, again and again, until nobody is at work in it; None while it is waited for.

    Raises RunError where there is no run, or its folder goes away meanwhile.
    """
    seen = False
    while True:
        run = Run(path)
        if wait and not seen and not (run.manifest_file.exists() or holder(run.path)):
            yield None
        elif seen and not run.path.is_dir():
            raise RunError(f"{run.path}: was deleted or moved while it was watched")
        else:
            state, seen = watch(run), True
            yield state
            if state.is_over:
                return
        time.sleep(every)


def _read(run: Run, manifest: Mapping[str, Any]) -> Watched:
    """Return what the files of a run say; half a line, which is being written, is no line yet."""
    status = manifest.get("status")
    if status not in (runs.RUNNING, runs.DONE, runs.INTERRUPTED, runs.FAILED):
        raise RunError(f"{run.manifest_file}: is not as a run writes it; bring it back from a copy, or train anew")
    rows = _rows(run.metrics_file)
    steps = [row for row in rows if is_number(row.get("step_seconds"))]
    step = max((int(row["step"]) for row in rows), default=0)
    total = _total(run, manifest)
    at_end = status == runs.RUNNING and run.policy_folder.is_dir() and step > 0
    left = None
    if status == runs.RUNNING and not at_end and total and steps:
        recent = [row["step_seconds"] for row in steps[-_RECENT:]]
        left = sum(recent) / len(recent) * max(0, total - step)
    over = status not in (runs.RUNNING, runs.DONE)
    ended: dict[str, Any] = {}
    if status == runs.DONE:
        with contextlib.suppress(TiebreakError):  # a file that is damaged has no verdict
            ended = {"verdict": run.verdict, "reason": str(run.evaluation.get("reason", ""))}
    told = [str(one["text"]) for one in manifest.get("warnings", ())]
    return Watched(
        str(run.path),
        MEASURING if at_end else str(status),
        step=step,
        total=total,
        seconds_left=left,
        seconds_quiet=_quiet(run),
        curves=_curves(rows),
        last={key: value for key, value in (steps[-1] if steps else {}).items() if is_number(value)},
        diagnosis=_diagnosis(run),
        warnings=told,
        error=one_line(manifest.get("error") or "") or None,
        next=_next(run) if over else None,
        **ended,
    )


def _rows(path: Path) -> list[dict[str, Any]]:
    try:
        lines = path.read_bytes().split(b"\n") if path.is_file() else []
    except OSError:
        return []
    found = []
    for line in lines:
        with contextlib.suppress(ValueError, RecursionError):
            row = json.loads(line)
            if isinstance(row, dict) and is_number(row.get("step")):
                found.append(row)
    return found


def _curves(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    found: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        for key, value in row.items():
            if key.startswith(("heldout/", LOOKS)) and is_number(value):
                found.setdefault(key, []).append((int(row["step"]), float(value)))
    return found


def _total(run: Run, manifest: Mapping[str, Any]) -> int | None:
    """Return the steps that a run has: as it wrote them at its end, or by its pairs and settings before."""
    if is_number(manifest.get("num_steps")):
        return int(manifest["num_steps"])
    with contextlib.suppress(TiebreakError, OSError), as_a_run_writes(run.path):
        return num_steps(int(run.data["num_train_pairs"]), run.config.training)
    return None


def _quiet(run: Run) -> float | None:
    """Return the seconds since a file of the run was written that is written all the time."""
    files = (run.manifest_file, run.metrics_file, run.kept_file, run.answers_file)
    with contextlib.suppress(OSError):
        return max(0.0, time.time() - max(file.stat().st_mtime for file in files if file.is_file()))
    return None


def _diagnosis(run: Run) -> str | None:
    """Return the last of what was diagnosed, where anything was."""
    with contextlib.suppress(TiebreakError, OSError, LookupError, TypeError, ValueError):
        file = run.diagnoses_file
        if file.is_file():
            found = json.loads(file.read_text(encoding="utf-8"))["diagnoses"]
            return one_line(f"{found[-1]['title']}: {found[-1]['says']}") if found else None
    return None


def _next(run: Run) -> str:
    """Return the command that goes on with a run; one that wrote no settings yet is begun again as it was."""
    return f"tiebreak train {quoted(str(run.config_file))}" if run.config_file.exists() else "the same command again"
