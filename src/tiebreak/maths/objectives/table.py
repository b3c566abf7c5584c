"""The table of objectives: what each is computed by, what it learns from, and what it asks for.

Owns what an objective is: a formula of the table with its settings. Whoever needs to know something of an objective
asks its row; no name of an objective stands anywhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from tiebreak.config import LossConfig
from tiebreak.maths.logps import Logps
from tiebreak.maths.losses import Losses
from tiebreak.maths.metrics import Metrics, pair_metrics
from tiebreak.maths.objectives.pairwise import dpo
from tiebreak.records import TokenizedPair


@dataclass(frozen=True)
class Formula:
    """A row of the table."""

    losses: Callable[..., Losses]
    """Takes the views of policy and reference, and the settings as keywords."""
    learns_from: type
    """The kind of example; one that `records` calls an `Example`."""
    view: Callable[[Logps], Any]
    """What the formula sees of log-probabilities: their sides, where its examples have any."""
    metrics: Callable[[Losses, Logps], Metrics]
    """What a step tells about itself."""
    asks_reference: bool
    coupled: bool
    """Whether the loss of one example depends on the others of its step."""
    source: str


OBJECTIVES: dict[str, Formula] = {
    "dpo": Formula(
        dpo,
        learns_from=TokenizedPair,
        view=Logps.paired,
        metrics=pair_metrics,
        asks_reference=True,
        coupled=False,
        source="Rafailov et al. 2023, Eq. 7",
    )
}


@dataclass(frozen=True)
class Objective:
    """A formula with its settings."""

    name: str
    formula: Formula
    settings: Mapping[str, Any]

    @classmethod
    def of(cls, settings: LossConfig) -> Objective:
        """Return the objective that a configuration names, its constants filled in."""
        constants = settings.model_dump()
        name = constants.pop("name")
        return cls(name, OBJECTIVES[name], constants)

    def __call__(self, policy: Logps, reference: Logps | None) -> Losses:
        """Return the loss of each example; the reference may be None where the formula does not ask it."""
        view = self.formula.view
        seen = (view(policy), view(reference)) if reference is not None else (view(policy),)
        return partial(self.formula.losses, **self.settings)(*seen)

    def at_start(self, reference: Logps) -> Losses:
        """Return the losses where the policy is its reference: what every run has to begin with."""
        return self(reference, reference if self.formula.asks_reference else None)
