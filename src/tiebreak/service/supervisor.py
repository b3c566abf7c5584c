"""Jobs carried out: files examined, turns given, workers started, watched and stopped, ends booked. One thread does it.

Owns what follows from what is seen of a worker, and whose turn it is. All that it knows is in the store and in the
folders of jobs: a server that takes over from one that was killed goes on where that was. It can be killed between any
two lines: what a worker is to be called stands in the store before there is one.
"""

from __future__ import annotations

import contextlib
import logging
import math
import sqlite3
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tiebreak.config import Config, dump_config
from tiebreak.config.service import LauncherConfig, ServeConfig
from tiebreak.errors import TiebreakError, one_line
from tiebreak.files import write_json, write_text
from tiebreak.service import booking, jobs, telling, translate
from tiebreak.service.commands import Command
from tiebreak.service.examining import PARAMS, Examination, examine, shown_line
from tiebreak.service.jobs import CANCELLED, PAUSE, PAUSED, QUEUED, RUNNING, VALIDATING, Job
from tiebreak.service.launching import Launcher, Local, ended_here
from tiebreak.service.refusals import Refusal, full_disk
from tiebreak.service.store import Store, now
from tiebreak.service.troubles import Troubles
from tiebreak.service.turns import chosen

_NO_ROOM = "The disk of the service is full; the job goes on, or ends, as soon as there is room."

_LOG = logging.getLogger("uvicorn.error")


@dataclass(frozen=True)
class Pace:
    """How long things wait."""

    look_seconds: float = 0.5
    grace_seconds: float = 30.0
    """Between asking the worker of a job that was cancelled to end and ending it."""
    saving_seconds: float = 1800.0
    """The same of a job that was paused, which has something to save; a worker that hangs never will have."""
    pauses: tuple[float, ...] = (5.0, 30.0, 120.0)
    """Seconds before a worker that died is started again, the last of them from then on."""


def launcher_of(settings: LauncherConfig, store: Store) -> Launcher:
    """Return where workers run; raises ConfigError where the operator's words cannot be filled."""

    def say(job: str, message: str) -> None:
        jobs.note(store, job, message, level="warn", once=f"launcher-{message}")

    return Local() if settings.kind == "local" else Command(settings, say)


