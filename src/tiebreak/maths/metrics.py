"""What a step tells about itself, under the names that the field uses.

Owns metric keys and their definitions. Pure: losses and log-probabilities in, numbers out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from tiebreak.maths.logps import Logps
from tiebreak.maths.losses import Losses

LOSS = "loss"
"""The first metric of every objective."""


@dataclass(frozen=True)
class Metrics:
    """One row of numbers for each example."""

    names: tuple[str, ...]
    values: Float[Tensor, "examples metrics"]

    def __getitem__(self, name: str) -> Float[Tensor, " examples"]:
        """Return one metric of every example."""
        return self.values[:, self.names.index(name)]

    def means(self) -> dict[str, float]:
        """Return the mean of each metric over the examples, in one transfer from the device."""
        return dict(zip(self.names, self.values.mean(0).tolist(), strict=True))

    @staticmethod
    def concatenated(parts: Sequence[Metrics]) -> Metrics:
        """Return the examples of several micro-batches as one."""
        return Metrics(parts[0].names, torch.cat([part.values for part in parts]))


def pair_metrics(losses: Losses, policy: Logps) -> Metrics:
    """Return the metrics of each pair."""
    chosen, rejected, logps = losses.rewards[0::2], losses.rewards[1::2], policy.paired()
    columns = {
        LOSS: losses.losses,
        "rewards/chosen": chosen,
        "rewards/rejected": rejected,
        "rewards/margins": chosen - rejected,
        "rewards/accuracies": wins(chosen - rejected),
        "logps/chosen": logps.chosen,
        "logps/rejected": logps.rejected,
    }
    return Metrics(tuple(columns), torch.stack([column.detach().float() for column in columns.values()], dim=1))


def wins(margins: Float[Tensor, " pairs"]) -> Float[Tensor, " pairs"]:
    """Return 1 where the margin is positive, 0 where it is negative, one half for a tie."""
    return (margins.sign() + 1) / 2
