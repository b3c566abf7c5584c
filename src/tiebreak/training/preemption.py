"""Signals that ask a run to end: at once where nothing would be lost, after the step where weights move.

Owns the signals by which terminals, users, schedulers and limits ask, while a run is under way. The first one of a
training step is remembered until the step is over and saved; the second one, and any that comes outside of steps, ends
the work where it stands. What was ignored when the run began stays ignored: that is what nohup asks for.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from tiebreak.errors import Preempted

STOP_SIGNALS = (
    signal.SIGTERM,  # Slurm, Kubernetes, spot instances
    signal.SIGINT,  # Ctrl-C
    signal.SIGHUP,  # the terminal is gone
    signal.SIGUSR1,  # Slurm's --signal=USR1@60, other schedulers before their SIGKILL
    signal.SIGUSR2,  # submitit's, before the time of a job is over
    signal.SIGXCPU,  # the soft limit of CPU time
)


class Stop:
    """Whether somebody asked the run to end."""

    def __init__(self) -> None:
        self.asked_by: str | None = None
        self._held = 0

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Let a first signal wait for the end of the block, where `check` is called."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1

    def check(self) -> None:
        """Raise Preempted where the run was asked to end."""
        if self.asked_by:
            raise Preempted(self.asked_by)

    def receive(self, number: int, _: FrameType | None = None) -> None:
        """Take a signal: remember it in a held block, else end at once; a second one ends in any case."""
        again, self.asked_by = self.asked_by is not None, signal.Signals(number).name
        if again:
            raise KeyboardInterrupt
        if not self._held:
            raise Preempted(self.asked_by)


def _at_work() -> Stop | None:
    """Return who takes the signals already."""
    receivers = (getattr(signal.getsignal(number), "__self__", None) for number in STOP_SIGNALS)
    return next((one for one in receivers if isinstance(one, Stop)), None)


@contextlib.contextmanager
def listening() -> Iterator[Stop]:
    """Take the signals to the end of the block; outside the main thread, which gets them, nothing is taken.

    Within another such block they are that one's: what it was asked for and a library swallowed is not forgotten.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    if (outer := _at_work()) is not None:
        outer.check()
        yield outer
        return
    # None is a handler that Python has not set, and could not set back.
    taken = [number for number in STOP_SIGNALS if signal.getsignal(number) not in (signal.SIG_IGN, None)]
    before = {number: signal.signal(number, stop.receive) for number in taken}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
