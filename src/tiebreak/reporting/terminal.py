"""Where tables and bars are drawn: the one place that makes a console of rich.

Owns how wide it is where the environment names no width that anything fits in.
"""

from __future__ import annotations

from typing import IO

import rich.console

_WIDTH = 80


def terminal(
    file: IO[str] | None = None, *, stderr: bool = False, force_terminal: bool | None = None
) -> rich.console.Console:
    """Return a console on standard output, on standard error or on a file.

    COLUMNS=0, which some schedulers and editors set, is no width: nothing at all would be shown.
    """
    out = rich.console.Console(
        file=file, stderr=stderr, highlight=False, force_jupyter=False if file else None, force_terminal=force_terminal
    )
    if out.width < 1:
        out.width = _WIDTH
    return out
