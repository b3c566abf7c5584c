"""Bytes that may outgrow memory: kept in it while they are few, in an unlinked temporary file from then on.

Owns where such bytes lie and how they vanish: a file has no name from the moment it exists, so nothing is left behind,
however the process ends. Knows nothing of what the bytes mean.
"""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import IO, Any, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from tiebreak.errors import TiebreakError, one_line

IN_MEMORY_BYTES = 32 * 2**20
_WRITE_BYTES = 2**20


class Scratch:
    """A flat array that is appended to, then read; used in a `with`, which the array that it returns outlives.

    `folder` is where the file goes, by default the system's folder for temporary files.
    """

    def __init__(self, dtype: DTypeLike, folder: Path | None = None, in_memory_bytes: int = IN_MEMORY_BYTES) -> None:
        self._dtype = np.dtype(dtype)
        self._folder = folder
        self._in_memory_bytes = in_memory_bytes
        self._held = bytearray()
        self._file: IO[bytes] | None = None
        self.size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file; an array of it that is still in use keeps it."""
        if self._file is not None:
            with contextlib.suppress(OSError):  # what a full disk left unwritten; told when it was written
                self._file.close()

    def append(self, items: NDArray[Any]) -> None:
        """Add one-dimensional items at the end; raises TiebreakError where the disk is full."""
        self._held += np.ascontiguousarray(items, dtype=self._dtype).view(np.uint8).data
        self.size += len(items)
        if len(self._held) > (self._in_memory_bytes if self._file is None else _WRITE_BYTES):
            self._write_out()

    def array(self) -> NDArray[Any]:
        """Return all items, read-only, after which none can be added; what lies in a file is mapped, not loaded."""
        if self._file is None:
            found = np.frombuffer(self._held, self._dtype)
        else:
            self._write_out()
            found = np.asarray(np.memmap(self._file, self._dtype, mode="r", shape=(self.size,)))
        found.setflags(write=False)
        return found

    def _write_out(self) -> None:
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - closed by the `with`
            self._file.write(self._held)
            self._file.flush()
        except OSError as error:
            place = self._folder or tempfile.gettempdir()
            remedy = "make room there, or name another folder in TMPDIR"
            cause = one_line(error.strerror)
            raise TiebreakError(f"{place}: cannot hold temporary data ({cause}); {remedy}") from None
        self._held.clear()
