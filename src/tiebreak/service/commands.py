"""Workers that a scheduler runs: three commands of the operator submit one, ask after it, and cancel it.

Owns how their words are filled and what is made of what they print. No shell reads them. The folder of a job, which
both sides see, decides how a worker ended; the scheduler is asked only while it has not said so.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import string
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from tiebreak.config.service import STANDS_IN, LauncherConfig
from tiebreak.errors import ConfigError, RunError, one_line
from tiebreak.service.launching import LOCK, LOG, Handle, State, ended_here, is_held, take

MOST_SILENCES = 5
"""Failures of the status command in a row after which a worker counts as lost."""

SETTLE_SECONDS = 60.0
"""How long a folder that machines share may take to show what a worker wrote that the scheduler says has ended."""

_COMMAND_SECONDS = 60.0
_NAMES = {word.strip("{}") for word in STANDS_IN}


def check_words(settings: LauncherConfig) -> None:
    """Raise ConfigError where the operator's words hold what nothing stands for, or a pattern finds no handle."""
    for key in ("submit", "status", "cancel"):
        known = _NAMES - ({"handle"} if key == "submit" else set())
        for word in getattr(settings, key):
            for name in _names_in(f"launcher.{key}", word):
                if name not in known:
                    there = ", ".join(sorted(f"{{{one}}}" for one in known))
                    raise ConfigError(
                        f"launcher.{key}: {{{name}}} stands for nothing; there are {there}, and {{{{ is a bracket"
                    )
    try:
        if re.compile(settings.handle).groups < 1:
            raise ConfigError("launcher.handle: wanted a pattern with a group, which is the handle")
    except re.error as error:
        raise ConfigError(f"launcher.handle: is no pattern ({error})") from None


def _names_in(key: str, word: str) -> list[str]:
    try:
        parts = [(name, form, how) for _, name, form, how in string.Formatter().parse(word) if name is not None]
    except ValueError as error:
        raise ConfigError(f"{key}: {word!r} cannot be filled ({error}); {{{{ is a bracket") from None
    if found := [name for name, form, how in parts if form or how]:
        raise ConfigError(f"{key}: {word!r} says more about {{{found[0]}}} than its name; {{{{ is a bracket")
    return [name for name, _, _ in parts]


def filled(words: Sequence[str], told: Mapping[str, str]) -> list[str]:
    """Return the words of a command with what stands for each name; what is put in is never read again."""
    return ["".join(_parts(word, told)) for word in words]


def _parts(word: str, told: Mapping[str, str]) -> list[str]:
    return [text + (told[name] if name is not None else "") for text, name, _, _ in string.Formatter().parse(word)]


