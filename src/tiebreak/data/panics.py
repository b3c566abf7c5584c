"""How a library in Rust (tokenizers, safetensors) gives up: an exception of its own kind, and words past `sys.stderr`.

Owns telling it and keeping its words off the screen. What it means for a text or a file is said by whoever called.
"""

from __future__ import annotations

import contextlib
import functools
import os
import tempfile
import threading
from collections.abc import Iterator

_ONE_AT_A_TIME = threading.RLock()  # two that put a file in the place of the screen would put it back in either order


def is_panic(error: BaseException) -> bool:
    """Say whether a library in Rust gave up: its exception is not derived from Exception."""
    return type(error).__module__ == "pyo3_runtime"


@contextlib.contextmanager
def unsaid() -> Iterator[None]:
    """Keep off the screen what is written about a panic before it is raised: the one line of the error tells it.

    It is written to the process's second file. What else came there meanwhile is passed on. Costs some 10 microseconds.
    """
    with _ONE_AT_A_TIME:
        kept, screen, panicked = _aside(os.getpid()), os.dup(2), False
        try:
            os.dup2(kept, 2)
            yield
        except BaseException as error:
            panicked = is_panic(error)
            raise
        finally:
            os.dup2(screen, 2)
            os.close(screen)
            if length := os.lseek(kept, 0, os.SEEK_CUR):
                os.lseek(kept, 0, os.SEEK_SET)
                said = os.pread(kept, length, 0)
                os.write(2, b"" if panicked else said)


@functools.cache
def _aside(_process: int) -> int:
    """Return an empty file of this process: one that a fork shares has a place that both move."""
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
