"""Streams that may lose their reader while a run goes on."""

from __future__ import annotations

import contextlib
from typing import Any


class Lenient:
    """A stream that may lose its reader: a terminal that is gone, a pipe whose other end left, a full disk of a log.

    What is written then vanishes. Progress tells of work, and must not end it.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.encoding = stream.encoding

    def write(self, text: str) -> None:
        """Write a text, or nothing."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)

    def flush(self) -> None:
        """Hand on what is held back, or nothing."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def isatty(self) -> bool:
        """Say whether a person looks on."""
        return bool(self._stream.isatty())

    def fileno(self) -> int:
        """Return the number that the system knows it by: rich asks for its width."""
        return int(self._stream.fileno())
