"""What a step tells about itself, under the names that the field uses.

Owns metric keys and their definitions. Pure: log-probabilities in, numbers out.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from tiebreak.maths.logps import PairLogps

PAIR_METRICS = (
    "loss",
    "rewards/chosen",
    "rewards/rejected",
    "rewards/margins",
    "rewards/accuracies",
    "logps/chosen",
    "logps/rejected",
)


@dataclass(frozen=True)
class PairMetrics:
    """One row of numbers for each pair; columns are `PAIR_METRICS`."""

    values: Float[Tensor, "pairs 7"]

    def means(self) -> dict[str, float]:
        """Return the mean of each metric over the pairs, in one transfer from the device."""
        return dict(zip(PAIR_METRICS, self.values.mean(0).tolist(), strict=True))

    @staticmethod
    def concatenated(parts: list[PairMetrics]) -> PairMetrics:
        """Return the pairs of several micro-batches as one."""
        return PairMetrics(torch.cat([part.values for part in parts]))


def pair_metrics(
    losses: Float[Tensor, " pairs"], policy: PairLogps, reference: PairLogps, *, beta: float
) -> PairMetrics:
    """Return the metrics of each pair. Implicit reward = beta × (log π − log π_ref), Rafailov et al. 2023, Eq. 5."""
    chosen = beta * (policy.chosen - reference.chosen)
    rejected = beta * (policy.rejected - reference.rejected)
    columns = (losses, chosen, rejected, chosen - rejected, wins(chosen - rejected), policy.chosen, policy.rejected)
    return PairMetrics(torch.stack([column.detach().float() for column in columns], dim=1))


def wins(margins: Float[Tensor, " pairs"]) -> Float[Tensor, " pairs"]:
    """Return 1 where the margin is positive, 0 where it is negative, one half for a tie."""
    return (margins.sign() + 1) / 2
