"""What an objective answers: a loss for each example, and what it calls the reward of each completion."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Losses:
    """Losses of examples (before their weights), and rewards of their completions, example after example."""

    losses: Float[Tensor, " examples"]
    rewards: Float[Tensor, " completions"]
    gaps: Float[Tensor, " examples"] | None = None
    """What the objective remembers of its pairs, without a gradient; None where it remembers nothing."""
    divergences: Float[Tensor, " completions"] | None = None
    """How far whole distributions are from the reference's, nats, where the objective looks at them."""

    @staticmethod
    def of_pairs(
        losses: Float[Tensor, " pairs"],
        chosen: Float[Tensor, " pairs"],
        rejected: Float[Tensor, " pairs"],
        gaps: Float[Tensor, " pairs"] | None = None,
    ) -> Losses:
        """Return losses of pairs with the rewards of both sides."""
        rewards = torch.stack([chosen, rejected], dim=1).flatten()
        return Losses(losses, rewards, None if gaps is None else gaps.detach())

    def detach(self) -> Losses:
        """Return the same numbers without a gradient."""
        return replace(self, losses=self.losses.detach(), rewards=self.rewards.detach())
