"""One optimizer step: its examples, in micro-batches that fit, down the gradient of their mean loss.

Owns the reduction: losses, each times the weight of its example, are summed over micro-batches and divided once, by the
examples of the step, so no result depends on how a step was cut. What is recorded counts examples, not
weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from tiebreak import faults
from tiebreak.engine.baseline import baseline
from tiebreak.engine.comparison import compared
from tiebreak.engine.memory import is_out_of_memory
from tiebreak.engine.model import Model
from tiebreak.engine.ranks import Ranks
from tiebreak.engine.reference.kinds import Reference
from tiebreak.errors import NotFinite
from tiebreak.maths.logps import Logps
from tiebreak.maths.metrics import LOSS, Metrics
from tiebreak.maths.objectives import Objective, Stated, slopes
from tiebreak.maths.objectives.said import numbers_like
from tiebreak.records import Example
from tiebreak.training.budget import Budget
from tiebreak.training.order import Step, named


def learn(
    policy: Model,
    reference: Reference,
    objective: Objective,
    step: Step,
    optimizer: torch.optim.Optimizer,
    *,
    budget: Budget,
    ranks: Ranks,
    max_grad_norm: float,
) -> tuple[Metrics, float]:
    """Take one optimizer step; return the metrics of its examples, and the gradient norm before clipping.

    Where memory runs out, micro-batches of half the size carry the same examples. The device is waited for once. Raises
    NotFinite, before the optimizer moves anything, where a loss or the norm is not a number.
    """
    down = _coupled_gradient if objective.is_coupled else _gradient
    while True:
        optimizer.zero_grad(set_to_none=True)
        groups = budget.cut(ranks.deal(step.examples))
        ran_out = False
        try:
            gain = None
            if objective.formula.asks_baseline:
                gain = baseline(policy, reference, step.examples, budget.cut, ranks)
            metrics = down(policy, reference, objective, groups, len(step.examples), gain)
            spoilt = faults.point("step:gradient")
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            ran_out = True
        if not ranks.any(ran_out):
            break
        budget.halve(groups, step.index + 1)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    norm = torch.nn.utils.clip_grad_norm_(parameters, max_grad_norm)
    *losses, norm_value = torch.cat([metrics[LOSS], norm.detach().float().reshape(1)]).tolist()
    losses = [math.nan] * len(losses) if spoilt else losses
    dealt = [example for group in groups for example in group]
    _require_finite(losses, dealt, step, ranks, "loss")
    _require_finite([norm_value] * len(dealt), ranks.deal(step.examples), step, ranks, "gradient norm")
    optimizer.step()
    return Metrics(metrics.names, ranks.gather(metrics.values)), norm_value


def _gradient(
    policy: Model,
    reference: Reference,
    objective: Objective,
    groups: Sequence[Sequence[Example]],
    num: int,
    gain: Tensor | None,
) -> Metrics:
    """Add the gradient of the mean loss over the `num` examples of a step, micro-batch after micro-batch.

    `gain` is the baseline of the step, where the objective reads one.
    """
    found = []
    for group in groups:
        tokens, theirs = compared(policy, reference, objective, group)
        said, frozen = objective.summed(tokens, theirs)
        stated = Stated.of(group, objective.facts, said.sums, gain, objective.draws)
        losses = objective(said, frozen, stated)
        ((_weights(group, said) * losses.losses).sum() / num).backward()  # type: ignore[no-untyped-call]
        found.append(objective.formula.metrics(losses, tokens.summed(), stated))
    return Metrics.concatenated(found)


def _coupled_gradient(
    policy: Model,
    reference: Reference,
    objective: Objective,
    groups: Sequence[Sequence[Example]],
    num: int,
    gain: Tensor | None,
) -> Metrics:
    """Do the same where the loss of one example depends on the others: numbers first, then each group's own slopes.

    Cost: one forward pass more. With adapter dropout its masks differ from those of the second pass.
    """
    examples = [example for group in groups for example in group]
    # Group by group, as the policy: the whole step may not fit.
    beside = objective.beside_reference
    theirs = [reference.logps(group, beside) if objective.asks_reference else None for group in groups]
    with torch.no_grad():
        seen = [
            objective.summed(policy.score(group, objective.beside), their)
            for group, their in zip(groups, theirs, strict=True)
        ]
    said = Logps.concatenated([ours for ours, _ in seen])
    frozen = Logps.concatenated([their for _, their in seen if their]) if objective.asks_reference else None
    stated = Stated.of(examples, objective.facts, said.sums, gain, objective.draws)
    by_sums, losses = slopes(objective, said, frozen, _weights(examples, said), stated)
    own = torch.split(by_sums / num, [sum(len(example.completions) for example in group) for group in groups])
    for group, their, slope in zip(groups, theirs, own, strict=True):
        ours, _ = objective.unweighted.summed(policy.score(group), their)
        (ours.sums * slope).sum().backward()  # type: ignore[no-untyped-call]
    return objective.formula.metrics(losses, said, stated)


def _weights(examples: Sequence[Example], said: Logps) -> Tensor:
    return numbers_like(said.sums, [example.weight for example in examples])


def _require_finite(values: Sequence[float], examples: Sequence[Example], step: Step, ranks: Ranks, what: str) -> None:
    """Stop before the optimizer moves anything, all ranks alike, and name the examples of this one."""
    bad = [example for example, value in zip(examples, values, strict=True) if not math.isfinite(value)]
    if not ranks.any(bool(bad)):
        return
    raise NotFinite(
        f"step {step.index + 1}: the {what} is not finite for {len(bad)} pairs ({named(bad)}); the optimizer did not "
        "take this step; lower training.learning_rate, set training.on_divergence to rollback, or look these pairs up"
    )
