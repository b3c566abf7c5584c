"""The program of a worker: one job of the service, from its settings to an artefact that is proven.

    python -m tiebreak.service.work FOLDER

FOLDER holds config.yaml and work.json ({"form": adapter or merged, "attempt": number}); it gets run/, artefact/ and, as
the last thing, ended.json. Training is that of `tiebreak train`, with its exit codes; the same command again goes on
where it was. Owns how a worker ends. It holds the lock of the folder as long as it lives, and no process that it starts
holds it longer.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from tiebreak import faults
from tiebreak.errors import (
    EXIT_FAILURE,
    EXIT_INTERRUPTED,
    EXIT_PREEMPTED,
    Preempted,
    RunError,
    TiebreakError,
    one_line,
)
from tiebreak.secrecy import masked, secrets_of
from tiebreak.service.launching import ENDED, LOCK, sign, take
from tiebreak.training.interpreter import end
from tiebreak.training.preemption import Stop, listening

_LONGEST = 1200


def main(words: Sequence[str] | None = None) -> int:
    """Carry out the job of a folder and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tiebreak.service.work", description="Carry out a job's folder.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--lock", type=int, help="number of the open file that holds the folder's lock already")
    given = parser.parse_args(words)
    folder = given.folder.absolute()
    lock = hold(folder, given.lock)
    with listening() as stop:
        attempt, code, message = 0, EXIT_FAILURE, ""
        try:
            attempt = _number(folder)  # first, so that whatever comes is told of the right one
            sign(lock, os.getpid())  # from now on it is known whom to send a signal
            from tiebreak.files import read_json_object  # noqa: PLC0415 - the lock is signed first

            faults.arm(os.environ.get(faults.VARIABLE))
            carry_out(folder, read_json_object(folder / "work.json")["form"], stop)
            code = 0
        except BaseException as error:  # noqa: BLE001 - whatever it is, the server is told in one line
            code, message = end_of(error)
        from tiebreak.files import write_json  # noqa: PLC0415 - here, since a signal may come before all is loaded

        faults.point("work:ended")
        write_json(folder / ENDED, {"exit": code, "message": message, "attempt": attempt})
    return code


def hold(folder: Path, handed: int | None) -> int:
    """Hold the lock of a folder until this process ends, and return it; waits for a worker that lives there."""
    lock = take(folder / LOCK, wait=True) if handed is None else handed
    if lock is None:
        raise RunError(f"{folder}: has another worker")
    os.set_inheritable(lock, False)  # not in programs that are started from here,
    os.register_at_fork(after_in_child=lambda: os.close(lock))  # nor in processes that only fork
    return lock


def _number(folder: Path) -> int:
    """Return which attempt this is, 0 where nobody can tell."""
    file = folder / "work.json"
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        return int(json.loads(file.read_bytes())["attempt"]) if file.is_file() else 0
    return 0


def carry_out(folder: Path, form: str, stop: Stop) -> None:
    """Train, and export; what is done already is not done again."""
    import tiebreak  # noqa: PLC0415 - all that computes
    from tiebreak.engine.allocation import keep_freed_memory  # noqa: PLC0415

    stop.check()  # a library that was loaded may have swallowed it
    keep_freed_memory()
    run = tiebreak.train(folder / "config.yaml")
    # It appears whole or not at all.
    if not (folder / "artefact").is_dir():
        tiebreak.export(run, folder / "artefact", "merged" if form == "merged" else "adapter")


def end_of(error: BaseException) -> tuple[int, str]:
    """Return the exit code of what ended a job, and one line about it; what a debugger needs goes to the log."""
    known = secrets_of(os.environ)
    match error:
        case TiebreakError():
            code, said = error.exit_code, str(error)
        case Preempted():
            code, said = EXIT_PREEMPTED, str(error)
        case KeyboardInterrupt():
            code, said = EXIT_INTERRUPTED, "interrupted; what was finished before is kept"
        case MemoryError():
            code, said = EXIT_FAILURE, "out of memory"
        case OSError():
            code, said = EXIT_FAILURE, str(error)
        case _:
            code, said = EXIT_FAILURE, f"unforeseen {type(error).__name__} ({one_line(error, 400)})"
            sys.stderr.write(masked("".join(traceback.format_exception(error)), known))
    line = one_line(masked(said, known), _LONGEST)
    sys.stderr.write(f"{'stopped' if isinstance(error, Preempted) else 'error'}: {line}\n")
    return code, line


if __name__ == "__main__":
    end(main())
