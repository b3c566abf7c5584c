"""Plots of reports left empty: ten of them are half of what a tiny run computes, and few tests look at one.

In the long form all are drawn, as they are for a user.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from bounds import LONG

_drawing: list[Callable[..., str]] = []


def _empty(*_: Any) -> str:
    return '<svg xmlns="http://www.w3.org/2000/svg"></svg>'


def leave_empty() -> None:
    """Let this process draw no plot, unless this is the long form."""
    from tiebreak.reporting import figures  # not before the shapes of `maths` are checked: see conftest.py

    _drawing.append(figures._svg)
    if not LONG:
        figures._svg = _empty


@contextmanager
def drawn() -> Iterator[None]:
    """Draw plots within the block, where they are left empty else."""
    from tiebreak.reporting import figures

    was, figures._svg = figures._svg, _drawing[0]
    try:
        yield
    finally:
        figures._svg = was
