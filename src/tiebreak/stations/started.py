"""A server that a command starts, for as long as it is asked.

Owns that it answers before anybody asks, that nothing of it is left behind, not even by a loop that was killed, and
where its output goes. A loop has one server at a time, and one record of it, in whatever round it was started.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil

from tiebreak.engine.answers.server import Endpoint
from tiebreak.engine.answers.steering import is_there
from tiebreak.errors import ModelError, RunError, one_line
from tiebreak.files import opened, read_json_object, sweep, write_json
from tiebreak.progress import Progress
from tiebreak.secrecy import masked

STOP_SECONDS = 10.0
"""How long a server may take to end before it is killed."""
_POLL = 0.2
_OF_THIS = Path("/proc/self/stat")
"""Where Linux tells when a process began, by a clock that nobody sets; other systems tell the time of day."""


@contextlib.contextmanager
def started(
    words: Sequence[str], endpoint: Endpoint, within_seconds: float, work: Path, progress: Progress, *, loop: Path
) -> Iterator[None]:
    """Start a command, wait until its server answers, and end it with everything that it started.

    Its output is added to server.log in the folder `work`; the record of it is in the folder of the `loop`. Raises
    ModelError where somebody else answers there already, and where it ends or does not answer in time.
    """
    record = loop / _RECORD
    _stop_left_behind(record, progress)
    if is_there(endpoint):
        raise ModelError(f"{endpoint.where}: somebody answers there already, and it is not our command; stop it")
    log = work / "server.log"
    with opened(log) as output:
        try:
            process = subprocess.Popen(  # noqa: S603 - the user's own command, without a shell
                list(words), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
        except OSError as error:
            raise ModelError(f"rounds.engine.command: {words[0]}: cannot be started ({error.strerror})") from None
    try:
        write_json(record, {"pid": process.pid, "began": _began(process.pid)})
        until = time.monotonic() + within_seconds
        with progress.stage("starting the server", None):
            while not is_there(endpoint):
                if process.poll() is not None:
                    raise ModelError(f"{_told(words)}: ended with {process.returncode} before it answered{_last(log)}")
                if time.monotonic() > until:
                    raise ModelError(
                        f"{_told(words)}: does not answer at {endpoint.base_url} within rounds.engine.start_seconds "
                        f"{within_seconds:g}{_last(log)}"
                    )
                time.sleep(_POLL)
        yield
    finally:
        _end(process.pid, lambda: process.poll() is None)
        process.wait()
        record.unlink(missing_ok=True)


_RECORD, _SERVED = ".server.json", "served"


def served_copy(loop: Path) -> Path:
    """Return where whole weights are written for a server that cannot read a round's policy as it stands."""
    return loop / _SERVED


def clear_left_behind(loop: Path, progress: Progress) -> None:
    """End and remove what a loop left that was killed: its server, the copy of weights for it, files half written.

    For whoever holds the lock of the loop, before a station is looked for: one that is done is not begun again,
    and its server would stay.
    """
    _stop_left_behind(loop / _RECORD, progress)
    shutil.rmtree(served_copy(loop), ignore_errors=True)
    for folder in (loop, *(one for one in loop.glob("*") if one.is_dir())):
        sweep(folder)


def _stop_left_behind(record: Path, progress: Progress) -> None:
    """End what a loop started that was killed: a process of that number that began when it did."""
    if not record.exists():
        return
    with contextlib.suppress(RunError, KeyError, TypeError, ValueError):
        told = read_json_object(record)
        pid, began = int(told["pid"]), told["began"]
        if began is not None and _began(pid) == began:
            progress.say(f"the server that a loop before left behind (process {pid}) is stopped")
            _end(pid, lambda: _began(pid) == began)
    record.unlink(missing_ok=True)


def _began(pid: int) -> str | None:
    """Return when a process that is alive began, in whatever the system counts; None where it cannot be told."""
    with contextlib.suppress(OSError, IndexError, psutil.Error):
        if _OF_THIS.exists():
            text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
            state, *rest = text.rpartition(")")[2].split()
            return None if state in "ZX" else rest[18]
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else str(process.create_time())
    return None


def _end(pid: int, is_alive: Callable[[], bool]) -> None:
    """End the group of processes that one began: asked first, killed where it does not heed."""
    for number in (signal.SIGTERM, signal.SIGKILL):  # the second also for what outlives the first process
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, number)
        until = time.monotonic() + STOP_SECONDS
        while is_alive() and time.monotonic() < until:
            time.sleep(0.05)


def _told(words: Sequence[str]) -> str:
    return f"rounds.engine.command: {one_line(masked(shlex.join(words)), 200)}"


def _last(log: Path) -> str:
    """Return the last line of a log, for messages."""
    with contextlib.suppress(OSError):
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
            lines = file.read().decode("utf-8", "replace").split("\n")
        if said := next((one_line(masked(line), 200) for line in reversed(lines) if line.strip()), ""):
            return f"; it said: {said} ({log})"
    return f" ({log})"
