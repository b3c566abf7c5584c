"""What a process that computes asks of its interpreter: to load libraries with no look for garbage, to end at once."""

from __future__ import annotations

import atexit
import contextlib
import gc
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
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def end(code: int) -> NoReturn:
    """End this process once its threads and all that is registered for its end have ended; take no interpreter down.

    That computes for a second and a half where PyTorch and transformers are loaded. And of several processes, a thread
    of torch that lets go of what was sent last aborts the one that is taken down meanwhile, and the launcher calls a
    job failed whose work is done.
    """
    with contextlib.suppress(KeyboardInterrupt):  # from whoever has waited for a thread long enough
        threading._shutdown()  # type: ignore[attr-defined]  # what the interpreter itself calls first
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # closed, or none
            stream.flush()
    os._exit(code)
