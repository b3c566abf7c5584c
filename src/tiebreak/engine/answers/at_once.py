"""Several things done at the same time, in threads that nobody has to wait for.

Owns these threads. A pool of the standard library waits for its threads when the process ends, however long a server
takes; these end with the process.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class AtOnce(Generic[K, V]):
    """Work on tasks, so many at once, in the order in which they end; iterating raises what the work raised."""

    def __init__(self, work: Callable[[K], V], tasks: Iterable[K], num: int) -> None:
        self._work, self._open = work, deque(tasks)
        self._ended: SimpleQueue[tuple[K, V | BaseException]] = SimpleQueue()
        self._num_left = len(self._open)
        for _ in range(min(num, self._num_left)):
            threading.Thread(target=self._go_on, daemon=True).start()

    def __iter__(self) -> Iterator[tuple[K, V]]:
        while self._num_left:
            task, found = self._ended.get()
            self._num_left -= 1
            if isinstance(found, BaseException):
                raise found
            yield task, found

    def stop(self) -> None:
        """Begin nothing more."""
        with contextlib.suppress(IndexError):  # the threads take from it, too
            while True:
                self._open.popleft()
                self._num_left -= 1

    def rest(self, seconds: float | None = None) -> Iterator[tuple[K, V]]:
        """Begin nothing more, and give what is under way and ends well, within so many seconds; None: all of it."""
        self.stop()
        until = None if seconds is None else time.monotonic() + seconds
        while self._num_left:
            try:
                task, found = self._ended.get(timeout=None if until is None else max(0.0, until - time.monotonic()))
            except Empty:
                return
            self._num_left -= 1
            if not isinstance(found, BaseException):
                yield task, found

    def _go_on(self) -> None:
        with contextlib.suppress(IndexError):
            while True:
                task = self._open.popleft()
                self._ended.put((task, self._tried(task)))

    def _tried(self, task: K) -> V | BaseException:
        try:
            return self._work(task)
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            return error
