"""The judges by their kinds: how each is made from its settings, and what asking it would take.

Owns this table. A judge's module is loaded when one of its kind is made: a rule and a server need no torch.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

from tiebreak.config import JudgeConfig
from tiebreak.errors import ConfigError, ModelError
from tiebreak.evaluation.judges.capped import Estimate, within
from tiebreak.evaluation.judges.given import EVALUATION, ROUNDS, Given
from tiebreak.evaluation.judges.judge import BothOrders, ByRating, Judge, Question

Make = Callable[[Any, Given], AbstractContextManager[Judge]]


@dataclass(frozen=True)
class Kind:
    """A kind of judge."""

    make: Make
    """Opens a judge from its settings and what it is given. Raises ConfigError where they make none."""
    estimate: Callable[[Any, Sequence[Question], Given], Estimate] = lambda *_: Estimate(0, 0, 0, 0, 0.0)
    """What judging questions would take; nothing is asked. Only what is asked over a network takes anything."""
    check: Callable[[Any, Given], None] = lambda *_: None
    """Refuses settings that make no judge, before anything is spent: no weights are read, and nobody is asked."""
    within: Callable[[Any, float], Any] = lambda settings, _: settings
    """Returns settings that also keep to a cost. Raises ConfigError where it is not known what asking costs."""
    num_couples: Callable[[Any, int], int] = lambda _, num: num * (num - 1) // 2
    """How many couples of so many different answers to a prompt are compared; none where each is rated on its own."""
    batch: int | None = 16
    """Prompts whose answers it stands over in one call; None: all of them, where it keeps what it is told by itself."""
    defines_better: bool = False
    """Whether what it prefers is better by definition, so that there is nothing to try it on."""
    is_weak: bool = False
    """Whether what it says is weak evidence, which is said wherever it is shown."""
    measures: bool = True
    """Whether it says at once which of two answers is better: a loop waits for people to make pairs, and no longer."""
    changes: bool = False
    """Whether it is another judge in each round, so that its agreement with its first word has to be watched."""


def _module(name: str) -> Any:
    return importlib.import_module(f"{__package__}.{name}")


def _made(settings: Any, given: Given) -> None:
    """Make a judge that is made in no time, and let it go."""
    with JUDGES[settings.kind].make(settings, given):
        pass


def _reward_model(settings: Any, given: Given) -> AbstractContextManager[Judge]:
    return nullcontext(ByRating(_module("reward_model").RewardModel.load(settings, given.progress.say)))


def _local(settings: Any, given: Given) -> AbstractContextManager[Judge]:
    return nullcontext(BothOrders(_module("local").LocalModel.load(settings, given.progress.say)))


def _self(settings: Any, given: Given) -> AbstractContextManager[Judge]:
    if given.policy is None:
        raise ConfigError("judge self: asks the policy that answered, and there is none here; rounds have one")
    given.noted("the policy judges its own answers: it changes with each round")
    return nullcontext(BothOrders(_module("local").LocalModel(given.policy, settings.criteria)))


def _only_in_rounds(settings: Any, given: Given) -> None:
    if given.where == ROUNDS:
        return
    told = f"{given.where}: {settings.kind} is a judge for rounds; take another one here"
    if given.answered is not None:
        told += f", since each round's own run is evaluated by it, too, or leave it out for {ROUNDS} to measure"
    raise ConfigError(told)


def _not_in_rounds(settings: Any, given: Given) -> None:
    if given.answered is not None:
        raise ConfigError(
            f"{given.where}: {settings.kind} is fitted on the pairs of one run, and rounds have none before they are "
            "judged; take another one"
        )


def _looked_at(module: str) -> Callable[[Any, Given], None]:
    """Return what looks at a judge's model without its weights."""

    def check(settings: Any, given: Given) -> None:
        try:
            _module(module).check(settings)
        except ModelError as error:
            raise ModelError(f"{given.where}: {error}") from None

    return check


def _none(*_: object) -> int:
    return 0


JUDGES = {
    "rule": Kind(
        lambda settings, given: _module("rules").make(settings, given),
        check=_made,
        num_couples=_none,
        defines_better=True,
    ),
    "reward_model": Kind(_reward_model, check=_looked_at("reward_model"), num_couples=_none),
    "model": Kind(_local, check=_looked_at("local")),
    "server": Kind(
        lambda settings, given: _module("server").make(settings, given),
        lambda settings, questions, given: _module("server").estimate(settings, questions, given),
        check=lambda settings, given: _module("server").check(settings, given),
        within=within,
        batch=None,
    ),
    "data": Kind(lambda settings, given: _module("fitted").make(settings, given), check=_not_in_rounds, is_weak=True),
    "self": Kind(_self, check=_only_in_rounds, changes=True),
    "people": Kind(
        lambda settings, given: _module("people").make(settings, given),
        check=_only_in_rounds,
        num_couples=lambda settings, num: len(list(_module("people").couples_of(settings)(num))),
        batch=None,
        defines_better=True,
        measures=False,
    ),
}


def check_for_rounds(
    judge: JudgeConfig, evaluation: JudgeConfig | None, given: Given, max_cost: float | None = None
) -> None:
    """Refuse who cannot judge rounds, or measure them, before anything is sampled; `given` has the prompts.

    `evaluation` is who measures them, where another one is named. `max_cost` caps both. Raises ConfigError or
    ModelError.
    """
    JUDGES[judge.kind].check(judge, replace(given, setting=ROUNDS))
    named_here = [judge]
    if evaluation is not None:
        named_here.append(evaluation)
        JUDGES[evaluation.kind].check(evaluation, replace(given, setting=EVALUATION))
    if max_cost is not None:
        for one in named_here:
            JUDGES[one.kind].within(one, max_cost)


_NAMELESS = {"data": "the data's own judge", "self": "the policy itself", "people": "people"}


def named(asked: JudgeConfig) -> str:
    """Return a judge in words."""
    told = asked.model_dump()
    name = told.get("reward") or told.get("model")
    return f"{asked.kind}:{name}" if name else _NAMELESS[asked.kind]
