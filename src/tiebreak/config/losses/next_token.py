"""Settings of objectives that look at whole next-token distributions."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tiebreak.config.losses.loss import Beta, OfPairs, Safe, WithBeta, beta


class Tdpo1(WithBeta, OfPairs):
    """DPO that also counts how far the distribution of every token moves."""

    compares_distributions = True
    name: Literal["tdpo1"] = "tdpo1"
    beta: Beta = beta(0.1)


class Tdpo2(WithBeta, OfPairs):
    """DPO that holds the distributions of rejected's tokens as near to the reference as those of chosen's."""

    compares_distributions = True
    name: Literal["tdpo2"] = "tdpo2"
    beta: Beta = beta(0.1)
    alpha: Annotated[float, Safe(0.1, 1)] = Field(
        0.5, ge=0, description="Weight of how much further rejected has moved than chosen; 0 is DPO."
    )


class Mallows(WithBeta, OfPairs):
    """DPO whose beta is larger where the reference knows what to say."""

    reads_entropy = True
    name: Literal["mallows"] = "mallows"
    beta: Beta = beta(0.1)
    phi: Annotated[float, Safe(0.1, 1)] = Field(
        0.29,
        gt=0,
        description="Scale of −log H, H the reference's entropy / log V; one over the usual −log H.",
    )
