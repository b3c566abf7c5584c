"""The optimizer and its learning rate.

Owns which parameters decay and how the rate moves over the steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn

from tiebreak.config import TrainingConfig


def build_optimizer(parameters: Sequence[nn.Parameter], config: TrainingConfig, rate: float) -> torch.optim.AdamW:
    """Return AdamW (Loshchilov & Hutter 2019) at its peak `rate`; only matrices decay, biases and norms do not.

    On a GPU one kernel takes the step: torch's choice there holds a copy of all that trains for a moment, which no plan
    counts.
    """
    decay = config.weight_decay
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    fused = True if all(p.is_cuda for p in parameters) else None
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=rate, betas=(0.9, 0.999), eps=1e-8, fused=fused)


def rate_factor(step: int, num_steps: int, warmup_share: float, schedule: str) -> float:
    """Return the share of the peak rate that step 0 .. num_steps − 1 uses.

    Over the warm-up the factor rises in equal parts to 1; no step is spent at zero. Then it stays, or falls to
    reach 0 just after the last step, as the schedule says.
    """
    # Less a hair: 0.07 * 100 is 7.000000000000001, and means 7 steps.
    warmup = math.ceil(warmup_share * num_steps - 1e-9)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(1, num_steps - warmup)
    return _SCHEDULES[schedule](progress)


_SCHEDULES: Mapping[str, Callable[[float], float]] = {
    "linear": lambda progress: 1 - progress,
    "cosine": lambda progress: 0.5 * (1 + math.cos(math.pi * progress)),
    "constant": lambda _: 1.0,
}


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every parameter group the same learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate
