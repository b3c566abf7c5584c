"""Whose a folder is: whoever holds its lock or died with it; a sweep, which is no run; a loop of rounds, for which its
best round stands.

Owns how a lock is taken, which steps a folder holds, and how it is told from outside who has a lock, without being in
anybody's way: the system knows no question about the lock of an open file but an attempt to share it. Who asks has a
share for a moment, and who wants the lock tells the two apart by a share, too: it is refused where the lock is held,
granted where others only ask.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tiebreak.errors import InUse, RunError
from tiebreak.files import opened, read_json_object

LEDGER = "rounds.json"
"""What tells of each round of a loop, and makes its folder one."""


@dataclass(frozen=True)
class Holder:
    """Who holds a folder's lock, or died with it."""

    name: str
    """Host and number of the process."""
    alive: bool | None
    """None where it is of another machine, and cannot be asked from here."""


NOBODY = Holder("", alive=False)


def is_at_work(folder: Path) -> bool:
    """Whether somebody is at work in a folder, as far as can be told from here; nothing is written."""
    return (holder(folder) or NOBODY).alive is not False


def holder(folder: Path) -> Holder | None:
    """Return who holds a folder's lock or died with it; None where nobody does."""
    # A pipe or a link in its place is not waited for, or followed.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
    with contextlib.suppress(OSError), os.fdopen(os.open(folder / ".lock", flags), "rb") as file:
        told = (file.read(300) or b"").decode("utf-8", "replace")
        found = re.fullmatch(r"(\S+) pid (\d{1,9})", told)
        if found is None:
            return None
        if found[1] != socket.gethostname():
            return Holder(told, None)
        try:
            os.kill(int(found[2]), 0)
            # A number may be another process's by now. Only where one has it is the lock tried, and then it is held.
            return Holder(told, is_held(file.fileno()))
        except ProcessLookupError:
            return Holder(told, alive=False)
        except OSError:  # another user's
            return Holder(told, alive=True)
    return None


@contextlib.contextmanager
def locked(
    folder: Path, say: Callable[[str], None] = lambda _: None, otherwise: str = "choose another output.dir"
) -> Iterator[None]:
    """Hold the folder's lock; a second process gets InUse, which names the first, and what to do `otherwise`.

    The lock of a process that died is free; `say` is told whose it was. What goes wrong inside because the folder was
    deleted or moved meanwhile is a RunError that says so, as is a file system without locks.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with opened(folder / ".lock") as handle, _watched(folder):
        try:
            is_ours = seized(handle.fileno())
        except OSError as error:
            said = f"has no locks ({error.strerror}), and two processes could write there at once"
            raise RunError(f"{folder}: its file system {said}; {otherwise} on one that has them") from None
        if not is_ours:
            handle.seek(0)
            owner = handle.read().decode("utf-8", "replace").strip() or "another process"
            raise InUse(f"{folder}: in use by {owner}; wait for it or {otherwise}")
        if not stands_at(folder / ".lock", handle.fileno()):
            raise RunError(f"{folder}: was deleted or moved as its lock was taken; run the same command again")
        handle.seek(0)
        if left := handle.read().decode("utf-8", "replace").strip():
            say(f"{folder}: {left} died without giving up this folder; taken over")
        handle.truncate(0)
        handle.write(f"{socket.gethostname()} pid {os.getpid()}".encode())
        handle.flush()
        try:
            yield
        finally:
            handle.truncate(0)


@contextlib.contextmanager
def _watched(folder: Path) -> Iterator[None]:
    """Say of an error inside that the folder is gone, where it is: it is another one by now, or none."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)  # held open, its number is given to no other
    try:
        yield
    except Exception:
        try:
            same = os.path.samestat(folder.stat(), os.fstat(handle))
        except OSError:
            same = False
        if same:
            raise
        raise RunError(
            f"{folder}: was deleted or moved while it was written to; put it back and run the same command again"
        ) from None
    finally:
        os.close(handle)


def seized(handle: int) -> bool:
    """Take the lock of an open file until that is closed; return False where somebody holds it.

    Raises OSError where the file system has no locks.
    """
    deadline = time.monotonic() + _ASKING_SECONDS
    while not _granted(handle, fcntl.LOCK_EX):
        if is_held(handle) or time.monotonic() > deadline:
            return False
        time.sleep(0.001)
    return True


def stands_at(path: Path, handle: int) -> bool:
    """Return whether an open file is the one at a path still: whose folder was moved locks nothing there."""
    try:
        return os.path.samestat(path.lstat(), os.fstat(handle))
    except FileNotFoundError:
        return False


_ASKING_SECONDS = 10.0
"""How long those who ask are waited for; after that they are stopped processes, and the lock counts as held."""


def is_held(handle: int) -> bool:
    """Return whether somebody holds the lock of an open file, and does not only ask.

    Raises OSError where the file system has no locks.
    """
    if not _granted(handle, fcntl.LOCK_SH):
        return True
    fcntl.flock(handle, fcntl.LOCK_UN)
    return False


def _granted(handle: int, kind: int) -> bool:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        raise
    return True


def require_folder(folder: Path) -> None:
    """Raise RunError where a run has no folder, or it is that of a sweep, whose trials are runs."""
    if not folder.is_dir():
        raise RunError(f"{folder}: no such run folder; train makes one, at output.dir")
    if (folder / "sweep.json").exists() and not (folder / "run.json").exists():
        trials = sorted(path.name for path in (folder / "trials").glob("*") if path.is_dir())
        first = f", such as {folder / 'trials' / trials[0]}" if trials else ""
        page = "sweep.html shows all of them"
        raise RunError(f"{folder}: is a sweep, and no run; take a run of {folder / 'trials'}{first}; {page}")


def best_run(path: Path) -> Path:
    """Return the run of a loop's best round; of what is no loop, the path itself.

    Raises RunError where no round is measured yet, or the ledger names none of its own folder.
    """
    ledger = path / LEDGER
    if not ledger.is_file():
        return path
    told = read_json_object(ledger)
    best, rounds = told.get("best"), told.get("rounds")
    found = best.get("run") if isinstance(best, dict) else None
    if found is None:
        raise RunError(f"{path}: no round of this loop is measured yet; name one, as {path}/round-01/train")
    known = [one.get("train") for one in rounds if isinstance(one, dict)] if isinstance(rounds, list) else []
    if not isinstance(found, str) or found not in known or Path(found).parts[-1:] != ("train",) or ".." in found:
        raise RunError(f"{ledger}: names a best round that is none of its own; bring it back from a copy")
    return path / found


def by_step(folder: Path, digits: int, ending: str = "") -> list[tuple[int, Path]]:
    """Return what a folder holds of steps, each number, of so many digits or more, with its place, in their order.

    A copy that a person or a program put beside them, such as "step-000010 2", is none of them.
    """
    name = re.compile(rf"step-(\d{{{digits},}}){re.escape(ending)}")
    return sorted((int(found[1]), path) for path in folder.glob("step-*") if (found := name.fullmatch(path.name)))
