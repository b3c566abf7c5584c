"""Signs of life of the processes of a job, in the store that they share, and who is missed.

Owns how a process that dies, hangs or is stopped is noticed and named.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import time
from typing import Any

import torch.distributed as dist

from tiebreak.errors import one_line

BEAT_SECONDS = 1.0
"""Between two signs of life."""
PATIENCE = 5
"""Beats that may be missing before somebody who was lost is looked for among those that do not beat."""
_OVER = "over"
_OF_OTHERS = ("gloo", "nccl", "peer", "timed out", "connection", "socket")
"""What errors of waiting for other processes speak of."""


class Pulse:
    """Signs of life of all processes, in the store that they share.

    A thread of each writes that it lives; the first one's looks whether the others do, and theirs whether it does: a
    process that is stopped, or whose machine is gone, is noticed although nothing fails. One that lives and hangs is
    told by where it stands: behind the others.
    """

    def __init__(self, store: Any, rank: int, size: int, patience: float) -> None:
        self._store, self._rank, self._size, self._patience = store, rank, size, patience
        self._place = 0
        self._over = threading.Event()
        self._store.set(f"who {rank}", f"rank {rank} of {size} ({socket.gethostname()}, process {os.getpid()})")
        self._store.set(f"beat {rank}", "0")
        self._store.set(f"place {rank}", "0")
        self._thread = threading.Thread(target=self._beat, daemon=True, name="pulse")
        self._thread.start()

    def step(self) -> None:
        """Say how far this process has come."""
        self._place += 1
        self._store.set(f"place {self._rank}", str(self._place))

    def fail(self, error: BaseException) -> None:
        """Say why this process ends."""
        with contextlib.suppress(RuntimeError):
            self._store.set(f"failed {self._rank}", one_line(error, 300) or type(error).__name__)

    def end(self, *, over: bool) -> None:
        """Stop beating; where all is `over`, the others know that nobody is to be looked for."""
        self._over.set()
        self._thread.join()
        with contextlib.suppress(RuntimeError):
            if over:
                self._store.set(_OVER, "1")

    def lost(self, *ranks: int) -> str | None:
        """Return who of some ranks, or of all others, is gone, in words, and why; None where all give signs of life."""
        others = ranks or [rank for rank in range(self._size) if rank != self._rank]
        try:
            if self._store.check([_OVER]):
                return None
            before = {rank: self._store.get(f"beat {rank}") for rank in others}
            time.sleep(PATIENCE * BEAT_SECONDS)
            for rank in others:
                if self._store.check([f"failed {rank}"]):
                    return f"{self._who(rank)} failed: {self._store.get(f'failed {rank}').decode()}"
            silent = [rank for rank in others if self._store.get(f"beat {rank}") == before[rank]]
        except RuntimeError as error:
            return f"the store of the job is gone ({one_line(error, 160)})"
        return f"{' and '.join(map(self._who, silent))} died or was stopped" if silent else None

    def behind(self) -> str:
        """Return, in words, who lives and hangs: those that have not come as far as this process, or one of all."""
        others = [rank for rank in range(self._size) if rank != self._rank]
        late = [rank for rank in others if int(self._store.get(f"place {rank}")) < self._place]
        named = " and ".join(map(self._who, late)) or " or ".join(map(self._who, others))
        return f"{named} did not take part for {self._patience:g} s (distributed.timeout_seconds) and hangs"

    def _who(self, rank: int) -> str:
        return str(self._store.get(f"who {rank}").decode())

    def _beat(self) -> None:
        store, num, seen = self._store, 0, dict[int, tuple[bytes, float]]()
        # The first looks after all, and all after the first: of n processes 2n questions a beat, and not n².
        watched = range(1, self._size) if self._rank == 0 else (0,)
        since: float | None = None
        while not self._over.wait(BEAT_SECONDS):
            num += 1
            try:
                store.set(f"beat {self._rank}", str(num))
                if store.check([_OVER]):
                    since = since or time.monotonic()
                    if time.monotonic() - since > PATIENCE * BEAT_SECONDS and not self._over.is_set():
                        os._exit(1)  # whoever hangs here when all is over would stay for ever
                    continue
                for rank in watched:
                    beat, now = store.get(f"beat {rank}"), time.monotonic()
                    if rank not in seen or seen[rank][0] != beat:
                        seen[rank] = beat, now
                    elif now - seen[rank][1] > self._patience:
                        self._leave(f"{self._who(rank)} has given no sign of life for {self._patience:g} s")
                    if store.check([f"failed {rank}"]):
                        since = since or now
                        if now - since > self._patience:
                            told = store.get(f"failed {rank}").decode()
                            self._leave(f"{self._who(rank)} failed: {told}")
            except RuntimeError:
                return  # the store is gone with the job

    def _leave(self, why: str) -> None:
        """End this process, whose main thread waits for somebody who will not come."""
        if self._over.is_set():
            return
        sys.stderr.write(f"error: {ended(why)}\n")
        sys.stderr.flush()
        os._exit(1)


def ended(why: str) -> str:
    """Return what is said of a job that ends because a process is missed."""
    return f"{why}; the job ends here, and the same command goes on from the last checkpoint"


def is_of_the_group(error: BaseException) -> bool:
    """Say whether an error is one of waiting for others: somebody is gone, or does not come."""
    if not isinstance(error, RuntimeError):
        return False
    told = str(error).lower()
    return isinstance(error, dist.DistError) or any(word in told for word in _OF_OTHERS)
