"""Settings of objectives of a difference. Each section has exactly the parameters that its formula reads."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from tiebreak.config.losses.loss import (
    Beta,
    ByMargin,
    Loss,
    Margin,
    OfPairs,
    OfSums,
    Safe,
    Smoothing,
    WithBeta,
    beta,
    length,
    scale,
    smoothing,
)


class Dpo(OfSums):
    """Direct preference optimization."""

    name: Literal["dpo"] = Field("dpo", description="The objective; 'tiebreak losses' lists them.")
    beta: Beta = beta(0.1)
    label_smoothing: Smoothing = smoothing(0.0)
    soft_labels: bool = Field(False, description="Learn the probability that the data state (soft_label), not 0 or 1.")

    @property
    def facts(self) -> tuple[str, ...]:
        """Soft labels, where they are asked for."""
        return ("soft_label",) if self.soft_labels else ()


class DpoNorm(WithBeta, OfPairs):
    """DPO on log-ratios per token."""

    name: Literal["dpo_norm"] = "dpo_norm"
    beta: Annotated[float, Safe(2, 10)] = beta(5.0)
    label_smoothing: Smoothing = smoothing(0.0)


class Robust(OfSums):
    """DPO for labels that are flipped at a known rate."""

    name: Literal["robust"] = "robust"
    beta: Beta = beta(0.1)
    label_smoothing: Smoothing = smoothing(0.1)


class Ipo(OfPairs):
    """Identity preference optimization: a gap of a given size, and no more."""

    name: Literal["ipo"] = "ipo"
    tau: Annotated[float, Safe(0.02, 2)] = Field(
        0.1, gt=0, description="The gap that is aimed at is 1/(2 tau): nats, or nats a token."
    )
    length: Literal["mean", "sum"] = length("mean")


class Hinge(OfSums):
    """A margin of 1/beta nats, and no more (RSO)."""

    name: Literal["hinge"] = "hinge"
    beta: Beta = beta(0.1)


class Slic(Loss):
    """Sequence likelihood calibration: a margin without a reference, and likelihood of chosen."""

    name: Literal["slic"] = "slic"
    delta: Annotated[float, Safe(0.1, 10)] = Field(1.0, gt=0, description="The margin, nats.")
    sft_weight: Annotated[float, Safe(0.01, 10)] = Field(0.1, ge=0, description="Weight of −log π(chosen).")


class Exo(OfSums):
    """Efficient exact optimization: the reverse divergence, with a finite target."""

    name: Literal["exo"] = "exo"
    beta: Beta = beta(0.1)
    label_smoothing: Annotated[float, Safe(1e-5, 0.1)] = Field(
        1e-3, gt=0, lt=0.5, description="What the label leaves to rejected; never 0."
    )


class Discopop(OfSums):
    """The loss that a language model discovered: logistic and exponential, blended."""

    name: Literal["discopop"] = "discopop"
    beta: Beta = beta(0.05)
    tau: Annotated[float, Safe(0.01, 1)] = Field(0.05, gt=0, description="Temperature of the blend.")


class Odpo(ByMargin):
    """DPO with an offset by how much better chosen is."""

    name: Literal["odpo"] = "odpo"
    beta: Beta = beta(0.1)
    alpha: Annotated[float, Safe(0.1, 1)] = Field(1.0, ge=0, description="Strength of the offset.")
    scale: Literal["log", "linear"] = Field("log", description="The offset is alpha times log Δs, or times Δs.")

    @property
    def needs_margins_above_zero(self) -> bool:
        """A logarithm needs them."""
        return self.scale == "log"


class _RewardAware(ByMargin):
    """What the three that aim at a difference of scores have."""

    beta: Beta = beta(0.1)
    eta: float = Field(1.0, gt=0, description="Factor that makes a difference of scores a gap.")


class RpoBackward(_RewardAware):
    """Reward-aware: the certainty that scores deserve, as a soft label."""

    name: Literal["rpo_backward"] = "rpo_backward"


class RpoForward(_RewardAware):
    """Reward-aware: the same with the divergence turned round."""

    name: Literal["rpo_forward"] = "rpo_forward"


class RpoSquare(_RewardAware):
    """Reward-aware: regression of the gap on the difference of scores."""

    name: Literal["rpo_square"] = "rpo_square"


class RDpo(OfSums):
    """DPO that learns less from a longer winner."""

    name: Literal["r_dpo"] = "r_dpo"
    beta: Beta = beta(0.1)
    alpha: Annotated[float, Safe(0.005, 0.5)] = Field(
        0.01, ge=0, description="Reward of a token that chosen is longer by."
    )


class Dpop(WithBeta, OfPairs):
    """DPO-positive: what chosen loses against the reference is taken from the gap."""

    name: Literal["dpop"] = "dpop"
    beta: Beta = beta(0.3)
    penalty: Annotated[float, Safe(5, 500)] = Field(
        50.0, ge=0, description="Weight λ of the nats that chosen fell below the reference."
    )


class DpoShift(WithBeta, OfPairs):
    """DPO that lets rejected count for less, so that chosen keeps its likelihood."""

    name: Literal["dpo_shift"] = "dpo_shift"
    beta: Beta = beta(0.1)
    shift: Annotated[float, Safe(0.5, 1)] = Field(
        0.75, gt=0, le=1, description="Weight λ of the log-ratio of rejected."
    )


class Simpo(WithBeta, OfPairs):
    """Log-probabilities per token, a margin, and no reference."""

    name: Literal["simpo"] = "simpo"
    beta: Annotated[float, Safe(2, 10)] = scale(2.0)
    gamma: Margin = Field(1.0, ge=0, description="Margin, in units of the gap: 0.3 to 0.6 times beta.")


class AlphaDpo(WithBeta, OfPairs):
    """SimPO whose margin follows how far a pair has moved against the reference."""

    remembers = True
    name: Literal["alpha_dpo"] = "alpha_dpo"
    beta: Annotated[float, Safe(2, 10)] = scale(2.5)
    alpha: Annotated[float, Safe(0, 0.5)] = Field(
        0.2, ge=0, description="How far the margin follows, in units of beta; 0 is SimPO."
    )
    gamma: Margin = Field(1.5, ge=0, description="Margin, in units of the gap: 0.3 to 0.6 times beta.")


class Alphapo(WithBeta, OfPairs):
    """SimPO with a reward that is bent."""

    name: Literal["alphapo"] = "alphapo"
    beta: Annotated[float, Safe(2, 10)] = scale(2.5)
    alpha: Annotated[float, Safe(-1, 1)] = Field(
        0.25, ge=-1, le=1, description="How far it is bent, not 0; near 0 it is SimPO."
    )
    gamma: Annotated[float, Safe(0, 1.6, "beta")] = Field(0.1, ge=0, description="Margin, in units of the gap.")

    @field_validator("alpha")
    @classmethod
    def _is_bent(cls, value: float) -> float:
        if value == 0:
            raise ValueError("at 0 it is simpo, which has a name of its own")
        return value


class Repo(OfPairs):
    """SimPO with a hinge, without beta."""

    name: Literal["repo"] = "repo"
    gamma: Annotated[float, Safe(0.2, 0.8)] = Field(0.4, gt=0, description="Margin, nats a token.")
