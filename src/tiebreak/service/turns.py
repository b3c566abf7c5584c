"""Whose turn it is: jobs, examinations and chats of several keys take turns by one rule.

Owns that rule, and who waits for what is done one at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar, final


class Waits(Protocol):
    """What waits for its turn."""

    @property
    def key(self) -> str:
        """Whose it is."""


T = TypeVar("T", bound=Waits)


def chosen(waiting: Sequence[T], running: Iterable[Waits], slots: int, last: Mapping[str, float]) -> list[T]:
    """Return whose turn it is of those that wait, oldest first: the key with the fewest running, of its own the oldest.

    Of several keys it is the one whose `last` turn is the longest ago.
    """
    busy, left, found = Counter(one.key for one in running), [*waiting], list[T]()
    for _ in range(min(len(left), slots - busy.total())):
        # Of several, the first: they come oldest first.
        turn = min(left, key=lambda one: (busy[one.key], last.get(one.key, 0.0)))
        left.remove(turn)
        busy[turn.key] += 1
        found.append(turn)
    return found


@dataclass(frozen=True, eq=False)
class _Waiting:
    key: str
    given: asyncio.Future[None]


@final
class Turns:
    """Turns at what one at a time may have; for one event loop."""

    def __init__(self) -> None:
        self._waiting: Final[list[_Waiting]] = []
        self._holder: _Waiting | None = None
        self._last: Final[dict[str, float]] = {}

    @contextlib.asynccontextmanager
    async def taken(self, key: str) -> AsyncIterator[None]:
        """Wait for a turn of a key, and have it for as long as the block runs."""
        mine = _Waiting(key, asyncio.get_running_loop().create_future())
        self._waiting.append(mine)
        self._give()
        try:
            await mine.given
            yield
        finally:
            if self._holder is mine:
                self._holder = None
            else:  # nobody waits for it any more
                self._waiting.remove(mine)
            self._give()

    def _give(self) -> None:
        there = [one for one in self._waiting if not one.given.cancelled()]
        for one in chosen(there, [self._holder] if self._holder else [], 1, self._last):
            self._waiting.remove(one)
            self._holder = one
            self._last[one.key] = time.monotonic()
            one.given.set_result(None)
