"""What each process of a run does in a step: with its own policy, optimizer and budget, and with what it is told.

Owns what is sent for a step: the examples themselves, and what the reference says of them. So only the first process
holds data and reference values, and the order of examples hangs on nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from tiebreak.config import TrainingConfig
from tiebreak.engine.model import POLICY, Model
from tiebreak.engine.ranks import Ranks
from tiebreak.engine.reference.kinds import Reference
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
    reference: Reference
    """What steps compare with."""
    optimizer: torch.optim.AdamW
    budget: Budget
    settings: TrainingConfig


def get_ready(ranks: Ranks, settings: TrainingConfig, rate: float) -> Learning:
    """Return what this process takes steps with from now on."""
    policy: Model = ranks.kept[POLICY]
    optimizer = build_optimizer([parameter for _, parameter in policy.trainable], settings, rate)
    found = Learning(policy, ranks.kept[COMPARED], optimizer, ranks.kept[BUDGET], settings)
    ranks.kept.update({_LEARNING: found, OPTIMIZER: optimizer})
    return found


def take(
    ranks: Ranks, objective: Objective, step: Step, rate: float, tokens: int, told: TokenLogps | None
) -> tuple[Metrics, float]:
    """Take one optimizer step together; return the metrics of all its examples, and the gradient norm.

    `tokens` are in memory at once in each process; `told` is what the reference says of the examples, where it was
    asked before.
    """
    here: Learning = ranks.kept[_LEARNING]
    here.budget.tokens = tokens
    set_rate(here.optimizer, rate)
    if ranks.rank:  # dropout of its own, and the same after a restart
        here.policy.network.train()
        torch.manual_seed(derive_seed(here.settings.seed, "dropout", ranks.rank, step.index))
    reference = here.reference if told is None else Told.of(here.reference, step.examples, told, here.policy.device)
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


def told_before(
    ranks: Ranks, reference: Reference, objective: Objective, examples: Sequence[Example], budget: Budget
) -> TokenLogps | None:
    """Return what the reference says of a step's examples, where several processes are to know it; asked by all."""
    if ranks.size == 1 or not objective.asks_reference or objective.asks_distributions:
        return None
    found, places = list[TokenLogps](), {id(example): place for place, example in enumerate(examples)}
    order = list[tuple[int, int]]()
    for group in budget.cut(examples):
        found.append(reference.logps(group, objective.beside_reference))
        order += [(places[id(one)], number) for one in group for number in range(len(one.completions))]
    together = TokenLogps.concatenated(found).picked(sorted(range(len(order)), key=order.__getitem__))
    return replace(
        together, values=together.values.cpu(), beside=None if together.beside is None else together.beside.cpu()
    )


def shared(ranks: Ranks, examples: Sequence[Example]) -> Mapping[str, float]:
    """Return what a step records of how it was dealt out; nothing where one process takes it."""
    if ranks.size == 1:
        return {}
    sizes = [num_unique_tokens(example) for example in examples]
    return {"balance": balance(sizes, ranks.shares(examples))}
