"""What a process that computes asks of its interpreter: to load libraries with no look for garbage, to end at once."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import io
import os
import sys
import threading
from collections.abc import Iterator
from typing import NoReturn


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Collect no garbage within the block.

    Importing PyTorch and transformers creates a million objects, none of them garbage; the collector would scan them
    again and again as they become more (docs/experiments/start.md).
    """
    with _LOCK:
        if not _WITHIN["now"]:
            _WITHIN["was on"] = gc.isenabled()
            gc.disable()
        _WITHIN["now"] += 1
    try:
        yield
    finally:
        with _LOCK:
            _WITHIN["now"] -= 1
            if not _WITHIN["now"] and _WITHIN["was on"]:
                gc.enable()


_LOCK = threading.Lock()
_WITHIN = {"now": 0, "was on": True}
"""How many threads are within such a block, and how the first of them found the collector."""


def end(code: int) -> NoReturn:
    """End this process once its threads and all that is registered for its end have ended; take no interpreter down.

    That computes for a second and a half where PyTorch and transformers are loaded. And of several processes, a thread
    of torch that lets go of what was sent last aborts the one that is taken down meanwhile, and the launcher calls a
    job failed whose work is done. What stands in the buffers of open files, a user's own among them, is written.
    """
    with contextlib.suppress(KeyboardInterrupt):  # from whoever has waited for a thread long enough
        threading._shutdown()  # type: ignore[attr-defined]  # what the interpreter itself calls first
    atexit._run_exitfuncs()
    for one in gc.get_objects():
        if type(one) in _BUFFERED:  # not isinstance: some objects import what they stand for when they are asked
            with contextlib.suppress(OSError, ValueError):  # closed, or its reader is gone
                one.flush()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).fflush(None)  # what libraries in C have printed
    os._exit(code)


_BUFFERED = (io.TextIOWrapper, io.BufferedWriter, io.BufferedRandom)


def is_watched() -> bool:
    """Return whether a profiler, a tracer or `python -i` waits for the end of the program to have its say."""
    monitoring = getattr(sys, "monitoring", None)
    tools = () if monitoring is None else map(monitoring.get_tool, range(6))
    return bool(sys.getprofile() or sys.gettrace() or sys.flags.inspect or any(tools))
