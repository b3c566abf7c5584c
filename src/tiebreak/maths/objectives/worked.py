"""An objective for whoever holds log-probabilities: numbers in, losses, rewards and the mean that training goes down.

For notebooks and tests. Training itself asks `Objective`; both compute the same formula.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from tiebreak.maths.logps import Logps, TokenLogps
from tiebreak.maths.objectives.objective import Objective
from tiebreak.maths.objectives.said import Stated

Given: TypeAlias = Tensor | Sequence[float] | Sequence[Sequence[float]] | Sequence[Tensor]
"""For each pair one number, a completion's summed log-probability, or the log-probabilities of its tokens; nats."""


@dataclass(frozen=True)
class Worked:
    """What an objective says of some pairs."""

    losses: Float[Tensor, " pairs"]
    """One number a pair, before its weight."""
    chosen_rewards: Float[Tensor, " pairs"]
    rejected_rewards: Float[Tensor, " pairs"]
    mean: Float[Tensor, ""]
    """Σ weight × loss / pairs: what a step of these pairs goes down, with a gradient where the policy has one."""


@dataclass(frozen=True)
class WorkedObjective:
    """An objective with its settings, to be called with log-probabilities."""

    objective: Objective

    def at(self, step: int, num_steps: int) -> WorkedObjective:
        """Return the objective as it is at step 0 .. num_steps − 1 of a run: where its beta moves."""
        return WorkedObjective(self.objective.at(step, num_steps))

    @property
    def formula(self) -> str:
        """The formula, in words of the literature."""
        return str(self.objective.formula.losses.__doc__)

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
    ) -> Worked:
        """Return losses and rewards of pairs, of what policy (`chosen`, `rejected`) and reference say of them (nats).

        Log-probabilities are sums of completions, with the numbers of tokens where the objective divides by them, or
        those of every token, which count themselves. `soft_labels` (0..1), `margins` (differences of scores),
        `chosen_win_rates` and `rejected_win_rates` (0..1) are read by objectives that ask for them, `weights` (1 by
        default) multiply the loss of a pair in the mean. Lists are taken as float64, tensors keep dtype and graph.
        Raises ValueError where something is missing that the objective reads, or numbers of pairs differ.
        """
        counts = chosen_num_tokens, rejected_num_tokens
        ours, theirs = (chosen, rejected), None
        if reference_chosen is not None and reference_rejected is not None:
            theirs = reference_chosen, reference_rejected
        policy, reference, counted = _seen(self.objective, ours, theirs, counts)
        if reference is not None and reference.sums.shape != policy.sums.shape:
            raise ValueError("policy and reference have to say something of the same pairs")
        like = policy.sums
        facts = (soft_labels, margins, chosen_win_rates, rejected_win_rates)
        stated = Stated(*(_numbers(one, like) for one in facts))
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
        weighed = found.losses if weights is None else found.losses * _numbers(weights, like)
        return Worked(found.losses, found.rewards[0::2], found.rewards[1::2], weighed.mean())


def _seen(
    objective: Objective,
    policy: tuple[Given, Given],
    reference: tuple[Given, Given] | None,
    num_tokens: tuple[Any, Any],
) -> tuple[Logps, Logps | None, bool]:
    """Return what is summed of policy and reference, and whether it is known how many tokens completions have."""
    ours, theirs = _tokens(policy), None if reference is None else _tokens(reference)
    if ours is not None and (reference is None or theirs is not None):
        return *objective.summed(ours, theirs), True
    if objective.modifiers.weigh_tokens:
        raise ValueError("tokens do not count alike: give log-probabilities of every token")
    said, known = _together(policy, ours, num_tokens)
    return said, None if reference is None else _together(reference, theirs, num_tokens)[0], known


def _tokens(sides: tuple[Given, Given]) -> TokenLogps | None:
    """Return the tokens of both sides, pair after pair; None where sums are given."""
    if len(sides[0]) != len(sides[1]) or not len(sides[0]):
        raise ValueError(f"{len(sides[0])} chosen and {len(sides[1])} rejected completions are no pairs")
    by_token = [_rows(side) for side in sides]
    if not (by_token[0] and by_token[1]):
        return None
    rows = [row for pair in zip(*by_token, strict=True) for row in pair]
    return TokenLogps(torch.cat(rows), tuple(map(len, rows)))


def _together(sides: tuple[Given, Given], tokens: TokenLogps | None, num_tokens: tuple[Any, Any]) -> tuple[Logps, bool]:
    """Return the sums of both sides, pair after pair, and whether it is known how many tokens they have."""
    if tokens is not None:
        return tokens.summed(), True
    sums = [_sums(side) for side in sides]
    known = None not in num_tokens
    counts = [torch.as_tensor(num, dtype=torch.long) for num in num_tokens] if known else [torch.ones(len(sums[0]))] * 2
    together = torch.stack(counts, dim=1).flatten().long().to(sums[0].device)
    return Logps(torch.stack(sums, dim=1).flatten(), together), known


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


def _numbers(given: Sequence[float] | Tensor | None, like: Tensor) -> Any:
    """Return a number for each pair; None where none are given."""
    if given is None:
        return None
    numbers = torch.as_tensor(given, dtype=like.dtype, device=like.device)
    if numbers.shape != (len(like) // 2,):
        raise ValueError(f"{numbers.numel()} numbers are given for {len(like) // 2} pairs")
    return numbers
