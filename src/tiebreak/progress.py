"""How long work tells about itself, without knowing who listens.

Library code never prints; it takes a `Progress`. `Silent` is the default, the command line shows bars.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping
from typing import Protocol

LOADING = "loading PyTorch and transformers, which takes some seconds"


class Advance(Protocol):
    """Called when part of a stage is done."""

    def __call__(self, amount: int = 1, numbers: Mapping[str, float] | None = None) -> None:
        """Add `amount` to what is done and show some numbers beside it."""


class Progress(Protocol):
    """Somebody who wants to know."""

    def say(self, text: str) -> None:
        """Take one sentence of information."""

    def warn(self, text: str) -> None:
        """Take one sentence that should not be overlooked."""

    def stage(self, name: str, total: int | None) -> contextlib.AbstractContextManager[Advance]:
        """Open a stage of `total` units; None where nobody knows how many."""


@contextlib.contextmanager
def aside() -> Iterator[None]:
    """Send to standard error what code of others prints meanwhile: standard output is for results alone."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


class Silent:
    """Nobody listens."""

    def say(self, text: str) -> None:
        """Ignore it."""

    def warn(self, text: str) -> None:
        """Ignore it."""

    @contextlib.contextmanager
    def stage(self, name: str, total: int | None) -> Iterator[Advance]:
        """Yield a call that does nothing."""

        def advance(amount: int = 1, numbers: Mapping[str, float] | None = None) -> None:
            pass

        yield advance


class Noting:
    """Passes everything on and keeps what should not be overlooked, so that it can be read after the run, too."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.warnings: list[str] = []
        """Each sentence once, in the order in which they were first told."""

    def say(self, text: str) -> None:
        """Pass it on."""
        self._progress.say(text)

    def warn(self, text: str) -> None:
        """Keep it and pass it on."""
        if text not in self.warnings:
            self.warnings.append(text)
        self._progress.warn(text)

    def stage(self, name: str, total: int | None) -> contextlib.AbstractContextManager[Advance]:
        """Pass it on."""
        return self._progress.stage(name, total)


class OnlyNew:
    """Passes everything on, and no sentence twice: of runs that are alike, each would say the same."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._told: set[str] = set()

    def say(self, text: str) -> None:
        """Pass it on, once."""
        if text not in self._told:
            self._told.add(text)
            self._progress.say(text)

    def warn(self, text: str) -> None:
        """Pass it on, once."""
        if text not in self._told:
            self._told.add(text)
            self._progress.warn(text)

    def stage(self, name: str, total: int | None) -> contextlib.AbstractContextManager[Advance]:
        """Pass it on."""
        return self._progress.stage(name, total)
