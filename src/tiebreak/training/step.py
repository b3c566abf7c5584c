"""One optimizer step: its pairs, in micro-batches that fit, down the gradient of their mean loss.

Owns the reduction: losses, each times the weight of its pair, are summed over micro-batches and divided once, by the
pairs of the step, so no result depends on how a step was cut. What is recorded counts pairs, not weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain

import torch

from tiebreak import faults
from tiebreak.config import Config
from tiebreak.engine.memory import is_out_of_memory, release_cached
from tiebreak.engine.model import Policy
from tiebreak.errors import NotFinite, TrainingError
from tiebreak.maths.losses import Objective
from tiebreak.maths.metrics import PairMetrics, pair_metrics
from tiebreak.records import TokenizedPair
from tiebreak.training.order import Step, named


def learn(
    policy: Policy, step: Step, loss: Objective, optimizer: torch.optim.Optimizer, config: Config
) -> tuple[PairMetrics, float]:
    """Take one optimizer step; return the metrics of its pairs, and the gradient norm before clipping.

    Where memory runs out, micro-batches of half the size carry the same pairs. The device is waited for once.
    """
    while True:
        optimizer.zero_grad(set_to_none=True)
        groups = policy.micro_batches(step.pairs)
        try:
            metrics = [_learn_group(policy, group, step, loss, config) for group in groups]
            spoilt = faults.point("step:gradient")
            break
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        _halve_budget(policy, groups, step)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    norm = torch.nn.utils.clip_grad_norm_(parameters, config.training.max_grad_norm)
    measured = PairMetrics.concatenated(metrics)
    *losses, norm_value = torch.cat([measured.values[:, 0], norm.detach().float().reshape(1)]).tolist()
    losses = [math.nan] * len(losses) if spoilt else losses
    _require_finite(losses, list(chain.from_iterable(groups)), step, "loss")
    _require_finite([norm_value] * len(step.pairs), step.pairs, step, "gradient norm")
    optimizer.step()
    return measured, norm_value


def _learn_group(
    policy: Policy, pairs: Sequence[TokenizedPair], step: Step, loss: Objective, config: Config
) -> PairMetrics:
    """Add one micro-batch's share to the gradient of the step."""
    reference = policy.reference.logps(pairs)
    scores = policy.scorer(policy.model, pairs)
    losses = loss(scores, reference)
    weights = losses.new_tensor([pair.weight for pair in pairs])
    ((weights * losses).sum() / len(step.pairs)).backward()  # type: ignore[no-untyped-call]
    return pair_metrics(losses, scores, reference, beta=config.loss.beta)


def _halve_budget(policy: Policy, groups: Sequence[Sequence[TokenizedPair]], step: Step) -> None:
    largest = max(policy.scorer.num_tokens(group) for group in groups)
    if all(len(group) == 1 for group in groups):
        raise TrainingError(
            f"step {step.index + 1}: out of memory with one pair at a time (up to {largest} tokens); lower "
            "data.max_length or set training.gradient_checkpointing=true; nothing of this step was learned"
        )
    policy.budget.tokens = min(policy.budget.tokens, largest) // 2
    release_cached(policy.device)


def _require_finite(values: Sequence[float], pairs: Sequence[TokenizedPair], step: Step, what: str) -> None:
    """Stop before the optimizer moves anything, and name the pairs."""
    bad = [pair for pair, value in zip(pairs, values, strict=True) if not math.isfinite(value)]
    if not bad:
        return
    raise NotFinite(
        f"step {step.index + 1}: the {what} is not finite for {len(bad)} pairs ({named(bad)}); the optimizer did not "
        "take this step; lower training.learning_rate, set training.on_divergence to rollback, or look these pairs up"
    )
