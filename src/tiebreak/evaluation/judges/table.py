"""The judges by their kinds: how each is made from its settings, and what asking it would take.

Owns this table. A judge's module is loaded when one of its kind is made: a rule and a server need no torch.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from tiebreak.errors import ConfigError
from tiebreak.evaluation.judges.capped import Estimate
from tiebreak.evaluation.judges.given import Given
from tiebreak.evaluation.judges.judge import BothOrders, ByRating, Judge, Question

Make = Callable[[Any, Given], AbstractContextManager[Judge]]


@dataclass(frozen=True)
class Kind:
    """A kind of judge."""

    make: Make
    """Opens a judge from its settings and what it is given. Raises ConfigError where they make none."""
    estimate: Callable[[Any, Sequence[Question], Given], Estimate] = lambda *_: Estimate(0, 0, 0, 0, 0.0)
    """What judging questions would take; nothing is asked. Only what is asked over a network takes anything."""


def _module(name: str) -> Any:
    return importlib.import_module(f"{__package__}.{name}")


def _reward_model(settings: Any, given: Given) -> AbstractContextManager[Judge]:
    return nullcontext(ByRating(_module("reward_model").RewardModel.load(settings, given.progress.say)))


def _local(settings: Any, given: Given) -> AbstractContextManager[Judge]:
    return nullcontext(BothOrders(_module("local").LocalModel.load(settings, given.progress.say)))


def _own(_: Any, given: Given) -> AbstractContextManager[Judge]:
    fitting = given.fitting
    if fitting is None:
        raise ConfigError(
            "a judge of kind data is fitted on a run's training pairs, and there are none here; evaluate has them, or "
            "name another kind"
        )
    judge: Judge = _module("own").fit(
        fitting.reference,
        fitting.train,
        fitting.heldout,
        cut=fitting.cut,
        progress=given.progress,
        seed=fitting.seed,
        data=fitting.data,
    )
    return nullcontext(judge)


JUDGES = {
    "rule": Kind(lambda settings, given: _module("rules").make(settings, given)),
    "reward_model": Kind(_reward_model),
    "model": Kind(_local),
    "server": Kind(
        lambda settings, given: _module("server").make(settings, given),
        lambda settings, questions, given: _module("server").estimate(settings, questions, given),
    ),
    "data": Kind(_own),
}
