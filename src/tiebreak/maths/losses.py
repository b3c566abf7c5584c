"""What an objective answers: a loss for each example, and what it calls the reward of each completion."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Losses:
    """Losses of examples (before their weights), and rewards of their completions, example after example."""

    losses: Float[Tensor, " examples"]
    rewards: Float[Tensor, " completions"]

    @staticmethod
    def of_pairs(
        losses: Float[Tensor, " pairs"], chosen: Float[Tensor, " pairs"], rejected: Float[Tensor, " pairs"]
    ) -> Losses:
        """Return losses of pairs with the rewards of both sides."""
        return Losses(losses, torch.stack([chosen, rejected], dim=1).flatten())
