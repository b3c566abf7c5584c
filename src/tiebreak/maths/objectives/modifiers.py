"""What changes an objective and is no parameter of its formula: how tokens become sums, and what sums become.

Owns the order in which modifiers apply. Which objective reads which is known to its settings (`config.losses`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from tiebreak.maths.logps import Logps, TokenLogps
from tiebreak.maths.losses import Losses
from tiebreak.maths.objectives.divergences import Divergence


@dataclass(frozen=True)
class Schedule:
    """A number that moves over a run: a pure function of the step, so that nothing of it has to be kept."""

    to: float
    shape: Literal["linear", "cosine"]

    def at(self, first: float, step: int, num_steps: int) -> float:
        """Return the number at step 0 .. num_steps − 1: `first` at the first one, `to` at the last and after it."""
        done = min(1.0, step / (num_steps - 1)) if num_steps > 1 else 1.0
        share = done if self.shape == "linear" else (1 - math.cos(math.pi * done)) / 2
        return first + (self.to - first) * share


@dataclass(frozen=True)
class Modifiers:
    """Settings of modifiers, each None where it is not used."""

    length_desensitised: float | None = None
    """Weight of tokens beyond the length of a pair's shorter completion."""
    token_decay: float | None = None
    """Weight of a token against the one before it."""
    humanline: tuple[float, float] | None = None
    """Bounds of a token's log-ratio, nats."""
    divergence: str | None = None
    divergence_alpha: float | None = None
    max_reward: float | None = None
    beta_schedule: Schedule | None = None
    confidence_weights: str | None = None

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Modifiers:
        """Return what settings of an objective say of modifiers, which need not be all of them."""
        told = {field.name: settings.get(field.name) for field in fields(cls)}
        moves = told["beta_schedule"]
        return cls(**told | {"beta_schedule": None if moves is None else Schedule(**moves)})

    @property
    def weigh_tokens(self) -> bool:
        """Whether tokens have to be known, and not only their sums."""
        views = self.length_desensitised, self.token_decay, self.humanline
        return any(view is not None for view in views)

    def summed(self, policy: TokenLogps, reference: TokenLogps | None) -> tuple[Logps, Logps | None]:
        """Return what is summed over the tokens of each completion: of both by one call, so both are seen alike."""
        if self.humanline is not None and reference is not None:
            policy = policy.within(reference, *self.humanline)
        return self._sums(policy), None if reference is None else self._sums(reference)

    def _sums(self, tokens: TokenLogps) -> Logps:
        if self.length_desensitised is not None:
            return tokens.desensitised(self.length_desensitised)
        return tokens.summed() if self.token_decay is None else tokens.decayed(self.token_decay)

    def weighed(self, losses: Losses, policy: Logps) -> Losses:
        """Return losses of pairs, each times how confident the policy is of both completions, without a gradient.

        exp(c_w + c_l), at most 1 where it is clamped; c the mean over tokens of log π − log Σ_v π².
        Zhou et al. 2024 (WPO, 2406.11827), Eq. 2.
        """
        if self.confidence_weights is None:
            return losses
        if policy.confidence is None:
            raise ValueError("this objective weighs pairs by the policy's confidence, and none was given")
        weights = (policy.confidence[0::2] + policy.confidence[1::2]).detach().exp()
        if self.confidence_weights == "clamped":
            weights = weights.clamp(max=1.0)
        return replace(losses, losses=weights * losses.losses)

    def seen(self, examples: Any) -> Any:
        """Return what a formula sees of examples, as it is with these modifiers."""
        if self.divergence is None:
            return examples
        return replace(examples, divergence=Divergence.of(self.divergence, self.divergence_alpha, self.max_reward))


UNMODIFIED = Modifiers()
