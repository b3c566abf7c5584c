"""The command `tiebreak`: whatever happens, it ends in one line and an exit code.

Loads next to nothing before it can say how it ended: an interruption while libraries load is one line, too.
"""

from __future__ import annotations

import os
import sys

from tiebreak.cli.process import keep_results_apart, prepare
from tiebreak.training.interpreter import end, is_watched


def main() -> None:
    """Run the command line and exit."""
    words = sys.argv[1:]
    try:
        prepare(os.environ)
        if "--json" in words:
            keep_results_apart()
        from tiebreak.cli.app import call  # noqa: PLC0415 - see above

        code = call(words)
    except BaseException as error:  # noqa: BLE001 - also an interruption, and the panic of a library in Rust
        from tiebreak.cli.ends import tell  # noqa: PLC0415

        code = tell(error, words)
    sys.exit(code)


def be_the_command() -> None:
    """Be a process that does nothing else: `main`, and its quick end, unless somebody waits for the usual one.

    In a program of somebody else's that calls this, it is `main`: the program goes on where it takes a SystemExit.
    """
    try:
        main()
    except SystemExit as ended:
        if is_watched() or not _is_this_program():
            raise
        end(int(ended.code or 0))


def _is_this_program() -> bool:
    """Return whether this process was started as `tiebreak` or `python -m tiebreak`."""
    program = sys.modules["__main__"]
    spec, file = getattr(program, "__spec__", None), getattr(program, "__file__", None) or ""
    return spec.name == "tiebreak.__main__" if spec else os.path.basename(file) == "tiebreak"  # noqa: PTH119 - quick


if __name__ == "__main__":
    be_the_command()
