"""The gradient of a step whose examples depend on each other: sorted margins, a baseline over the step, a running mean.

Such a loss is one number of the whole step, whatever the micro-batches. Its slope by each completion's log-probability
is a small vector; once it is known, each micro-batch goes down its own slopes, and the sum over micro-batches is the
gradient of the undivided step (the chain rule, and nothing else). It costs one forward pass more.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from tiebreak.maths.logps import Logps
from tiebreak.maths.losses import Losses
from tiebreak.maths.objectives.objective import Objective
from tiebreak.maths.objectives.said import NOTHING_STATED, Stated


def slopes(
    objective: Objective,
    policy: Logps,
    reference: Logps | None,
    weights: Float[Tensor, " examples"],
    stated: Stated = NOTHING_STATED,
) -> tuple[Float[Tensor, " completions"], Losses]:
    """Return the slope of Σ weight × loss by each completion's logps, over all examples of a step, and the losses."""
    sums = policy.sums.detach().requires_grad_()
    with torch.enable_grad():
        found = objective(replace(policy, sums=sums), reference, stated)
        (by_sums,) = torch.autograd.grad((weights * found.losses).sum(), sums)
    return by_sums, found.detach()
