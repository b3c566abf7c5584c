"""What is known of a formula: how its losses are computed, what it learns from, and what it asks for.

Owns the form of a row of the table; rows stand below their formulas.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tiebreak.maths.logps import Logps
from tiebreak.maths.losses import Losses
from tiebreak.maths.metrics import Metrics, pair_metrics
from tiebreak.maths.objectives.said import Pairs, Stated
from tiebreak.records import TokenizedPair


def never(_: Mapping[str, Any]) -> bool:
    """Say no, whatever the settings."""
    return False


@dataclass(frozen=True)
class Formula:
    """A row of the table."""

    losses: Callable[..., Losses]
    """Takes what is said of examples, and the settings as keywords. Its first line of help is the formula."""
    source: str
    """Paper and equation."""
    tex: str = field(default="", kw_only=True)
    """The loss in LaTeX, as far as MathJax, GitHub and matplotlib agree (sg: no gradient); the table's rows have it."""
    use: str
    """When to take it, in one sentence."""
    watch: str
    """How it fails, and which of the recorded numbers show it."""
    learns_from: type = TokenizedPair
    """The kind of example; one that `records` calls an `Example`."""
    view: Callable[[Logps, Logps | None, Stated], Any] = Pairs.of
    """What the formula sees of log-probabilities: their sides, where its examples have any."""
    metrics: Callable[[Losses, Logps, Stated], Metrics] = pair_metrics
    """What a step tells about itself."""
    asks_reference: bool = True
    learns_good_alone: bool = False
    """Whether bad completions teach it nothing."""
    asks_baseline: bool = False
    """Whether it compares with what the policy gained on completions of other prompts of the step."""
    asks_distributions: bool = False
    """Whether it compares whole distributions of policy and reference, and not only the tokens that stand there."""
    asks_entropy: bool = False
    """Whether it reads how open it was, by the reference, which token follows."""
    draws_pairs: bool = False
    """Whether it learns from some pairs of a step, which it draws."""
    is_coupled: Callable[[Mapping[str, Any]], bool] = never
    """Whether, by these settings, the loss of one example depends on the others of its step."""


def always(_: Mapping[str, Any]) -> bool:
    """Whatever the settings, an objective is coupled."""
    return True


def by_delta(settings: Mapping[str, Any]) -> bool:
    """Where δ is the mean over the step, an objective is coupled."""
    return bool(settings["delta"] == "step")
