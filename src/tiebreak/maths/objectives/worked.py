"""An objective for whoever holds log-probabilities: numbers in, losses, rewards and the mean that training goes down.

For notebooks and tests. Training itself asks `Objective`; both compute the same formula.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from tiebreak.maths.logps import Logps, TokenLogps
from tiebreak.maths.objectives.said import Stated
from tiebreak.maths.objectives.table import Objective
from tiebreak.records import TokenizedThumb

Given: TypeAlias = Tensor | Sequence[float] | Sequence[Sequence[float]] | Sequence[Tensor]
"""For each pair one number, a completion's summed log-probability, or the log-probabilities of its tokens; nats."""


@dataclass(frozen=True)
class Worked:
    """What an objective says of some examples: of pairs, or of completions on their own, good ones before bad ones."""

    losses: Float[Tensor, " examples"]
    """One number an example, before its weight."""
    chosen_rewards: Float[Tensor, " chosen"]
    rejected_rewards: Float[Tensor, " rejected"]
    """Of the good completions, and of the bad ones."""
    mean: Float[Tensor, ""]
    """Σ weight × loss / examples: what a step of these goes down, with a gradient where the policy has one."""


@dataclass(frozen=True)
class WorkedObjective:
    """An objective with its settings, to be called with log-probabilities."""

    objective: Objective

    @property
    def formula(self) -> str:
        """The formula, in words of the literature."""
        return str(inspect.getdoc(self.objective.formula.losses))

    def __call__(
        self,
        chosen: Given,
        rejected: Given,
        reference_chosen: Given | None = None,
        reference_rejected: Given | None = None,
        *,
        chosen_num_tokens: Sequence[int] | Tensor | None = None,
        rejected_num_tokens: Sequence[int] | Tensor | None = None,
        soft_labels: Sequence[float] | Tensor | None = None,
        margins: Sequence[float] | Tensor | None = None,
        chosen_win_rates: Sequence[float] | Tensor | None = None,
        rejected_win_rates: Sequence[float] | Tensor | None = None,
        weights: Sequence[float] | Tensor | None = None,
        baseline: float | Tensor | None = None,
    ) -> Worked:
        """Return losses and rewards of pairs, of what policy (`chosen`, `rejected`) and reference say of them (nats).

        Objectives of completions on their own, such as kto, take the good ones as `chosen` and the bad ones as
        `rejected`, as many of each as there are; `baseline` is then what the policy gained on completions of other
        prompts (z_0, nats, at least 0).

        Log-probabilities are sums of completions, with the numbers of tokens where the objective divides by them, or
        those of every token, which count themselves. `soft_labels` (0..1), `margins` (differences of scores),
        `chosen_win_rates` and `rejected_win_rates` (0..1) are read by objectives that ask for them, `weights` (1 by
        default) multiply the loss of a pair in the mean. Lists are taken as float64, tensors keep dtype and graph.
        Raises ValueError where something is missing that the objective reads, or numbers of pairs differ.
        """
        counts = chosen_num_tokens, rejected_num_tokens
        apart = self.objective.formula.learns_from is TokenizedThumb
        if (baseline is not None) != self.objective.formula.asks_baseline:
            does = "reads a baseline: give one" if baseline is None else "reads no baseline"
            raise ValueError(f"{self.objective.name} {does}")
        policy, counted = _together(self.objective, (chosen, rejected), counts, apart=apart)
        reference = None
        if reference_chosen is not None and reference_rejected is not None:
            reference, _ = _together(self.objective, (reference_chosen, reference_rejected), counts, apart=apart)
            if reference.sums.shape != policy.sums.shape:
                raise ValueError("policy and reference have to say something of the same completions")
        like, good = policy.sums, torch.arange(len(policy.sums), device=policy.sums.device) % 2 == 0
        if apart:
            good = torch.arange(len(like), device=like.device) < len(chosen)
        num = len(like) if apart else len(like) // 2
        facts = (soft_labels, margins, chosen_win_rates, rejected_win_rates)
        stated = Stated(*(_numbers(one, like, num) for one in facts), liked=good.to(like.dtype) if apart else None)
        if baseline is not None:
            stated = stated.with_baseline(baseline, like)
        found = self.objective(policy, reference, stated)
        if not counted:  # then they may not matter: other numbers of tokens have to give the same
            others = torch.arange(2, 2 + len(policy.sums), device=policy.sums.device)
            other = self.objective(Logps(policy.sums, others), reference, stated)
            if not all(
                torch.equal(one.nan_to_num(), two.nan_to_num())
                for one, two in ((other.losses, found.losses), (other.rewards, found.rewards))
            ):
                raise ValueError(
                    f"{self.objective.name} reads how many tokens a completion has: give chosen_num_tokens and "
                    "rejected_num_tokens, or log-probabilities of every token"
                )
        weighed = found.losses if weights is None else found.losses * _numbers(weights, like, num)
        return Worked(found.losses, found.rewards[good], found.rewards[~good], weighed.mean())


