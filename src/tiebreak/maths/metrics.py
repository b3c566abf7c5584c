"""What a step tells about itself, under the names that the field uses.

Owns metric keys and their definitions. Pure: losses and log-probabilities in, numbers out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from tiebreak.maths.logps import Logps
from tiebreak.maths.losses import Losses

if TYPE_CHECKING:
    from tiebreak.maths.objectives.said import Stated

LOSS = "loss"
"""The first metric of every objective."""
GAP = "logratio_gap"
"""Of objectives that remember gaps of steps before: the one that they remember, of each pair."""


@dataclass(frozen=True)
class Metrics:
    """One row of numbers for each example."""

    names: tuple[str, ...]
    values: Float[Tensor, "examples metrics"]

    def __getitem__(self, name: str) -> Float[Tensor, " examples"]:
        """Return one metric of every example."""
        return self.values[:, self.names.index(name)]

    def means(self) -> dict[str, float]:
        """Return the mean of each metric over the examples that have it, in one transfer from the device.

        NaN says that an example has none; a metric that no example has is left out.
        """
        means = zip(self.names, self.values.nanmean(0).tolist(), strict=True)
        return {name: mean for name, mean in means if not math.isnan(mean)}

    @staticmethod
    def concatenated(parts: Sequence[Metrics]) -> Metrics:
        """Return the examples of several micro-batches as one."""
        return Metrics(parts[0].names, torch.cat([part.values for part in parts]))


def pair_metrics(losses: Losses, policy: Logps, _: object = None) -> Metrics:
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
    } | ({} if losses.gaps is None else {GAP: losses.gaps})
    if losses.divergences is not None:
        columns |= {"kl/chosen": losses.divergences[0::2], "kl/rejected": losses.divergences[1::2]}
    return Metrics(tuple(columns), torch.stack([column.detach().float() for column in columns.values()], dim=1))


def thumb_metrics(losses: Losses, policy: Logps, stated: Stated) -> Metrics:
    """Return the metrics of each completion that was judged on its own; those of the other verdict are NaN."""
    assert stated.liked is not None, "an objective of thumbs reads verdicts"  # noqa: S101
    good, nothing = stated.liked > 0.5, losses.rewards.new_full((), math.nan)
    columns = {
        LOSS: losses.losses,
        "rewards/chosen": torch.where(good, losses.rewards, nothing),
        "rewards/rejected": torch.where(good, nothing, losses.rewards),
        "logps/chosen": torch.where(good, policy.sums, nothing),
        "logps/rejected": torch.where(good, nothing, policy.sums),
    }
    if stated.baseline is not None:
        columns["kl"] = stated.baseline.expand(len(good))
    return Metrics(tuple(columns), torch.stack([column.detach().float() for column in columns.values()], dim=1))


def wins(margins: Float[Tensor, " pairs"]) -> Float[Tensor, " pairs"]:
    """Return 1 where the margin is positive, 0 where it is negative, one half for a tie."""
    return (margins.sign() + 1) / 2
