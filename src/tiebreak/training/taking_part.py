"""What each process of a run does in a step: with its own policy, optimizer and budget, and with what it is told.

Owns what is sent for a step: the examples themselves, and what the reference says of them. So only the first process
holds data and reference values, and the order of examples hangs on nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch

from tiebreak.config import TrainingConfig
from tiebreak.engine.model import POLICY, Model
from tiebreak.engine.ranks import Ranks
from tiebreak.engine.reference.kinds import Asked, Reference
from tiebreak.engine.reference.told import Told
from tiebreak.fingerprint import derive_seed
from tiebreak.maths.dealing import balance
from tiebreak.maths.logps import TokenLogps
from tiebreak.maths.metrics import Metrics
from tiebreak.maths.objectives import Objective
from tiebreak.records import Example, num_unique_tokens
from tiebreak.training.budget import Budget
from tiebreak.training.optimizer import build_optimizer, set_rate
from tiebreak.training.order import Step
from tiebreak.training.parts import OPTIMIZER
from tiebreak.training.step import learn

COMPARED, BUDGET, _LEARNING = "compared", "budget", "learning"


@dataclass(frozen=True)
class Learning:
    """What a process takes steps with."""

    policy: Model
    reference: Reference | None
    """What steps compare with; only the first process has it, the others keep its weights."""
    optimizer: torch.optim.AdamW
    budget: Budget
    settings: TrainingConfig


def get_ready(ranks: Ranks, settings: TrainingConfig, rate: float) -> Learning:
    """Return what this process takes steps with from now on."""
    policy: Model = ranks.kept[POLICY]
    optimizer = build_optimizer([parameter for _, parameter in policy.trainable], settings, rate)
    budget = ranks.kept.get(BUDGET) or Budget(policy)
    found = Learning(policy, ranks.kept.get(COMPARED), optimizer, budget, settings)
    ranks.kept.update({_LEARNING: found, OPTIMIZER: optimizer})
    return found


def take(
    ranks: Ranks, objective: Objective, step: Step, rate: float, tokens: int, told: Before | None
) -> tuple[Metrics, float]:
    """Take one optimizer step together; return the metrics of all its examples, and the gradient norm.

    `tokens` are in memory at once in each process; `told` is what is known of the reference, where several take it.
    """
    here: Learning = ranks.kept[_LEARNING]
    here.budget.tokens = tokens
    set_rate(here.optimizer, rate)
    if ranks.rank:  # dropout of its own, and the same after a restart
        here.policy.network.train()
        torch.manual_seed(derive_seed(here.settings.seed, "dropout", ranks.rank, step.index))
    reference: Asked | None = here.reference
    if told is not None:
        own = here.reference.model if here.reference else partial(ranks.kept[told.key].at_work, told.adapter)
        reference = Told.of(own, step.examples, told.said, here.policy.device)
    assert reference is not None, "of a step of several processes, something was told before"  # noqa: S101
    return learn(
        here.policy,
        reference,
        objective,
        step,
        here.optimizer,
        budget=here.budget,
        ranks=ranks,
        max_grad_norm=here.settings.max_grad_norm,
    )


def rest(ranks: Ranks) -> None:
    """Let go of what this process took steps with: what is measured next may need the room."""
    for name in (_LEARNING, OPTIMIZER, COMPARED, BUDGET):
        ranks.kept.pop(name, None)


@dataclass(frozen=True)
class Before:
    """What processes are told of the reference before a step."""

    said: TokenLogps | None
    """Of the examples of the step, in their order; None where a step asks more than that, or nothing."""
    key: str = POLICY
    """Whose weights it is, where a step asks it as a model: they are in every process by then."""
    adapter: str | None = None


def told_before(
    ranks: Ranks, reference: Reference, objective: Objective, examples: Sequence[Example], budget: Budget
) -> Before | None:
    """Return what all processes are told of the reference, which all of them are asked for; None of one process."""
    if ranks.size == 1:
        return None
    if not objective.asks_reference:
        return Before(None)
    said = None if objective.asks_distributions else _said_of(reference, objective, examples, budget)
    if not (objective.asks_distributions or objective.formula.asks_baseline):
        return Before(said)
    with reference.model() as frozen:
        return Before(said, frozen.key, frozen.adapter)


def _said_of(reference: Reference, objective: Objective, examples: Sequence[Example], budget: Budget) -> TokenLogps:
    found, places = list[TokenLogps](), {id(example): place for place, example in enumerate(examples)}
    order = list[tuple[int, int]]()
    for group in budget.cut(examples):
        found.append(reference.logps(group, objective.beside_reference))
        order += [(places[id(one)], number) for one in group for number in range(len(one.completions))]
    together = TokenLogps.concatenated(found).ordered(order)
    return replace(
        together, values=together.values.cpu(), beside=None if together.beside is None else together.beside.cpu()
    )


def shared(ranks: Ranks, examples: Sequence[Example]) -> Mapping[str, float]:
    """Return what a step records of how it was dealt out; nothing where one process takes it."""
    if ranks.size == 1:
        return {}
    sizes = [num_unique_tokens(example) for example in examples]
    return {"balance": balance(sizes, ranks.shares(examples))}
