"""Where workers run, and how it is known that one lives: the seam, and processes of this machine.

Owns that no second worker begins in a folder while one lives. A worker holds the lock of its folder, which is taken
before it exists and is handed to it: the lock belongs to the open file, so that it is held exactly as long as the
worker lives, whatever becomes of the server meanwhile. Knows nothing of what a worker does.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import psutil

from tiebreak import folders
from tiebreak.errors import one_line
from tiebreak.secrecy import masked, secrets_of

LOCK, LOG, ENDED = ".worker", "worker.log", "ended.json"
"""Files of a job's folder: the lock, which says who holds it; all that a worker said; and how it ended."""

NICE = 5
"""How much a worker stands back behind the server that answers meanwhile."""

_SIGNATURE = 256
_LOOKED_AT = 4096
_LOG = logging.getLogger("uvicorn.error")
_LAST_SECONDS = 5.0
"""How long a worker that holds its lock no more may take to be gone."""

Handle = dict[str, Any]
"""What finds a worker again, also by another server: `folder`, `job`, `attempt`; as JSON takes it."""
State = Literal["running", "done", "lost"]


class Launcher(Protocol):
    """Runs workers somewhere that shares the folders of jobs."""

    def start(self, handle: Handle, argv: Sequence[str]) -> Handle:
        """Start a worker, or find the one that lives in that folder; return what is known of it.

        Raises OSError or TiebreakError where none could be started.
        """

    def poll(self, handle: Handle) -> State:
        """Return running; done, where the worker left word how its attempt ended; or lost, where it did not."""

    def stop(self, handle: Handle, grace: float | None) -> Handle:
        """Ask a worker to end, and return at once; called again after `grace` seconds, it ends the worker.

        Without a grace it is asked alone: what it has to save may take as long as it takes.

        What is returned says since when it is asked, and is what to call it with again.
        """


def ended(folder: Path) -> dict[str, Any] | None:
    """Return what a worker left about its end: exit, message, attempt; None where it left nothing that can be read."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        told = json.loads((folder / ENDED).read_text(encoding="utf-8"))
        if isinstance(told, dict) and isinstance(told.get("exit"), int):
            return told
    return None


def ended_here(handle: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return how the attempt of a handle ended; None where nothing says so."""
    told = ended(Path(handle["folder"]))
    return told if told is not None and told.get("attempt") == handle["attempt"] else None


# --------------------------------------------------------------------------------------------------------------- locks


def take(path: Path, *, wait: bool = False) -> int | None:
    """Return an open file whose lock is held by it, made where there is none; None where another has it.

    Raises OSError where the file system has no locks, or the file is not at its path any more once it is locked.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        if wait:
            fcntl.flock(handle, fcntl.LOCK_EX)
        elif not folders.seized(handle):
            os.close(handle)
            return None
        if not folders.stands_at(path, handle):
            raise OSError(errno.ESTALE, "was deleted or moved as its lock was taken", str(path))
    except BaseException:
        os.close(handle)
        raise
    return handle


def is_held(path: Path) -> bool:
    """Whether somebody holds the lock of a file."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return folders.is_held(handle)
    finally:
        os.close(handle)


def sign(lock: int, pid: int) -> None:
    """Say in a locked file which process holds it: one write of one length, so that nobody reads half of it."""
    told = {"pid": pid, "begun": begun(pid), "host": os.uname().nodename}
    os.pwrite(lock, json.dumps(told).ljust(_SIGNATURE).encode(), 0)


def signature(folder: Path) -> dict[str, Any]:
    """Return who signed the lock of a folder last; nothing where nobody has."""
    with contextlib.suppress(OSError, ValueError):
        told = json.loads((folder / LOCK).read_bytes())
        if isinstance(told, dict):
            return told
    return {}


def begun(pid: int) -> str | None:
    """Return when a process began, in a form that is another one for another process of that number; None for none."""
    try:
        if Path("/proc/self/stat").exists():
            # The name, which may hold anything, ends with the last bracket; field 22 counts from the start.
            return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[19]
        return str(psutil.Process(pid).create_time())
    except (OSError, psutil.Error):
        return None


