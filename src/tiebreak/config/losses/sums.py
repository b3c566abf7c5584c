"""Settings of objectives that are sums of others."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tiebreak.config.losses.loss import Beta, Margin, Safe, WithBeta, beta, delta, length, scale


class Orpo(WithBeta):
    """Likelihood of chosen and odds against rejected: one stage, from a base model."""

    name: Literal["orpo"] = "orpo"
    beta: Annotated[float, Safe(0.05, 1)] = Field(0.1, gt=0, description="Weight λ of the odds ratio.")


class Cpo(WithBeta):
    """DPO without its reference, and likelihood of chosen."""

    name: Literal["cpo"] = "cpo"
    beta: Beta = scale(0.1)
    alpha: Annotated[float, Safe(0.01, 2)] = Field(1.0, ge=0, description="Weight of the likelihood of chosen.")
    length: Literal["mean", "sum"] = length("mean")


class CpoSimpo(WithBeta):
    """SimPO, and likelihood of chosen."""

    name: Literal["cpo_simpo"] = "cpo_simpo"
    beta: Annotated[float, Safe(2, 10)] = scale(2.0)
    gamma: Margin = Field(1.0, ge=0, description="Margin, in units of the gap.")
    alpha: Annotated[float, Safe(0.01, 2)] = Field(
        1.0, ge=0, description="Weight of the likelihood of chosen, per token."
    )


class IterativeRpo(WithBeta):
    """DPO, and likelihood of chosen per token."""

    name: Literal["iterative_rpo"] = "iterative_rpo"
    beta: Beta = beta(0.1)
    alpha: Annotated[float, Safe(0.1, 2)] = Field(
        1.0, ge=0, description="Weight of the likelihood of chosen, per token."
    )


class RegularisedPo(WithBeta):
    """DPO, and likelihood of whole chosen completions."""

    name: Literal["regularised_po"] = "regularised_po"
    beta: Beta = beta(0.01)
    eta: Annotated[float, Safe(5e-4, 0.05)] = Field(
        0.005, ge=0, description="Weight of the likelihood of chosen, per completion."
    )


class Mpo(WithBeta):
    """Mixed: DPO, BCO and likelihood of chosen."""

    name: Literal["mpo"] = "mpo"
    beta: Beta = beta(0.1)
    delta: float | Literal["step"] = delta()
    dpo_weight: Annotated[float, Safe(0, 2)] = Field(0.8, ge=0, description="Weight of DPO.")
    bco_weight: Annotated[float, Safe(0, 2)] = Field(0.2, ge=0, description="Weight of BCO.")
    sft_weight: Annotated[float, Safe(0, 2)] = Field(
        1.0, ge=0, description="Weight of the likelihood of chosen, per token."
    )
