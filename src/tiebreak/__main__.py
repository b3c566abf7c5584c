"""The command `tiebreak`: errors become one line and an exit code."""

from __future__ import annotations

import json
import os
import sys

from tiebreak.cli.app import app
from tiebreak.errors import EXIT_FAILURE, EXIT_INTERRUPTED, Preempted, TiebreakError, one_line
from tiebreak.reporting.console import printable, take_any_text
from tiebreak.secrecy import masked, secrets_of


def main() -> None:
    """Run the command line and exit."""
    take_any_text()
    try:
        app()
    except TiebreakError as error:
        _fail(type(error).__name__, str(error), error.exit_code)
    except MemoryError:
        _fail(
            "MemoryError", "out of memory; what was saved before is whole: free some, then run it again", EXIT_FAILURE
        )
    except OSError as error:
        # Of the machine, not of ours: a full disk, a read-only folder. Its own text names the file.
        _fail("OSError", str(error), EXIT_FAILURE)
    except Preempted as stop:
        _fail("Preempted", str(stop), stop.exit_code, "stopped")
    except SystemExit as stop:
        if stop.code == EXIT_INTERRUPTED:  # typer turns Ctrl-C into a silent exit
            _fail("Interrupted", "interrupted; what was finished before is kept", EXIT_INTERRUPTED, "stopped")
        raise


def _fail(kind: str, message: str, exit_code: int, what: str = "error") -> None:
    line = printable(one_line(masked(message, secrets_of(os.environ))))
    if "--json" in sys.argv:
        print(json.dumps({"error": kind, "message": line, "exit_code": exit_code}))  # noqa: T201 - the result
    print(f"{what}: {line}", file=sys.stderr)  # noqa: T201 - the edge prints
    sys.exit(exit_code)


if __name__ == "__main__":
    main()
