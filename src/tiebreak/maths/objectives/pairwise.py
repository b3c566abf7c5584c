"""Objectives of one pair at a time.

Owns the formulas. Knows nothing of models, batches or reductions over pairs.
"""

from __future__ import annotations

from torch.nn.functional import logsigmoid

from tiebreak.maths.logps import PairLogps
from tiebreak.maths.losses import Losses


def dpo(policy: PairLogps, reference: PairLogps, *, beta: float, label_smoothing: float) -> Losses:
    """Direct preference optimization, Rafailov et al. 2023, Eq. 7; implicit reward = beta × logratio, Eq. 5.

    With `label_smoothing` ε, the conservative form of Mitchell 2023 ("A note on DPO with noisy preferences", Eq. 3):
    labels are taken to be flipped with probability ε.
    """
    logits = beta * (policy.gap - reference.gap)
    losses = -(1 - label_smoothing) * logsigmoid(logits) - label_smoothing * logsigmoid(-logits)
    chosen, rejected = beta * (policy.chosen - reference.chosen), beta * (policy.rejected - reference.rejected)
    return Losses.of_pairs(losses, chosen, rejected)