class Command:
    """Workers run where the operator's commands put them."""

    def __init__(
        self,
        settings: LauncherConfig,
        say: Callable[[str, str], None],
        *,
        settle_seconds: float | None = None,
    ) -> None:
        """`say` is told a job and what its owner should know of it, once for each word."""
        check_words(settings)
        self._settings = settings
        self._say = say
        self._settle_seconds = SETTLE_SECONDS if settle_seconds is None else settle_seconds
        self._asked_at: dict[str, float] = {}
        self._silences: dict[str, int] = {}
        self._over_since: dict[str, float] = {}

    def start(self, handle: Handle, argv: Sequence[str]) -> Handle:
        """Submit a worker, or find the one that was submitted for that attempt.

        What submitting prints goes to a file whose lock the command holds, so that the handle is found also by a server
        that takes over from one that died meanwhile.
        """
        file = _printed_file(handle)
        lock = take(file)
        if lock is None or self._number(handle) is not None:
            if lock is not None:
                os.close(lock)
            return handle
        told = self._told(handle) | {"command": shlex.join(argv)}
        try:
            with os.fdopen(os.dup(lock), "wb") as out, (Path(handle["folder"]) / LOG).open("ab") as log:
                out.truncate(0)
                fault = _run_to_its_end(filled(self._settings.submit, told), out, log)
        except OSError as error:
            fault = one_line(error, 300)
        finally:
            os.close(lock)
        number = self._number(handle)
        if number is None and fault is None:
            fault = (
                f"printed {one_line(file.read_text(errors='replace'), 200)!r}, in which launcher.handle finds nothing"
            )
        if fault is not None:
            if number is None or not self._is_known(handle):
                file.unlink(missing_ok=True)
                raise RunError(f"launcher.submit: {fault}")
            self._say(handle["job"], f"Submitting failed ({fault}), but the scheduler has the job, which goes on.")
        return handle | {"handle": number}

    def poll(self, handle: Handle) -> State:
        """Return how a worker stands; the scheduler is asked once in `poll_seconds`."""
        place = str(_printed_file(handle))
        if ended_here(handle) is not None:
            self._forget(place)
            return "done"
        if self._number(handle) is None:
            return "running" if is_held(Path(place)) else "lost"
        now = time.monotonic()
        if place not in self._over_since and now - self._asked_at.get(place, -1e9) >= self._settings.poll_seconds:
            self._asked_at[place] = now
            if self._is_over(handle, place):
                self._over_since[place] = now
        if now - self._over_since.get(place, now) < self._settle_seconds:
            return "running"
        with contextlib.suppress(OSError):  # a shared folder without locks says nothing
            if is_held(Path(handle["folder"]) / LOCK):
                return "running"
        self._forget(place)
        return "lost"

    def stop(self, handle: Handle, grace: float | None) -> Handle:
        """Cancel a worker, and again where it was cancelled `grace` seconds ago and is still there."""
        now = time.time()
        if (asked := handle.get("asked")) is not None and (grace is None or 0 <= now - asked < grace):
            return handle
        if self._number(handle) is None:
            return handle
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            self._run(self._settings.cancel, handle)
        return handle | {"asked": now}

    def _is_known(self, handle: Handle) -> bool:
        """Ask the scheduler whether it has a worker that waits or runs."""
        said, states = self._said(handle), self._settings.states
        return said is not None and states.get(said, states.get(said.partition(" ")[0])) == "running"

    def _said(self, handle: Handle) -> str | None:
        """Return what the scheduler says of a worker; None where it does not answer."""
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            done = self._run(self._settings.status, handle)
            if done.returncode == 0:
                return one_line(done.stdout.decode(errors="replace"), 100)
        return None

    def _is_over(self, handle: Handle, place: str) -> bool:
        """Ask the scheduler whether a worker has ended, or cannot be asked after any more."""
        said, states = self._said(handle), self._settings.states
        if said is None or (not said and "" not in states):
            self._silences[place] = self._silences.get(place, 0) + 1
            return self._silences[place] >= MOST_SILENCES
        self._silences.pop(place, None)
        word = said if said in states else said.partition(" ")[0]  # as in CANCELLED by 1000
        state = states.get(word)
        if state is None:
            self._say(handle["job"], f"The scheduler says {word!r}, which launcher.states does not name.")
        return state in ("done", "lost")

    def _run(self, words: Sequence[str], handle: Handle) -> subprocess.CompletedProcess[bytes]:
        told = self._told(handle) | {"handle": str(self._number(handle)), "command": ""}
        return subprocess.run(  # noqa: S603 - the operator's words
            filled(words, told),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            start_new_session=True,
            timeout=_COMMAND_SECONDS,
            check=False,
        )

    def _told(self, handle: Handle) -> dict[str, str]:
        return {
            "job": str(handle["job"]),
            "attempt": str(handle["attempt"]),
            "folder": str(handle["folder"]),
            "python": sys.executable,
        }

    def _number(self, handle: Handle) -> str | None:
        """Return what the scheduler calls a worker, as submitting it printed; None where it has not."""
        with contextlib.suppress(OSError):
            said = _printed_file(handle).read_text(errors="replace")
            if (found := re.search(self._settings.handle, said)) is not None:
                return found[1]
        return None

    def _forget(self, place: str) -> None:
        for known in (self._asked_at, self._silences, self._over_since):
            known.pop(place, None)


def _run_to_its_end(words: Sequence[str], out: IO[bytes], log: IO[bytes]) -> str | None:
    """Run a command that submits, and say what went wrong; after that nothing that it started submits any more."""
    with subprocess.Popen(  # noqa: S603 - the operator's words
        words, stdin=subprocess.DEVNULL, stdout=out, stderr=log, start_new_session=True
    ) as process:
        try:
            code = process.wait(_COMMAND_SECONDS)
        except BaseException as error:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                return one_line(error, 300)
            raise
    return None if code == 0 else f"ended with {code}; {LOG} of the job says more"


def _printed_file(handle: Mapping[str, Any]) -> Path:
    """Return where what submitting an attempt printed is kept."""
    return Path(handle["folder"]) / f"submitted-{handle['attempt']}.txt"