@dataclass
class Supervisor:
    """Carries out the jobs of a store until it is closed."""

    store: Store
    settings: ServeConfig
    models: Mapping[str, Config]
    launcher: Launcher
    pace: Pace = Pace()
    _examined: dict[str, Examination] = field(default_factory=dict, init=False, repr=False)
    _silent: Counter[str] = field(default_factory=Counter, init=False, repr=False)
    _troubles: Troubles = field(default_factory=Troubles, init=False, repr=False)
    _looked: dict[str, float] = field(default_factory=dict, init=False, repr=False)
    """When a file of each key was last examined."""
    _over: dict[str, float] = field(default_factory=dict, init=False, repr=False)
    """Jobs whose worker is gone, which stand as running until that is booked; and when it was last tried."""
    _woken: threading.Event = field(default_factory=threading.Event, init=False, repr=False)
    _closed: threading.Event = field(default_factory=threading.Event, init=False, repr=False)
    _thread: threading.Thread | None = field(default=None, init=False, repr=False)

    def start(self) -> None:
        """Begin, in a thread of its own."""
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Look now: a client has said something."""
        self._woken.set()

    def close(self) -> None:
        """End the thread; workers go on, and the next server finds them."""
        self._closed.set()
        self._woken.set()
        if self._thread is not None:
            self._thread.join()
        for examination in self._examined.values():
            examination.end()
        self._examined.clear()

    def _run(self) -> None:
        said = ""
        while not self._closed.is_set():
            try:
                self.look()
                said = ""
            except Exception as error:  # noqa: BLE001 - the database is locked or damaged: the next look may go well
                if (what := f"{type(error).__name__}: {error}") != said:
                    _LOG.exception("the supervisor could not look at the jobs, and tries again until it can")
                said = what
            self._woken.wait(self.pace.look_seconds)
            self._woken.clear()

    def look(self) -> None:
        """Look once at every job that has not come to rest, and do what follows."""
        for job in jobs.in_states(self.store, (RUNNING,)):
            if time.monotonic() - self._over.get(job.id, -math.inf) >= self.pace.pauses[0]:
                self._mind(job, self._watch)
        for job in self._being_stopped():
            self._mind(job, self._end_worker)
        validating = jobs.in_states(self.store, (VALIDATING,))
        for job in validating:
            if job.id in self._examined and self._examined[job.id].is_over:
                self._mind(job, self._hear)
        examined = [job for job in validating if job.id in self._examined]
        stuck = self._troubles.jobs()  # what goes wrong with one job holds up no other
        waiting = sorted((job for job in validating if job not in examined), key=lambda job: job.id in stuck)
        for job in chosen(waiting, examined, self.settings.limits.workers, self._looked):
            self._mind(job, self._examine)
        for name in [name for name in self._examined if jobs.find(self.store, name).state != VALIDATING]:
            self._examined.pop(name).end()
        standing, stopped = jobs.in_states(self.store, (RUNNING,)), self._being_stopped()
        queued = jobs.in_states(self.store, (QUEUED,))
        self._over = {job.id: self._over[job.id] for job in standing if job.id in self._over}
        open_jobs = {job.id for job in (*validating, *queued, *standing, *stopped)}
        self._troubles.forget_all_but(open_jobs)
        self._silent = Counter({name: num for name, num in self._silent.items() if name in open_jobs})
        running = [*(job for job in standing if job.id not in self._over), *stopped]
        waiting = [job for job in queued if job.next_at <= time.time()]
        waiting = [job for job in waiting if not self._troubles.rests((job.id, "_begin"), self.pace.pauses[0])]
        for job in chosen(waiting, running, self.settings.limits.workers, jobs.last_begun(self.store)):
            self._mind(job, self._begin)

    def _mind(self, job: Job, look: Callable[[Job], None]) -> None:
        """Look at one job; what goes wrong with it holds up no other, and is forgotten once that look goes well."""
        this = (job.id, look.__name__)
        try:
            look(job)
            self._troubles.passed(this)
        except (TiebreakError, Refusal) as error:
            code, param = "invalid_settings", None
            if isinstance(error, Refusal):
                code, param = error.code or "invalid_request", error.param
            self._fail(job, code, shown_line(str(error), self.store.job_folder(job.id), {}), param)
        except Exception as error:  # noqa: BLE001 - a full disk, a locked database, a fault of ours
            if full_disk(error) is not None:
                with contextlib.suppress(OSError, sqlite3.Error):  # it may find its place all the same
                    jobs.note(self.store, job.id, _NO_ROOM, level="warn", once="no-room")
            if (why := self._troubles.met(this, error)) is not None:
                self._fail(job, "server_error", why)

    def _fail(self, job: Job, code: str, message: str, param: str | None = None) -> None:
        """End a job with an error, and ask its worker to end; one that was cancelled has ended, and stays so."""
        if job.state == CANCELLED:
            return
        if job.worker is not None:
            with contextlib.suppress(OSError, TiebreakError):
                self.launcher.stop(dict(job.worker), None)
        with contextlib.suppress(OSError, sqlite3.Error):
            booking.fail(self.store, job, {"code": code, "param": param, "message": message}, job.state)

    def _being_stopped(self) -> list[Job]:
        """Return jobs that were cancelled and whose workers may still be there: they take their slots."""
        return [job for job in jobs.in_states(self.store, (CANCELLED,)) if job.worker is not None]

    # ------------------------------------------------------------------------------------------------ before its turn

    def _examine(self, job: Job) -> None:
        self._looked[job.key] = time.monotonic()
        self._lay_out(job)
        self._examined[job.id] = examine(self.store.job_folder(job.id))

    def _hear(self, job: Job) -> None:
        told = self._examined.pop(job.id).result(self._names(job), self._config(job).data.allow)
        if told is None:
            self._silent[job.id] += 1
            if self._silent[job.id] > self.settings.limits.attempts:
                message = "the files could not be examined: the doctor came to no end; try again, or ask the operator"
                booking.fail(self.store, job, {"code": "server_error", "param": None, "message": message}, VALIDATING)
            return
        if told.error is not None:
            booking.fail(self.store, job, told.error, VALIDATING)
            return
        with self.store.writing():
            to = PAUSED if jobs.find(self.store, job.id).wanted == PAUSE else QUEUED
            if jobs.move(self.store, job.id, (VALIDATING,), to, wanted=""):
                for number, warning in enumerate(told.warnings):
                    jobs.note(self.store, job.id, warning, level="warn", once=f"found-{number}")
                said = "Files validated, moving job to queued state" if to == QUEUED else "The job has been paused."
                jobs.note(self.store, job.id, said)

    def _config(self, job: Job) -> Config:
        return translate.configuration(self.store, self.models, self.settings, job)

    def _lay_out(self, job: Job) -> None:
        translate.lay_out(self.store, job)
        write_text(self.store.job_folder(job.id) / "config.yaml", dump_config(self._config(job)))

    def _names(self, job: Job) -> dict[str, str]:
        """Return what the client calls the job's files; one that it has deleted meanwhile by its id."""
        found = {}
        for name, param in PARAMS.items():
            if (file := job.body.get(param)) is not None:
                row = self.store.row("select filename from files where id = ?", file)
                found[name] = str(file if row is None else row["filename"])
        return found

    # ------------------------------------------------------------------------------------------------------- its worker

    def _begin(self, job: Job) -> None:
        folder = self.store.job_folder(job.id)
        attempt = int(job.read_to.get("starts", 0)) + 1
        if not (folder / "config.yaml").exists():
            self._lay_out(job)
        form = "merged" if self._config(job).adapter.trains_all else self.settings.export
        write_json(folder / "work.json", {"form": form, "attempt": attempt})
        handle = {"folder": str(folder), "job": job.id, "attempt": attempt}
        seen = {**job.read_to, "starts": attempt}
        with self.store.writing():
            started = {"started": job.started or now(), "worker": handle, "read_to": seen}
            if not jobs.move(self.store, job.id, (QUEUED,), RUNNING, **started):
                return
            jobs.note(self.store, job.id, "Fine-tuning job started", once="started")
        try:
            told = self.launcher.start(handle, [sys.executable, "-m", "tiebreak.service.work", str(folder)])
        except (OSError, TiebreakError) as error:
            _LOG.warning("%s: its worker could not be started: %s", job.id, one_line(error, 300))
            self._gone(jobs.find(self.store, job.id), None, "its worker could not be started")
            return
        jobs.amend(self.store, job.id, (RUNNING, CANCELLED), worker=told)

    def _watch(self, job: Job) -> None:
        handle = dict(job.worker or {})
        if (state := self.launcher.poll(handle)) != "running":
            self._over[job.id] = time.monotonic()
        telling.follow(self.store, job)
        if state != "running":
            self._gone(jobs.find(self.store, job.id), ended_here(handle))
        elif job.wanted == PAUSE or handle.get("asked") is not None:
            self._stop(job, self.pace.saving_seconds)

    def _end_worker(self, job: Job) -> None:
        """Stop the worker of a job that was cancelled; its slot is free once it is gone."""
        if self.launcher.poll(dict(job.worker or {})) == "running":
            self._stop(job, self.pace.grace_seconds)
        else:
            jobs.amend(self.store, job.id, (CANCELLED,), worker=None)

    def _stop(self, job: Job, grace: float) -> None:
        before = dict(job.worker or {})
        if (told := self.launcher.stop(before, grace)) != before:
            jobs.amend(self.store, job.id, (RUNNING, CANCELLED), worker=told)

    def _gone(self, job: Job, ended: Mapping[str, Any] | None, why: str | None = None) -> None:
        """Book what follows from the end of a worker; of a job that was cancelled meanwhile, nothing but that."""
        if job.state != RUNNING:
            return
        folder = self.store.job_folder(job.id)
        step = max(telling.kept_steps(folder / "run"), default=0)
        progress = step > int(job.read_to.get("died_at", 0))
        found = booking.after(job, ended, self.settings.limits.attempts, progress=progress)
        if found.to == "succeeded":
            booking.succeed(self.store, self.settings, job)
            return
        message = shown_line(why or found.message, folder, self._names(job))
        if found.to == "failed":
            told = {"code": booking.code_of(ended), "param": None, "message": message}
            booking.fail(self.store, job, told, RUNNING)
            return
        with self.store.writing():
            current = jobs.find(self.store, job.id)
            paused = current.wanted == PAUSE
            died = found.to == "queued" and found.attempts != job.attempts
            pause = self.pace.pauses[min(found.attempts, len(self.pace.pauses)) - 1] if died else 0.0
            seen = {**current.read_to, "died_at": step} if died else current.read_to
            changes = {"worker": None, "wanted": "", "estimated": None, "attempts": found.attempts, "read_to": seen}
            if jobs.move(
                self.store, job.id, (RUNNING,), PAUSED if paused else QUEUED, next_at=time.time() + pause, **changes
            ):
                if paused:
                    unsaved = "" if ended else " Its worker left no word: it will go on from its last checkpoint."
                    jobs.note(self.store, job.id, f"The job has been paused.{unsaved}")
                elif died:
                    said = f"The job goes on from its last checkpoint in {pause:.0f} seconds: {message}"
                    jobs.note(self.store, job.id, said, level="warn", once=f"died-{job.read_to.get('starts')}")
