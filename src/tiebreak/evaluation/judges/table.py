"""The judges by their kinds: how each is made from its settings, and what asking it would take.

Owns this table. A judge's module is loaded when one of its kind is made: a rule and a server need no torch.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import cast

from tiebreak.config import JudgeConfig
from tiebreak.evaluation.judges.capped import Estimate
from tiebreak.evaluation.judges.given import Given
from tiebreak.evaluation.judges.judge import Judge, Question


@dataclass(frozen=True)
class Kind:
    """A kind of judge, by the module that makes it."""

    module: str
    """Beside this one. Has `make(settings, given)`, a context manager that gives the judge."""
    is_light: bool = False
    """Whether it is made in no time, so that its settings can be tried before anything is spent."""
    defines_better: bool = False
    """Whether what it prefers is better by definition, so that there is nothing to try it on."""
    is_weak: bool = False
    """Whether what it says is weak evidence, which is said wherever it is shown."""
    is_paid: bool = False
    """Whether asking takes calls that may cost something; the module then has `estimate`, which says how many."""

    def make(self, settings: JudgeConfig, given: Given) -> AbstractContextManager[Judge]:
        """Open a judge. Raises ConfigError where its settings, or what it is given, make none."""
        module = importlib.import_module(f"{__package__}.{self.module}")
        return cast(AbstractContextManager[Judge], module.make(settings, given))

    def estimate(self, settings: JudgeConfig, questions: Sequence[Question], given: Given) -> Estimate:
        """Return what judging would take; nothing is asked."""
        if not self.is_paid:
            return Estimate(0, 0, 0, 0, 0.0)
        module = importlib.import_module(f"{__package__}.{self.module}")
        return cast(Estimate, module.estimate(settings, questions, given))


JUDGES = {
    "rule": Kind("rules", is_light=True, defines_better=True),
    "reward_model": Kind("reward_model"),
    "model": Kind("local"),
    "server": Kind("server", is_light=True, is_paid=True),
    "data": Kind("own", is_weak=True),
}
