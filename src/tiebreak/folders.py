"""Whose a folder is: whoever holds its lock or died with it; a sweep, which is no run; a loop of rounds, for which its
best round stands.

Owns how that is told from outside, without being in anybody's way, and which steps a folder holds. How a lock is taken
is known to `files`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import socket
from dataclasses import dataclass
from pathlib import Path

from tiebreak.errors import RunError
from tiebreak.files import read_json_object

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
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except ProcessLookupError:
            return Holder(told, alive=False)
        except OSError:  # held, or another user's
            return Holder(told, alive=True)
        return Holder(told, alive=False)
    return None


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
