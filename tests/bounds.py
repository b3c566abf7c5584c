"""Bounds of work that no clock decides: how much is tried, how much Python runs, what ends as a hang.

A busy machine makes a test slow and never wrong.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

LONG = os.environ.get("TIEBREAK_LONG") == "1"
"""Whether this is `make test-all`: whatever is long by nature in full, and inputs drawn anew."""


def examples(quick: int, full: int) -> int:
    """Return how many inputs a test draws for which each one takes long."""
    return full if LONG else quick


@contextlib.contextmanager
def hang_after(cpu_seconds: float = 60.0) -> Iterator[None]:
    """Fail as a hang where the block computes for so long; what is meant takes a hundredth of it.

    Counted is what this process computes, not what it waits: a wait without end is ended by pytest's own limit (see
    faulthandler_timeout in pyproject.toml).
    """

    def ended(_number: int, _frame: FrameType | None) -> None:
        raise AssertionError(f"hangs: still computing after {cpu_seconds} seconds of this process")

    before = signal.signal(signal.SIGVTALRM, ended)
    signal.setitimer(signal.ITIMER_VIRTUAL, cpu_seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def num_lines(work: Callable[[], Any]) -> int:
    """Return how many lines of Python ran: a few hundred for what libraries do at once, millions for a loop over rows.

    The same number each time. What a library computes in C counts as the line that calls it.
    """
    count = 0

    def trace(_frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count
