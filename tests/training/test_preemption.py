"""Which signals ask a run to end, and which do not: those that were ignored when it began."""

from __future__ import annotations

import contextlib
import signal

import pytest

from tiebreak.errors import Preempted
from tiebreak.training.preemption import listening

ASKING = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU]


@pytest.fixture
def handled():
    """Set handlers of a signal for this test."""
    before = {number: signal.getsignal(number) for number in ASKING}
    yield signal.signal
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", ASKING)
def test_each_of_them_ends_the_run_by_its_name(number, handled):
    handled(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    before = signal.getsignal(number)
    with pytest.raises(Preempted, match=f"stopped by {number.name}; run the same command again"), listening():
        signal.raise_signal(number)
    assert signal.getsignal(number) is before
    with listening() as stop:
        with stop.held():
            signal.raise_signal(number)
        with pytest.raises(Preempted, match=number.name):
            stop.check()


def test_what_one_was_asked_is_known_to_those_within_it(handled):
    """A library that is loaded may swallow what is raised."""
    handled(signal.SIGTERM, signal.SIG_DFL)
    with listening() as outer:
        with contextlib.suppress(BaseException):
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Preempted, match="SIGTERM"), listening():
            pytest.fail("nothing more is done")
        assert signal.getsignal(signal.SIGTERM) == outer.receive
    with listening() as outer:
        with listening() as inner, inner.held():
            signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) == outer.receive
        with pytest.raises(Preempted):
            outer.check()
    with listening() as later:
        later.check()


@pytest.mark.parametrize("number", ASKING)
def test_what_was_ignored_stays_ignored(number, handled):
    handled(number, signal.SIG_IGN)  # as nohup does with SIGHUP, and a shell with SIGINT of what runs in the background
    with listening() as stop:
        signal.raise_signal(number)
        assert stop.asked_by is None
        assert signal.getsignal(number) is signal.SIG_IGN
    assert signal.getsignal(number) is signal.SIG_IGN
