"""Objectives: pure functions of what policy and reference say about a pair, and the table that names them.

Owns the formulas. Knows nothing of models, batches or reductions over pairs.
"""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from tiebreak.config import LossConfig
from tiebreak.maths.logps import PairLogps

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
