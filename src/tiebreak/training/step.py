"""One optimizer step: its examples, in micro-batches that fit, down the gradient of their mean loss.

Owns the reduction: losses, each times the weight of its example, are summed over micro-batches and divided once, by the
examples of the step, so no result depends on how a step was cut. What is recorded counts examples, not
weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from tiebreak import faults
from tiebreak.diagnosis.strides import NOT_FINITE
from tiebreak.engine.baseline import baseline
from tiebreak.engine.comparison import compared
from tiebreak.engine.lockstep import idle
from tiebreak.engine.memory import RanOutElsewhere, all_or_none, is_out_of_memory
from tiebreak.engine.model import Model
from tiebreak.engine.ranks import Ranks
from tiebreak.engine.reference.kinds import Asked
from tiebreak.engine.shares import clip
from tiebreak.errors import NotFinite
from tiebreak.maths.logps import Logps, TokenLogps
from tiebreak.maths.metrics import LOSS, Metrics
from tiebreak.maths.objectives import Objective, Stated, slopes
from tiebreak.maths.objectives.said import numbers_like
from tiebreak.records import Example
from tiebreak.training.budget import Budget
from tiebreak.training.order import Step, named


def learn(
    policy: Model,
    reference: Asked,
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
        try:
            gain = None
            if objective.formula.asks_baseline:
                gain = baseline(policy, reference, step.examples, budget.cut, ranks)
            metrics = down(policy, reference, objective, groups, step.examples, ranks, gain)
            spoilt = faults.point("step:gradient")
            break
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            ran_out = not isinstance(error, RanOutElsewhere)
        budget.halve(groups, step.index + 1, ran_out=ran_out)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    if policy.in_shares:  # the passes have summed them
        norm = clip(parameters, max_grad_norm)
    else:
        ranks.sum_gradients(parameters)
        norm = torch.nn.utils.clip_grad_norm_(parameters, max_grad_norm)
    own = metrics[LOSS] if groups else norm.new_empty(0)
    *losses, norm_value = torch.cat([own, norm.detach().float().reshape(1)]).tolist()
    losses = [math.nan] * len(losses) if spoilt else losses
    dealt = [example for group in groups for example in group]
    _require_finite(losses, dealt, step, ranks, "loss")
    _require_finite([norm_value] * len(dealt), dealt, step, ranks, "gradient norm")
    optimizer.step()
    return Metrics(metrics.names, ranks.gather(metrics.values)), norm_value


def _gradient(
    policy: Model,
    reference: Asked,
    objective: Objective,
    groups: Sequence[Sequence[Example]],
    every: Sequence[Example],
    ranks: Ranks,
    gain: Tensor | None,
) -> Metrics:
    """Add the gradient of the mean loss over `every` example of a step, micro-batch after micro-batch of this process.

    `gain` is the baseline of the step, where the objective reads one.
    """
    missing = _num_missing(policy, groups, ranks)

    def gone_down() -> Metrics:
        found = []
        for group in groups:
            tokens, theirs = compared(policy, reference, objective, group)
            said, frozen = objective.summed(tokens, theirs)
            stated = Stated.of(group, objective.facts, said.sums, gain, objective.draws)
            losses = objective(said, frozen, stated)
            ((_weights(group, said) * losses.losses).sum() / len(every)).backward()  # type: ignore[no-untyped-call]
            found.append(objective.formula.metrics(losses, tokens.summed(), stated))
        for _ in range(missing):
            idle(policy, partial(compared, policy, reference, objective) if objective.asks_distributions else None)
        # None, where there are more processes than examples.
        return Metrics.concatenated(found) if found else Metrics((), torch.empty(0, 0, device=policy.device))

    return all_or_none(ranks, gone_down, in_shares=policy.in_shares)


def _coupled_gradient(
    policy: Model,
    reference: Asked,
    objective: Objective,
    groups: Sequence[Sequence[Example]],
    every: Sequence[Example],
    ranks: Ranks,
    gain: Tensor | None,
) -> Metrics:
    """Do the same where the loss of one example depends on the others: numbers first, then each group's own slopes.

    Cost: one forward pass more. With adapter dropout its masks differ from those of the second pass.
    """
    own = [example for group in groups for example in group]
    place_of = {id(example): place for place, example in enumerate(every)}
    places = ranks.collect([place_of[id(example)] for example in own])
    examples = [every[place] for theirs in places for place in theirs]
    beside = objective.beside_reference

    def scored() -> list[tuple[TokenLogps | None, Logps, Logps | None]]:
        # Group by group, as the policy: the whole step may not fit.
        theirs = [reference.logps(group, beside) if objective.asks_reference else None for group in groups]
        with policy.asked(), torch.no_grad():
            return [
                (their, *objective.summed(policy.score(group, objective.beside), their))
                for group, their in zip(groups, theirs, strict=True)
            ]

    seen = all_or_none(ranks, scored, in_shares=policy.in_shares)
    said = _of_all([ours for _, ours, _ in seen], ranks, policy.device)
    frozen = None
    if objective.asks_reference:
        frozen = _of_all([their for *_, their in seen if their], ranks, policy.device)
    stated = Stated.of(examples, objective.facts, said.sums, gain, objective.draws)
    by_sums, losses = slopes(objective, said, frozen, _weights(examples, said), stated)
    before = sum(map(len, places[: ranks.rank]))
    first, last = (sum(len(one.completions) for one in examples[:end]) for end in (before, before + len(own)))
    mine = (by_sums / len(every))[first:last]
    parts = torch.split(mine, [sum(len(example.completions) for example in group) for group in groups])
    missing = _num_missing(policy, groups, ranks)

    def gone_down() -> None:
        for group, (their, *_), slope in zip(groups, seen, parts, strict=True):
            ours, _ = objective.unweighted.summed(policy.score(group), their)
            (ours.sums * slope).sum().backward()  # type: ignore[no-untyped-call]
        for _ in range(missing):
            idle(policy)

    all_or_none(ranks, gone_down, in_shares=policy.in_shares)
    metrics = objective.formula.metrics(losses, said, stated)
    return Metrics(metrics.names, metrics.values[before : before + len(own)])


def _num_missing(policy: Model, groups: Sequence[object], ranks: Ranks) -> int:
    """Return how many passes of nothing this process has to make, where all have to make as many."""
    return max(ranks.collect(len(groups))) - len(groups) if policy.in_shares else 0


def _of_all(parts: Sequence[Logps], ranks: Ranks, device: torch.device) -> Logps:
    """Return what is said of the examples of all processes, in the order of ranks."""
    nothing = torch.empty(0, device=device)
    own = Logps.concatenated(parts) if parts else Logps(nothing, nothing.long())
    told = {name: value for name, value in vars(own).items() if value is not None}
    wanted = {name for some in ranks.collect([*told] if parts else []) for name in some}
    return Logps(**{name: ranks.gather(told.get(name, nothing)) for name in sorted(wanted)})


def _weights(examples: Sequence[Example], said: Logps) -> Tensor:
    return numbers_like(said.sums, [example.weight for example in examples])


def _require_finite(values: Sequence[float], examples: Sequence[Example], step: Step, ranks: Ranks, what: str) -> None:
    """Stop before the optimizer moves anything, all ranks alike, and name the examples."""
    own = [example for example, value in zip(examples, values, strict=True) if not math.isfinite(value)]
    if not ranks.any(bool(own)):
        return
    bad = [example for some in ranks.collect(own) for example in some]
    raise NotFinite(
        f"step {step.index + 1}: the {what} is {NOT_FINITE} for {len(bad)} pairs ({named(bad)}); the optimizer did not "
        "take this step; lower training.learning_rate, set training.on_divergence to rollback, or look these pairs up"
    )
