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
    job failed whose work is done. What stands in the buffers of open files, a user's own among them, is written, and
    compressed files and archives of the standard library are closed.
    """
    try:
        with contextlib.suppress(KeyboardInterrupt):  # from whoever has waited for a thread long enough
            threading._shutdown()  # type: ignore[attr-defined]  # what the interpreter itself calls first
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):  # however long their readers take
            with contextlib.suppress(Exception):
                stream.flush()
        # A file's buffer may be held for ever by a thread that waits for its reader.
        writer = threading.Thread(target=_write_buffers, daemon=True)
        try:
            writer.start()
            writer.join(PATIENCE)
        except RuntimeError:  # no thread can be had any more
            _write_buffers()
    finally:
        os._exit(code)


PATIENCE = 10.0
"""Seconds that the files of a program have for what stands in their buffers."""
_BUFFERED = (io.TextIOWrapper, io.BufferedWriter, io.BufferedRandom)
_CLOSED = (("zipfile", "ZipFile"), ("gzip", "GzipFile"), ("bz2", "BZ2File"), ("lzma", "LZMAFile"))
"""What is whole once it is closed."""


def _write_buffers() -> None:
    """Write what stands in buffers of Python and C. Whatever an object raises: what was to be done is done."""
    found = gc.get_objects()
    # Not isinstance: some objects import what they stand for when they are asked.
    for one in found:
        if type(one) in _BUFFERED:
            with contextlib.suppress(Exception):  # closed, its reader is gone, or it was made of something odd
                one.flush()
    kinds = {getattr(sys.modules.get(module), name, None) for module, name in _CLOSED}
    for one in found:
        if type(one) in kinds:
            with contextlib.suppress(Exception):
                one.close()
    with contextlib.suppress(Exception):
        ctypes.CDLL(None).fflush(None)  # what libraries in C have printed


def is_watched() -> bool:
    """Return whether a profiler, a tracer or `python -i` waits for the end of the program to have its say."""
    monitoring = getattr(sys, "monitoring", None)
    tools = () if monitoring is None else map(monitoring.get_tool, range(6))
    return bool(sys.getprofile() or sys.gettrace() or sys.flags.inspect or any(tools))
