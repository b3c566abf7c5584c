"""Plots of reports left empty: ten of them are half of what a tiny run computes, and few tests look at one.

In the long form all are drawn, as they are for a user.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from matplotlib.figure import Figure

from bounds import LONG

_savefig = Figure.savefig


def _empty(_: Figure, file: Any, **__: Any) -> None:
    file.write('<svg xmlns="http://www.w3.org/2000/svg"></svg>')


def leave_empty() -> None:
    """Let this process draw no plot, unless this is the long form."""
    Figure.savefig = _savefig if LONG else _empty


@contextmanager
def drawn() -> Iterator[None]:
    """Draw plots within the block, where they are left empty else."""
    was, Figure.savefig = Figure.savefig, _savefig
    try:
        yield
    finally:
        Figure.savefig = was
