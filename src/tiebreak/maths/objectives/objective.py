"""What an objective is: a formula of the table with its settings and modifiers, or a weighted sum of them.

Owns what training, evaluation and start check ask of one; they know neither names nor formulas.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any

import torch

from tiebreak.config.losses import Terms
from tiebreak.config.losses.loss import Loss
from tiebreak.maths.distributions import Statistic, entropy_share, log_collision
from tiebreak.maths.logps import Logps, TokenLogps
from tiebreak.maths.losses import Losses
from tiebreak.maths.metrics import GAP, Metrics
from tiebreak.maths.objectives.formula import Formula
from tiebreak.maths.objectives.modifiers import UNMODIFIED, Modifiers
from tiebreak.maths.objectives.running import AT_REST, Running
from tiebreak.maths.objectives.said import NOTHING_STATED, Stated
from tiebreak.maths.objectives.table import OBJECTIVES

_MODIFIERS = {one.name for one in fields(Modifiers)}


@dataclass(frozen=True)
class Objective:
    """A formula with its settings."""

    name: str
    formula: Formula
    settings: Mapping[str, Any]
    facts: tuple[str, ...] = ()
    """What it reads of what annotators said: names of fields of `Stated`."""
    modifiers: Modifiers = UNMODIFIED
    """What changes it besides the settings of its formula."""
    moving: Mapping[str, float] = field(default_factory=dict)
    """What of its settings is of one step, by the name under which it is recorded."""
    running: Running = AT_REST
    """What it remembers of steps that were taken."""
    draws: int | None = None
    """Seed of what it draws in a step; None where it draws nothing, as in evaluation."""
    needs_margins_above_zero: bool = False
    """Whether a stated margin that is not above zero has no meaning for it."""
    terms: tuple[tuple[float, Objective], ...] = ()
    """Weights and objectives of a sum; the formula is then that of the first one, whose rewards are the sum's."""

    @classmethod
    def of(cls, settings: Loss) -> Objective:
        """Return the objective that a configuration names, its constants filled in."""
        constants = settings.model_dump()
        name = constants.pop("name")
        if isinstance(settings, Terms):
            terms = tuple((term.weight, cls.of(term.loss)) for term in settings.terms)
            names = " + ".join(one.name for _, one in terms)
            needs = settings.needs_margins_above_zero
            return cls(
                names, terms[0][1].formula, constants, settings.facts, needs_margins_above_zero=needs, terms=terms
            )
        own = {key: value for key, value in constants.items() if key not in _MODIFIERS}
        needs, modifiers = settings.needs_margins_above_zero, Modifiers.of(constants)
        return cls(name, OBJECTIVES[name], own, settings.facts, modifiers, needs_margins_above_zero=needs)

    def at(self, step: int, num_steps: int) -> Objective:
        """Return the objective of step 0 .. num_steps − 1 of a run, and after the last one that of the last."""
        if self.terms:
            terms = tuple((weight, one.at(step, num_steps)) for weight, one in self.terms)
            told = {f"{key}/{one.name}": value for _, one in terms for key, value in one.moving.items()}
            return replace(self, terms=terms, moving=told)
        schedule = self.modifiers.beta_schedule
        if schedule is None:
            return self
        beta = schedule.at(self.settings["beta"], step, num_steps)
        modifiers = replace(self.modifiers, beta_schedule=None)
        return replace(self, settings={**self.settings, "beta": beta}, modifiers=modifiers, moving={"beta": beta})

    def remembering(self, running: Running) -> Objective:
        """Return the same with what it remembers of steps before."""
        return replace(self, running=running)

    def drawing(self, seed: int) -> Objective:
        """Return the same with the seed of one step, where it draws pairs."""
        return replace(self, draws=seed) if self.formula.draws_pairs else self

    def after(self, metrics: Metrics) -> Running:
        """Return what it remembers after a step with these metrics of all its pairs was taken."""
        return self.running.after(metrics[GAP]) if GAP in metrics.names else self.running

    @property
    def at_end(self) -> Objective:
        """The objective of the last step, whatever their number: what a trained policy is measured by."""
        return self.at(1, 1)

    @property
    def asks_reference(self) -> bool:
        """Whether it compares with a reference."""
        return any(one.asks_reference for _, one in self.terms) if self.terms else self.formula.asks_reference

    @property
    def is_coupled(self) -> bool:
        """Whether the loss of one example depends on the others of its step."""
        if self.terms:
            return any(one.is_coupled for _, one in self.terms)
        return self.formula.is_coupled(self.settings)

    @property
    def asks_distributions(self) -> bool:
        """Whether it compares whole distributions: then the reference is asked in every step, and nothing is stored."""
        return self.formula.asks_distributions

    def summed(self, policy: TokenLogps, reference: TokenLogps | None) -> tuple[Logps, Logps | None]:
        """Return what is summed over the tokens of each completion, of policy and reference alike."""
        ours, theirs = self.modifiers.summed(policy, reference)
        ours = ours if self.beside is None else policy.confident(ours)
        ours = policy.diverging(ours) if self.asks_distributions else ours
        if reference is None or theirs is None or self.beside_reference is None:
            return ours, theirs
        return ours, reference.uncertain(theirs)

    @property
    def beside(self) -> Statistic | None:
        """What it has to be told of the policy's whole distributions; None where log-probabilities of tokens do."""
        asked = (one.beside for _, one in self.terms)
        return log_collision if self.modifiers.confidence_weights else next(filter(None, asked), None)

    @property
    def beside_reference(self) -> Statistic | None:
        """What it has to be told of the reference's whole distributions; None where log-probabilities of tokens do."""
        return entropy_share if self.formula.asks_entropy else None

    @property
    def unweighted(self) -> Objective:
        """The same without confidence weights: held-out losses before and after training are of the same pairs."""
        terms = tuple((weight, one.unweighted) for weight, one in self.terms)
        return replace(self, terms=terms, modifiers=replace(self.modifiers, confidence_weights=None))

    def __call__(self, policy: Logps, reference: Logps | None, stated: Stated = NOTHING_STATED) -> Losses:
        """Return the loss of each example; the reference may be None where the formula does not ask it."""
        if self.terms:
            found = [(weight, one(policy, reference, stated)) for weight, one in self.terms]
            return Losses(torch.stack([weight * one.losses for weight, one in found]).sum(0), found[0][1].rewards)
        if self.modifiers.beta_schedule is not None:
            raise ValueError("beta moves over a run: ask for the objective at one of its steps")
        seen = self.modifiers.seen(self.formula.view(policy, reference, stated))
        seen = seen if self.running == AT_REST else replace(seen, running=self.running)
        return self.modifiers.weighed(partial(self.formula.losses, **self.settings)(seen), policy)

    def at_start(self, reference: Logps, stated: Stated = NOTHING_STATED) -> Losses:
        """Return the losses where the policy is its reference: what every run has to begin with."""
        return self(reference.of_itself(), reference, self.with_no_gain(stated, reference))

    def with_no_gain(self, stated: Stated, like: Logps) -> Stated:
        """Return what was said with the baseline of a policy that is its reference, where one is read."""
        return stated.with_baseline(0.0, like.sums) if self.formula.asks_baseline else stated