def _together(
    objective: Objective, sides: tuple[Given, Given], num_tokens: tuple[Any, Any], *, apart: bool
) -> tuple[Logps, bool]:
    """Return what is summed of both sides, and whether it is known how many tokens they have.

    They stand pair after pair or, `apart`, one side after the other.
    """
    if apart and not (len(sides[0]) and len(sides[1])):
        raise ValueError("good and bad completions are wanted, at least one of each")
    if not apart and (len(sides[0]) != len(sides[1]) or not len(sides[0])):
        raise ValueError(f"{len(sides[0])} chosen and {len(sides[1])} rejected completions are no pairs")

    def joined(both: Sequence[Tensor]) -> Tensor:
        return torch.cat(list(both)) if apart else torch.stack(list(both), dim=1).flatten()

    by_token = [_rows(side) for side in sides]
    if by_token[0] and by_token[1]:
        rows = [*by_token[0], *by_token[1]] if apart else [row for pair in zip(*by_token, strict=True) for row in pair]
        return objective.summed(TokenLogps(torch.cat(rows), tuple(map(len, rows)))), True
    if objective.length_desensitised is not None:
        raise ValueError("length_desensitised weighs tokens: give log-probabilities of every token")
    sums = [_sums(side) for side in sides]
    known = None not in num_tokens
    counts = (
        [torch.as_tensor(num, dtype=torch.long) for num in num_tokens] if known else list(map(torch.ones_like, sums))
    )
    return Logps(joined(sums), joined(counts).long().to(sums[0].device)), known


def _sums(side: Given) -> Tensor:
    if isinstance(side, Tensor):
        return side
    if any(isinstance(one, Tensor) for one in side):
        return torch.stack([torch.as_tensor(one) for one in side])
    return torch.tensor(side, dtype=torch.float64)


def _rows(side: Given) -> list[Tensor]:
    """Return the tokens of each completion; none where sums are given."""
    if (isinstance(side, Tensor) and side.dim() == 1) or not any(_has_length(one) for one in side):
        return []
    if not all(_has_length(one) for one in side):
        raise ValueError("of some completions there are tokens, of others a sum: give either of all")
    return [one if isinstance(one, Tensor) else torch.tensor(one, dtype=torch.float64) for one in side]


def _has_length(one: Any) -> bool:
    return one.dim() > 0 if isinstance(one, Tensor) else isinstance(one, Sequence)


def _numbers(given: Sequence[float] | Tensor | None, like: Tensor, num: int) -> Any:
    """Return a number for each of `num` examples; None where none are given."""
    if given is None:
        return None
    numbers = torch.as_tensor(given, dtype=like.dtype, device=like.device)
    if numbers.shape != (num,):
        raise ValueError(f"{numbers.numel()} numbers are given for {num} examples")
    return numbers
