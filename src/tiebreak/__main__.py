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
    """Be a process that does nothing else: `main`, and its quick end, unless somebody waits for the usual one."""
    try:
        main()
    except SystemExit as ended:
        if is_watched():
            raise
        end(int(ended.code or 0))


if __name__ == "__main__":
    be_the_command()
