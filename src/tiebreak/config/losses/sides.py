"""Settings of objectives of each side alone, and of whole steps."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tiebreak.config.losses.loss import (
    Beta,
    Loss,
    OfPairs,
    Safe,
    Smoothing,
    WithBeta,
    beta,
    delta,
    length,
    smoothing,
)


class Nca(WithBeta, OfPairs):
    """Noise-contrastive alignment: chosen keeps its likelihood."""

    name: Literal["nca"] = "nca"
    beta: Annotated[float, Safe(1e-3, 0.1)] = beta(0.01)


class Bco(WithBeta):
    """Binary classifier optimization: good above δ, bad below."""

    name: Literal["bco"] = "bco"
    beta: Annotated[float, Safe(0.01, 0.1)] = beta(0.1)
    delta: float | Literal["step"] = delta()


class ApoZero(WithBeta, OfPairs):
    """Anchored: chosen up, rejected down."""

    name: Literal["apo_zero"] = "apo_zero"
    beta: Beta = beta(0.1)


class ApoDown(WithBeta, OfPairs):
    """Anchored: both down, rejected faster; for a model that is better than its chosen answers."""

    name: Literal["apo_down"] = "apo_down"
    beta: Beta = beta(0.1)


class SppoHard(WithBeta, OfPairs):
    """Self-play: log-ratios of ±1/(2 beta)."""

    name: Literal["sppo_hard"] = "sppo_hard"
    beta: Annotated[float, Safe(5e-4, 0.1)] = beta(1e-3)


class SppoSoft(WithBeta, OfPairs):
    """Self-play: log-ratios as win rates deserve them."""

    name: Literal["sppo_soft"] = "sppo_soft"
    beta: Annotated[float, Safe(5e-4, 0.1)] = beta(1e-3)

    @property
    def facts(self) -> tuple[str, ...]:
        """Win rates of both sides."""
        return "chosen_win_rate", "rejected_win_rate"


class CalDpo(WithBeta, OfPairs):
    """Calibrated: DPO, and log-ratios of ±1/(2 beta)."""

    name: Literal["cal_dpo"] = "cal_dpo"
    beta: Annotated[float, Safe(1e-3, 0.1)] = beta(1e-2)


class Simper(OfPairs):
    """Inverse perplexities: no reference and no settings."""

    name: Literal["simper"] = "simper"


class Sft(Loss):
    """Likelihood of the chosen completions alone."""

    learns_bad = False
    name: Literal["sft"] = "sft"
    length: Literal["mean", "sum"] = length("mean")


class Aot(WithBeta):
    """Optimal transport: quantiles of the margins against the reference's."""

    takes_weights = False
    name: Literal["aot"] = "aot"
    beta: Beta = beta(0.01)
    label_smoothing: Smoothing = smoothing(0.0)


class AotUnpaired(WithBeta):
    """Optimal transport: quantiles of chosen against those of rejected."""

    takes_weights = False
    name: Literal["aot_unpaired"] = "aot_unpaired"
    beta: Beta = beta(0.01)
    label_smoothing: Smoothing = smoothing(0.0)


class BetaDpo(WithBeta):
    """DPO whose beta follows how wide the gaps of a step are."""

    remembers = True
    name: Literal["beta_dpo"] = "beta_dpo"
    beta: Beta = beta(0.1)
    alpha: Annotated[float, Safe(0, 1)] = Field(
        0.6, ge=0, description="How far beta follows a nat of the step's mean gap; 0 is DPO."
    )
    kept_share: Annotated[float, Safe(0.6, 1)] = Field(
        0.8,
        gt=0,
        le=1,
        description="Share of a step's pairs that are learned from, drawn near the usual gap: rounded down, one at "
        "least; 1: all.",
    )


class DrDpo(WithBeta):
    """Distributionally robust DPO: pairs that do not fit weigh less."""

    takes_weights = False
    name: Literal["dr_dpo"] = "dr_dpo"
    beta: Beta = beta(0.1)
    beta_prime: Annotated[float, Safe(0.1, 10)] = Field(
        1.0, gt=0, description="How even the weights of pairs are; large is DPO."
    )
