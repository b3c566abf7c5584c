"""Faults on purpose: named points in the work where a run can be made to die, so that recovery can be tested.

    TIEBREAK_FAULT=kill@save:optimizer:2 tiebreak train my.yaml

kills the process the second time that it is about to write an optimizer. Owns the points and what can happen there.
Off unless armed; only the command line reads the environment. For whoever wants to know what a crash does to them.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from tiebreak.errors import ConfigError, nearest

VARIABLE = "TIEBREAK_FAULT"
POINTS = (
    "audit",  # before the data are looked at
    "tokens",  # before a block of pairs is rendered
    "store:data",  # before what was prepared, or found, of the data is whole for the next start
    "reference",  # before a micro-batch of the reference pass
    "step:begin",  # before a step asks for its pairs
    "step:gradient",  # after backward, before the optimizer moves anything
    "step:end",  # after the optimizer moved
    "save:begin",  # before a checkpoint's hidden folder is made
    "save:policy",  # before each of its files
    "save:optimizer",
    "save:state",
    "save:manifest",
    "save:rename",  # before it becomes visible
    "save:rotate",  # before older ones are removed
    "store:flush",  # before a shard of reference log-probabilities is written
    "keep:file",  # before a file of the run is written that run.json says is to come
    "keep:seals",  # before run.json says that it has
    "other:task",  # before a task, in every process but the first
    "policy",  # before the trained policy is written
    "evaluate",  # before a micro-batch of held-out pairs is scored
    "look",  # before held-out prompts are answered while training goes on
    "generate",  # before a batch of answers
    "sample:batch",  # before a batch of a round's prompts is answered
    "sample:file",  # before all answers of a round are written
    "report",  # before the report is written
    "export",  # before an artefact is written
    "work:ended",  # before a worker of the service tells how its job ended
    "rounds:pairs",  # before the pairs of a round are written
    "rounds:verdicts",  # before what a judge said of some answers is kept
    "judge:keep",  # before the answer of a judge that was asked over a network is kept; it is paid for
    "review:vote",  # before a vote is written
    "registry:version",  # before a promoted version becomes visible
    "registry:history",  # before the line about it is written
    "registry:current",  # before current.json says so
    "registry:link",  # before the link leads there
)
NAN_POINTS = ("step:gradient",)
"""Where there are numbers to spoil: the places that heed what `point` returns."""


def _disk_full() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _out_of_memory() -> None:
    raise MemoryError("planned by TIEBREAK_FAULT")


ACTIONS: dict[str, Callable[[], None]] = {
    "kill": partial(signal.raise_signal, signal.SIGKILL),
    "term": partial(signal.raise_signal, signal.SIGTERM),
    "int": partial(signal.raise_signal, signal.SIGINT),
    "hup": partial(signal.raise_signal, signal.SIGHUP),
    "usr1": partial(signal.raise_signal, signal.SIGUSR1),
    "usr2": partial(signal.raise_signal, signal.SIGUSR2),
    "xcpu": partial(signal.raise_signal, signal.SIGXCPU),
    "stop": partial(signal.raise_signal, signal.SIGSTOP),
    "hang": partial(time.sleep, 10**6),
    "full": _disk_full,
    "oom": _out_of_memory,
    "nan": lambda: None,  # `point` tells the place that asked
}


@dataclass(frozen=True)
class Fault:
    """What happens where: an action, a point, and at which visit of it."""

    action: str
    point: str
    visit: int = 1


class _Plan:
    """What is armed in this process, and how often each point was visited."""

    def __init__(self) -> None:
        self.faults: tuple[Fault, ...] = ()
        self.visits: Counter[str] = Counter()


_PLAN = _Plan()


def arm(spec: str | None) -> None:
    """Arm faults like `kill@save:optimizer:2`, several with commas; None or '' disarms. Raises ConfigError."""
    _PLAN.faults = tuple(map(_parsed, spec.split(","))) if spec else ()
    _PLAN.visits.clear()


def point(name: str) -> bool:
    """Visit a point: do what is armed there; True where the place itself is asked to spoil its numbers (nan)."""
    if not _PLAN.faults:
        return False
    _PLAN.visits[name] += 1
    hit = [fault for fault in _PLAN.faults if fault.point == name and fault.visit == _PLAN.visits[name]]
    for fault in hit:
        ACTIONS[fault.action]()
    return any(fault.action == "nan" for fault in hit)


def _parsed(text: str) -> Fault:
    action, at, place = text.strip().partition("@")
    name, _, visit = place.rpartition(":")
    if not re.fullmatch(r"[0-9]{1,9}", visit):
        name, visit = place, "1"
    if not at or action not in ACTIONS or int(visit) < 1:
        wanted = f"ACTION@POINT:VISIT with an action of {', '.join(ACTIONS)}, and a visit from 1 on"
        raise ConfigError(f"{VARIABLE}={text}: wanted {wanted}")
    if name not in POINTS:
        raise ConfigError(
            f"{VARIABLE}={text}: '{name}' is no point.{nearest(name, POINTS)} There are {', '.join(POINTS)}"
        )
    if action == "nan" and name not in NAN_POINTS:
        raise ConfigError(f"{VARIABLE}={text}: no number can be spoilt at '{name}'; nan is for {', '.join(NAN_POINTS)}")
    return Fault(action, name, int(visit))