# ------------------------------------------------------------------------------------------------------- this machine


class Local:
    """Workers are processes of this machine, each in a session of its own."""

    def __init__(self) -> None:
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, handle: Handle, argv: Sequence[str]) -> Handle:
        """Start a worker, or find the one that lives in that folder."""
        folder = Path(handle["folder"])
        lock = take(folder / LOCK)
        if lock is None:
            return handle | {"pid": signature(folder).get("pid")}
        try:
            with (folder / LOG).open("ab") as log:
                child = subprocess.Popen(  # noqa: S603 - words of ours
                    [*argv, "--lock", str(lock)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    pass_fds=(lock,),
                )
            # The worker signs as well, should this process die now.
            sign(lock, child.pid)
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, child.pid, NICE)
        finally:
            os.close(lock)
        self._children[handle["folder"]] = child
        return handle | {"pid": child.pid}

    def poll(self, handle: Handle) -> State:
        """Return how a worker stands."""
        folder = Path(handle["folder"])
        if is_held(folder / LOCK):
            return "running"
        if (child := self._children.get(handle["folder"])) is not None:
            # Its files are closed a moment before it can be taken from the table of processes, and nobody asks again.
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = child.wait(_LAST_SECONDS)
                del self._children[handle["folder"]]
                if ended_here(handle) is None and handle.get("asked") is None:
                    _tell_silent_end(handle, code)
        _end_orphans(signature(folder))
        return "lost" if ended_here(handle) is None else "done"

    def stop(self, handle: Handle, grace: float | None) -> Handle:
        """Send SIGTERM, or SIGKILL to all of its session where it was asked `grace` seconds ago."""
        folder, now = Path(handle["folder"]), time.time()
        if not is_held(folder / LOCK):
            return handle
        told = signature(folder)
        if not _is_here(told):
            return handle  # it has only just begun, and has not signed
        if (asked := handle.get("asked")) is None:
            _send(told["pid"], signal.SIGTERM)
            return handle | {"asked": now}
        if grace is not None and not 0 <= now - asked < grace:
            for pid in _session(told["pid"]):
                _send(pid, signal.SIGKILL)
        return handle


def _tell_silent_end(handle: Mapping[str, Any], code: int) -> None:
    """Tell the operator how a worker ended that left no word, and the last that it printed, which may say why."""
    log = Path(handle["folder"]) / LOG
    how, known = f"signal {-code}" if code < 0 else f"exit code {code}", secrets_of(os.environ)
    with contextlib.suppress(OSError):
        printed = log.read_bytes()[-_LOOKED_AT:].decode("utf-8", "replace").strip()
        said = one_line(masked(printed.rpartition("\n")[2], known), 300) or "nothing was printed"
        _LOG.warning("%s: its worker ended with %s and left no word: %s", handle["job"], how, said)
        with log.open("ab") as file:
            file.write(f"the worker ended with {how}, and left no word\n".encode())


def _is_here(told: Mapping[str, Any]) -> bool:
    """Whether the process that signed a lock is the one that has its number now, on this machine."""
    pid, since = told.get("pid"), told.get("begun")
    return (
        isinstance(pid, int)
        and pid > 1
        and since is not None
        and told.get("host") == os.uname().nodename
        and begun(pid) == since
    )


def _session(leader: int) -> Iterator[int]:
    """Yield the processes of a session, its leader first."""
    for pid in sorted(psutil.pids(), key=lambda pid: pid != leader):
        with contextlib.suppress(OSError):
            if os.getsid(pid) == leader:
                yield pid


def _end_orphans(told: Mapping[str, Any]) -> None:
    """End what a dead worker left running in its session: its number is nobody else's as long as they are there."""
    pid = told.get("pid")
    if isinstance(pid, int) and pid > 1 and told.get("host") == os.uname().nodename and begun(pid) is None:
        for orphan in _session(pid):
            if float(begun(orphan) or 0) >= float(told.get("begun") or "inf"):
                _send(orphan, signal.SIGKILL)


def _send(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)
