"""Objectives: pure functions of what policy and reference say about a pair, and the table that names them.

Owns the formulas. Knows nothing of models, batches or reductions over pairs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import logsigmoid

from tiebreak.config import LossConfig


@dataclass(frozen=True)
class PairLogps:
    """Summed log-probabilities (nats, fp32) of both completions of each pair, with the tokens behind each sum."""

    chosen: Float[Tensor, " pairs"]
    rejected: Float[Tensor, " pairs"]
    chosen_num_tokens: Int[Tensor, " pairs"]
    rejected_num_tokens: Int[Tensor, " pairs"]

    @property
    def gap(self) -> Float[Tensor, " pairs"]:
        """log π(chosen) − log π(rejected)."""
        return self.chosen - self.rejected

    def detach(self) -> PairLogps:
        """Return the same numbers without a gradient."""
        return PairLogps(self.chosen.detach(), self.rejected.detach(), self.chosen_num_tokens, self.rejected_num_tokens)


Objective = Callable[[PairLogps, PairLogps], Float[Tensor, " pairs"]]


def dpo(
    policy: PairLogps, reference: PairLogps, *, beta: float, label_smoothing: float = 0.0
) -> Float[Tensor, " pairs"]:
    """Direct preference optimization, Rafailov et al. 2023, Eq. 7.

    With `label_smoothing` ε, the conservative form of Mitchell 2023 ("A note on DPO with noisy preferences", Eq. 3):
    labels are taken to be flipped with probability ε.
    """
    logits = beta * (policy.gap - reference.gap)
    return -(1 - label_smoothing) * logsigmoid(logits) - label_smoothing * logsigmoid(-logits)


LOSSES: dict[str, Callable[..., Float[Tensor, " pairs"]]] = {"dpo": dpo}


def objective(config: LossConfig) -> Objective:
    """Return the loss that a configuration names, its constants filled in."""
    loss = LOSSES[config.name]

    def of_pairs(policy: PairLogps, reference: PairLogps) -> Float[Tensor, " pairs"]:
        return loss(policy, reference, beta=config.beta, label_smoothing=config.label_smoothing)

    return of_pairs
