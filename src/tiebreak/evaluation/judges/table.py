"""The judges by their kinds: how each is made from its settings, and what asking it would take.

Owns this table. A judge's module is loaded when one of its kind is made: a rule and a server need no torch.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from tiebreak.errors import ModelError
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
    check: Callable[[Any], None] = lambda _: None
    """Refuses settings that make no judge, before anything is spent: no weights are read, and nobody is asked."""
    defines_better: bool = False
    """Whether what it prefers is better by definition, so that there is nothing to try it on."""
    is_weak: bool = False
    """Whether what it says is weak evidence, which is said wherever it is shown."""


def _module(name: str) -> Any:
    return importlib.import_module(f"{__package__}.{name}")


def _made(settings: Any) -> None:
    """Make a judge that is made in no time, and let it go."""
    with JUDGES[settings.kind].make(settings, Given()):
        pass


def _reward_model(settings: Any, given: Given) -> AbstractContextManager[Judge]:
    return nullcontext(ByRating(_module("reward_model").RewardModel.load(settings, given.progress.say)))


def _local(settings: Any, given: Given) -> AbstractContextManager[Judge]:
    return nullcontext(BothOrders(_module("local").LocalModel.load(settings, given.progress.say)))


def _looked_at(module: str) -> Callable[[Any], None]:
    """Return what looks at a judge's model without its weights."""

    def check(settings: Any) -> None:
        try:
            _module(module).check(settings)
        except ModelError as error:
            raise ModelError(f"evaluation.judge: {error}") from None

    return check


JUDGES = {
    "rule": Kind(lambda settings, given: _module("rules").make(settings, given), check=_made, defines_better=True),
    "reward_model": Kind(_reward_model, check=_looked_at("reward_model")),
    "model": Kind(_local, check=_looked_at("local")),
    "server": Kind(
        lambda settings, given: _module("server").make(settings, given),
        lambda settings, questions, given: _module("server").estimate(settings, questions, given),
        check=_made,
    ),
    "data": Kind(lambda settings, given: _module("fitted").make(settings, given), is_weak=True),
}
