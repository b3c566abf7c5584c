"""How a command ends: whatever happened, in one line and with an exit code, and as JSON where that was asked for.

Owns the words and codes of ends that no error of ours tells: a wrong call, an interruption, a full machine, a reader
who left, a fault of a library or of tiebreak itself. What a debugger needs is shown to whoever says --debug.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from tiebreak.errors import (
    EXIT_FAILURE,
    EXIT_INTERRUPTED,
    EXIT_NO_READER,
    EXIT_USAGE,
    Preempted,
    TiebreakError,
    one_line,
)
from tiebreak.reporting.console import printable
from tiebreak.secrecy import masked, secrets_of
from tiebreak.training.launched import is_beside_the_first

PACKAGE = Path(__file__).parents[1]
_UsageError: Any = typer.BadParameter.__base__
"""The class of wrong calls: click's, or that of the copy of click that newer versions of typer bring."""
_LONGEST, _LONGEST_LINE = 400, 1200


@dataclass(frozen=True)
class End:
    """What is told of an end; an empty message where nobody is left to read it."""

    kind: str
    message: str
    exit_code: int
    what: str = "error"


INTERRUPTED = End("Interrupted", "interrupted; what was finished before is kept", EXIT_INTERRUPTED, "stopped")
NO_READER = End("BrokenPipe", "", EXIT_NO_READER)


def end_of(error: BaseException) -> End:
    """Return what is told of an exception that ends a command."""
    kind, end = type(error).__name__, NO_READER
    match error:
        case TiebreakError():
            end = End(kind, str(error), error.exit_code)
        case Preempted():
            end = End(kind, str(error), error.exit_code, "stopped")
        case _UsageError():
            end = End("UsageError", _wrong_call(error), EXIT_USAGE)
        case KeyboardInterrupt() | EOFError() | typer.Abort():
            end = INTERRUPTED
        case SystemExit() if not isinstance(
            error.__context__, BrokenPipeError
        ):  # a library's; typer's has that context
            words, code = (error.code, EXIT_FAILURE) if isinstance(error.code, str) else ("", error.code or 0)
            end = End(kind, words, code)
        case SystemExit() | BrokenPipeError():
            pass
        case MemoryError():
            told = "out of memory; what was saved before is whole: free some, then run it again"
            end = End(kind, told, EXIT_FAILURE)
        case OSError():  # of the machine: a full disk, a read-only folder
            end = End("OSError", _told_of_the_machine(error), EXIT_FAILURE)
        case ImportError():
            told = f"cannot be loaded: {error}; install tiebreak anew (pip install --force-reinstall tiebreak)"
            end = End(kind, told, EXIT_FAILURE)
        case _:
            said = one_line(error, _LONGEST)
            told = f"unforeseen {kind}{f' ({said})' if said else ''}{_where(error)}; --debug shows all of it"
            end = End(kind, f"{told}; please report it", EXIT_FAILURE)
    return end


def _wrong_call(error: Any) -> str:
    """Return a wrong call in one line, with the command whose help says what a right one is."""
    command = (error.ctx and error.ctx.command_path) or "tiebreak"
    told = one_line(error.format_message()).replace("Value error, ", "").rstrip(".") or "a command is missing"
    return f"{told[:1].lower()}{told[1:]}{'' if told.endswith('?') else ';'} '{command} --help' shows what there is"


def _told_of_the_machine(error: OSError) -> str:
    if error.errno == errno.ENOENT and error.filename is None:
        try:
            Path.cwd()
        except OSError:
            return "the folder that this command runs in is gone; go to another one"
    return str(error)


def _where(error: BaseException) -> str:
    """Return the last line of ours that an exception passed."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if PACKAGE in Path(frame.filename).parents]
    if not frames:
        return ""
    return f" at {Path(frames[-1].filename).relative_to(PACKAGE)}:{frames[-1].lineno}"


def say_last(what: str, message: str) -> None:
    """Print the last line of a command that came to its end, and has more to say than its result."""
    with contextlib.suppress(OSError, ValueError):  # nobody reads it any more
        sys.stderr.write(f"{what}: {printable(one_line(masked(message, secrets_of(os.environ))))}\n")


def tell(error: BaseException, words: Sequence[str]) -> int:
    """Print how a command that was called with `words` ended, and return its exit code."""
    end, known = end_of(error), secrets_of(os.environ)
    line = printable(one_line(masked(end.message, known)))
    if len(line) > _LONGEST_LINE:  # a name may be as long as somebody likes; what is wrong with it stands behind it
        line = f"{line[: _LONGEST_LINE // 2]} … {line[-_LONGEST_LINE // 2 :]}"
    told = []
    if isinstance(error, TiebreakError) and is_beside_the_first():  # which says the same, or has said who failed
        return end.exit_code
    if "--debug" in words:
        trace = "".join(traceback.format_exception(error)).splitlines()
        told += [(printable(masked(one, known)), sys.stderr) for one in trace]
    if line and "--json" in words:
        document = {"error": end.kind, "message": line, "exit_code": end.exit_code}
        told.append((json.dumps(document), sys.stdout))
    if line:
        told.append((f"{end.what}: {line}", sys.stderr))
    for text, stream in told:
        with contextlib.suppress(OSError, ValueError):  # nobody reads it any more
            print(text, file=stream)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):  # what is held back would make Python complain when it ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return end.exit_code
