"""Where trials run: in this process, or as jobs of submitit, which knows Slurm and processes of this machine.

Owns what is handed to a job. A job is told by one text what to do; its notes come back the same way, and all else by
the sweep's folder, which it has to see.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from tiebreak.campaigns.campaign import Planned
from tiebreak.campaigns.proposals import falls_behind
from tiebreak.campaigns.trials import FAILED, Ended, Journal, Probed, Trial, carried_out
from tiebreak.config import SweepConfig, build_config
from tiebreak.errors import ConfigError, Preempted, one_line
from tiebreak.progress import Progress, Silent
from tiebreak.training.company import Company
from tiebreak.training.preemption import STOP_SIGNALS, listening

POLL_SECONDS = 1.0
LAST_POLLS = 60
"""How often it is looked whether jobs that were cancelled have ended: Slurm kills them half a minute after it asked."""
LONGEST_MINUTES = 24 * 60
"""A job's time where nothing is said of it: submitit's own is five minutes."""


class Launcher(Protocol):
    """Carries out trials somewhere."""

    def launch(self, trials: Sequence[Trial]) -> Iterator[Ended]:
        """Yield how each trial ended, as it ends; the next one may look at what was noted of those before."""


def launcher_of(settings: SweepConfig, folder: Path, progress: Progress) -> Launcher:
    """Return the launcher that a sweep names; raises ConfigError where it needs a package that is not there."""
    if settings.launcher == "here":
        return Here(settings, folder, progress)
    return Jobs(settings, folder, progress)


def journal_of(folder: Path) -> Journal:
    """Return the notes of the sweep in a folder."""
    return Journal(folder / "trials.jsonl")


class Here:
    """Trials run one after the other in this process: pairs are read, examined and rendered once for all."""

    def __init__(self, settings: SweepConfig, folder: Path, progress: Progress) -> None:
        self._settings = settings
        self._journal = journal_of(folder)
        self._progress = progress
        self._company = Company(answers=folder / "reference", aside=folder / "confirming.jsonl")

    def launch(self, trials: Sequence[Trial]) -> Iterator[Ended]:
        """Yield how each trial ended."""
        for trial in trials:
            num_probes = trial.planned.config.evaluation.probes

            def behind(probes: Sequence[Probed], num_probes: int = num_probes) -> str | None:
                return falls_behind(self._settings, self._journal.ended, probes, num_probes)

            yield carried_out(trial, self._company, behind, self._progress)


class Jobs:
    """Trials run as jobs beside each other: as an array of Slurm, or as processes of this machine."""

    def __init__(self, settings: SweepConfig, folder: Path, progress: Progress) -> None:
        try:
            import submitit  # noqa: PLC0415 - an extra
        except ImportError:
            raise ConfigError(
                f"sweep.launcher {settings.launcher}: needs submitit; pip install 'tiebreak[slurm]'"
            ) from None
        _asked_by()
        self._settings = settings
        self._folder = folder
        self._progress = progress
        told = {"name": "tiebreak-sweep", "timeout_min": LONGEST_MINUTES, **settings.slurm}
        try:
            self._executor = submitit.AutoExecutor(folder=folder / "jobs", cluster=settings.launcher)
            self._executor.update_parameters(**told, slurm_array_parallelism=settings.at_once)
        except (RuntimeError, NameError, AssertionError) as error:  # no Slurm, or a parameter that it does not have
            raise ConfigError(f"sweep.launcher {settings.launcher}: {one_line(error, 200)}") from None

    def launch(self, trials: Sequence[Trial]) -> Iterator[Ended]:
        """Yield how each trial ended; Slurm gets them as one array, of which so many run at the same time.

        Where nobody waits for them any more, since an error or a signal ended the sweep, jobs are cancelled, and their
        ends waited for: the same command submits their trials again, and each goes on from its last checkpoint.
        """
        at_once = len(trials) if self._settings.launcher == "slurm" else self._settings.at_once
        running: dict[Any, Trial] = {}
        with listening() as stop:
            try:
                for start in range(0, len(trials), at_once):
                    some = trials[start : start + at_once]
                    told = [self._told(one) for one in some]
                    with stop.held():  # a job whose number is not known could not be cancelled
                        running |= zip(self._submitted(told), some, strict=True)
                    stop.check()
                    self._progress.say(f"{len(running)} jobs: {', '.join(one.job_id for one in running)}")
                    while running:
                        for one in [one for one in running if one.done()]:
                            yield self._ended(one, running.pop(one))
                        time.sleep(POLL_SECONDS)
            finally:
                self._cancel(running)

    def _submitted(self, told: Sequence[str]) -> list[Any]:
        """Return the jobs that carry out what is told; raises ConfigError with the scheduler's words where it refuses.

        Ctrl-C and the end of a terminal reach all processes of it: jobs of this machine are left to hear of it from
        here, since what stands between would kill them a second after it heard. Each is given one card, in turns.
        """
        is_local = self._settings.launcher == "local"
        cards = _cards() if is_local else []
        given = [cards[at % len(cards)] if cards else None for at in range(len(told))]
        try:
            with _held_back(signal.SIGINT, signal.SIGHUP) if is_local else contextlib.nullcontext():
                return list(self._executor.map_array(job, told, given))
        except RuntimeError as error:  # what submitit makes of an sbatch that ends with an error
            raise ConfigError(
                f"sweep.launcher {self._settings.launcher}: submitting failed ({one_line(error, 300)}); look at "
                "sweep.slurm"
            ) from None

    def _cancel(self, running: Collection[Any]) -> None:
        """Cancel jobs and wait for their ends: until then they have their runs, and nobody else can go on with them."""
        for one in running:
            if self._settings.launcher == "local" and not one.done():
                os.kill(int(one.job_id), signal.SIGTERM)  # submitit's SIGINT is a SIGKILL after a second
            else:
                one.cancel(check=False)
        left = list(running)
        if left:
            self._progress.say(f"{len(left)} jobs are cancelled; they save what they have, which is waited for")
        for _ in range(LAST_POLLS):
            # One question is about all jobs, and what it found answers for the others.
            left = [one for at, one in enumerate(left) if not one.done(force_check=at == 0)]
            if not left:
                return
            time.sleep(POLL_SECONDS)
        names = ", ".join(one.job_id for one in left)
        self._progress.warn(f"jobs that have not ended yet: {names}; once they have, the same command goes on")

    def _told(self, trial: Trial) -> str:
        return json.dumps(
            {
                "folder": str(self._folder.absolute()),
                "name": trial.name,
                "settings": dict(trial.settings),
                "config": trial.planned.config.model_dump(mode="json"),
                "sweep": self._settings.model_dump(mode="json"),
            }
        )

    @staticmethod
    def _ended(one: Any, trial: Trial) -> Ended:
        if (error := one.exception()) is None:
            return Ended.from_dict(json.loads(one.result()))
        *_, last = type(error).__name__, *str(error).strip().splitlines()
        says = f"its job {one.job_id} ended with {one_line(last, 200)}"
        return Ended(trial.name, dict(trial.settings), FAILED, (), 0.0, 0, f"{says}; {one.paths.stderr}")


def _cards() -> list[str]:
    """Return what the cards are called that this process may use; none where there are none."""
    if (told := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [one.strip() for one in told.split(",") if one.strip()]
    import torch  # noqa: PLC0415 - dear, and asked for by this alone

    return [str(one) for one in range(torch.cuda.device_count())]


def _asked_by() -> signal.Signals:
    """Return the signal by which submitit says that a job's time is nearly over.

    Raises ConfigError where that is one at which a run saves nothing, or one that cancels jobs.
    """
    import submitit  # noqa: PLC0415 - an extra

    cancelling = signal.SIGTERM, signal.SIGINT, signal.SIGHUP
    known = {one.name.removeprefix("SIG"): one for one in STOP_SIGNALS if one not in cancelling}
    if (named := submitit.JobEnvironment.USR_SIG) not in known:
        raise ConfigError(
            f"SUBMITIT_PREEMPT_SIGNAL is {named[:80]!r}; set it to one of {', '.join(known)}, or unset it"
        )
    return known[named]


@contextlib.contextmanager
def _held_back(*signals: signal.Signals) -> Iterator[None]:
    """Let signals wait for the end of the block; processes that are started in it never get them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def job(told: str, card: str | None = None) -> str:
    """Carry out one trial in a process of its own, on one card where it is given one; takes and returns JSON.

    Where its time is nearly over it saves, and leaves to submitit whether it is queued again.
    """
    if card is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = card  # submitit gives each job none, or the first
    try:
        with listening() as stop:
            asked = json.loads(told)
            config = build_config(asked["config"], where=asked["name"])
            trial = Trial(asked["settings"], Planned(asked["name"], config))
            here = Here(SweepConfig.model_validate(asked["sweep"]), Path(asked["folder"]), Silent())
            [ended] = here.launch([trial])
    except Preempted:
        if stop.asked_by == (asking := _asked_by()).name:
            signal.raise_signal(asking)
        raise
    return json.dumps(asdict(ended))
