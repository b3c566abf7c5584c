"""Settings of objectives of completions that were judged one at a time, good or bad."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tiebreak.config.losses.loss import Apart, Beta, Loss, Safe, beta, delta, length


class Kto(Apart):
    """Kahneman-Tversky: each completion against what the policy gained elsewhere."""

    name: Literal["kto"] = "kto"
    beta: Beta = beta(0.1)
    desirable_weight: float = Field(1.0, gt=0, description="Factor on good completions (λ_D).")
    undesirable_weight: float = Field(1.0, gt=0, description="Factor on bad completions (λ_U).")

    @property
    def wants_prompts_in_a_step(self) -> bool:
        """The baseline puts completions behind other prompts."""
        return True


class BcoUnpaired(Apart):
    """Binary classifier optimization: good above δ, bad below."""

    name: Literal["bco_unpaired"] = "bco_unpaired"
    beta: Annotated[float, Safe(0.01, 0.1)] = beta(0.1)
    delta: float | Literal["step"] = delta()

    @property
    def wants_both_in_a_step(self) -> bool:
        """δ lies half-way between the means of both."""
        return self.delta == "step"


class SftUnpaired(Loss):
    """Likelihood of completions that are worth imitating: demonstrations, or good ones."""

    learns_from = "good completions"
    learns_bad = False
    name: Literal["sft_unpaired"] = "sft_unpaired"
    length: Literal["mean", "sum"] = length("mean")

    @property
    def facts(self) -> tuple[str, ...]:
        """Whether a completion is good."""
        return ("liked",)


class ApoZeroUnpaired(Apart):
    """Anchored: good up, bad down."""

    name: Literal["apo_zero_unpaired"] = "apo_zero_unpaired"
    beta: Beta = beta(0.1)
