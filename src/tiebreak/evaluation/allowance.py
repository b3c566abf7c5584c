"""What may be spent beside the training of a run: a share of its time, and what was spent so far.

Owns this account. Does not know what the time is spent on.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

Clock = Callable[[], float]


class Allowance:
    """Seconds beside all others, at most a share of them."""

    def __init__(self, most_share: float | None, clock: Clock = time.perf_counter) -> None:
        """`most_share` None: there is no bound."""
        self._most_share = most_share
        self._clock = clock
        self._began: float | None = None
        self.spent = 0.0
        """Seconds."""

    def begin(self) -> None:
        """Count from here on; called again, from where it was called first."""
        self._began = self._clock() if self._began is None else self._began

    @property
    def others(self) -> float:
        """Seconds since it began that were spent on other things."""
        return 0.0 if self._began is None else self._clock() - self._began - self.spent

    def affords(self, seconds: float) -> bool:
        """Say whether so much more stays within the bound."""
        return self._most_share is None or self.spent + seconds <= self._most_share * self.others

    @contextlib.contextmanager
    def spending(self) -> Iterator[None]:
        """Count what is done inside."""
        began = self._clock()
        try:
            yield
        finally:
            self.spent += self._clock() - began
