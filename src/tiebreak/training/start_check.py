"""What must hold before the first step: the model gives numbers, and policy and reference agree."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from tiebreak.config import Config
from tiebreak.engine.model import Policy
from tiebreak.engine.reference.kinds import evaluation_mode
from tiebreak.errors import TrainingError
from tiebreak.maths.logps import PairLogps
from tiebreak.maths.losses import Objective
from tiebreak.records import TokenizedPair
from tiebreak.training.order import named, steps


def check_start(policy: Policy, pairs: Sequence[TokenizedPair], loss: Objective, config: Config) -> None:
    """Stop unless policy and reference agree before the first step: loss ln 2, margin 0.

    The tolerance is the rounding of a summed log-probability: two forward passes of the same weights in the same
    layout agree bit for bit on a CPU; an adapter's detour through zero and bf16 kernels cost a little.
    """
    first = next(steps(pairs, config.training)).pairs
    shown = policy.micro_batches(first)[0]
    with evaluation_mode(policy.model), torch.no_grad():
        reference, scores = policy.reference.live.tokens(shown).summed(), policy.scorer(policy.model, shown)
    _require_numbers(policy, shown, scores)
    gap = float((scores.gap - reference.gap).abs().max())
    mean_loss = float(loss(scores, reference).mean())
    nats = float(torch.stack([scores.chosen, scores.rejected]).abs().max())
    precision = 1e-6 if policy.dtype == torch.float32 else 4e-3
    tolerance = precision * max(1.0, nats)
    if gap > tolerance or not abs(mean_loss - math.log(2)) <= 1e-6 + config.loss.beta * tolerance:
        raise TrainingError(
            f"before the first step the loss is {mean_loss:.6f} instead of ln 2 = 0.693147 and the largest log-ratio "
            f"gap {gap:.3g} nats instead of 0: policy and reference differ (reference: {policy.reference.identity}); "
            "check model.name and the adapter it carries, nothing was trained"
        )


def _require_numbers(policy: Policy, pairs: Sequence[TokenizedPair], scores: PairLogps) -> None:
    """Stop where the model itself is broken: neither the data nor the settings can be at fault before a step."""
    finite = (scores.chosen.isfinite() & scores.rejected.isfinite()).tolist()
    bad = [pair for pair, number in zip(pairs, finite, strict=True) if not number]
    if bad:
        raise TrainingError(
            f"before the first step the model's log-probabilities are not finite for {len(bad)} of {len(pairs)} pairs "
            f"({named(bad)}): its weights hold NaN or overflow in {policy.dtype}; load it anew or take another "
            "model.dtype; nothing was trained"
        )
