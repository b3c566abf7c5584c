"""An objective for whoever holds log-probabilities: numbers in, losses, rewards and the mean that training goes down.

For notebooks and tests. Training itself asks `Objective`; both compute the same formula.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from tiebreak.maths.logps import Logps, TokenLogps
from tiebreak.maths.losses import Losses
from tiebreak.maths.objectives.objective import Objective
from tiebreak.maths.objectives.running import Running
from tiebreak.maths.objectives.said import Stated
from tiebreak.records import FACTS, TokenizedThumb

Given: TypeAlias = Tensor | Sequence[float] | Sequence[Sequence[float]] | Sequence[Tensor]
"""For each pair one number, a completion's summed log-probability, or the log-probabilities of its tokens; nats."""

_ROUNDING = 1e-3
"""How far above 0 a log-probability may come out of a softmax, nats."""


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

    def at(self, step: int, num_steps: int) -> WorkedObjective:
        """Return the objective as it is at step 0 .. num_steps − 1 of a run: where its beta moves."""
        return WorkedObjective(self.objective.at(step, num_steps))

    def remembering(self, mean: float, spread: float) -> WorkedObjective:
        """Return the objective as it is after steps whose gaps had this running mean and spread, where it reads any."""
        return WorkedObjective(self.objective.remembering(Running(mean, spread)))

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
        chosen_confidences: Sequence[float] | Tensor | None = None,
        rejected_confidences: Sequence[float] | Tensor | None = None,
        chosen_divergences: Sequence[float] | Tensor | None = None,
        rejected_divergences: Sequence[float] | Tensor | None = None,
        chosen_entropies: Sequence[float] | Tensor | None = None,
        rejected_entropies: Sequence[float] | Tensor | None = None,
    ) -> Worked:
        """Return losses and rewards of pairs, of what policy (`chosen`, `rejected`) and reference say of them (nats).

        Objectives of completions on their own, such as kto, take all good ones as `chosen` and all bad ones as
        `rejected`; `baseline` is what the policy gained on completions of other prompts (z_0, nats, at least 0).

        Log-probabilities are sums of completions, with the numbers of tokens where the objective divides by them, or
        those of every token, which count themselves. `soft_labels` (0..1), `margins` (differences of scores),
        `chosen_win_rates` and `rejected_win_rates` (0..1) are read where they are asked for, confidences where
        `confidence_weights` are set: of a completion the mean over its tokens of log π − log Σ_v π² (nats), divergences
        where whole distributions are compared: the sum over its tokens of KL(π_ref ‖ π), nats, entropies where they are
        read: the mean over its tokens of the reference's entropy / log V. `weights` (else 1) multiply the loss of a
        pair in the mean. Lists are taken as float64, tensors keep dtype and graph. Raises ValueError where one lacks.
        """
        counts, apart = (chosen_num_tokens, rejected_num_tokens), self.objective.formula.learns_from is TokenizedThumb
        asked = _both(reference_chosen, reference_rejected)
        policy, reference, counted = _seen(self.objective, (chosen, rejected), asked, counts)
        like, places = policy.sums, torch.arange(len(policy.sums), device=policy.sums.device)
        good, num = (places < len(chosen), len(like)) if apart else (places % 2 == 0, len(like) // 2)
        policy = replace(policy, confidence=_paired(chosen_confidences, rejected_confidences, like, num))
        policy = replace(policy, divergence=_paired(chosen_divergences, rejected_divergences, like, num))
        reference = reference and replace(reference, entropy=_paired(chosen_entropies, rejected_entropies, like, num))
        _refuse_beside(self.objective, policy, reference, weights)
        facts = (soft_labels, margins, chosen_win_rates, rejected_win_rates)
        _refuse(self.objective, facts, weights=weights, baseline=baseline, counts=counts)
        stated = Stated(*(_numbers(one, like, num) for one in facts))
        stated = replace(stated, liked=good.to(like.dtype)) if apart else stated
        stated = stated if baseline is None else stated.with_baseline(baseline, like)
        found = self.objective(policy, reference, stated)
        if not counted:
            other = self.objective(replace(policy, num_tokens=places + 2), reference, stated)
            _refuse_unknown_lengths(self.objective, found, other)
        mean = (found.losses if weights is None else found.losses * _numbers(weights, like, num)).mean()
        return Worked(found.losses, found.rewards[good], found.rewards[~good], mean)


def _both(chosen: Any, rejected: Any) -> tuple[Any, Any] | None:
    """Return what is given of both sides; None where one has none."""
    return None if chosen is None or rejected is None else (chosen, rejected)


def _paired(chosen: Any, rejected: Any, like: Tensor, num: int) -> Tensor | None:
    """Return a number for each completion of `num` pairs; None where none are given."""
    sides = _both(chosen, rejected)
    return None if sides is None else torch.stack([_numbers(side, like, num) for side in sides], dim=1).flatten()


def _refuse(objective: Objective, facts: Sequence[Any], *, weights: Any, baseline: Any, counts: Any) -> None:
    """Raise ValueError where an objective does not read what is stated, lacks what it reads, or no number is so."""
    if (baseline is not None) != objective.formula.asks_baseline:
        does = "reads a baseline: give one" if baseline is None else "reads no baseline"
        raise ValueError(f"{objective.name} {does}")
    for name, given in zip(FACTS, facts, strict=True):
        if given is not None and name not in objective.facts:
            raise ValueError(f"{objective.name} does not read {name}s")
    soft, _, won, lost = facts
    shares, least = {"a soft label": soft, "a win rate": won, "a win rate of rejected": lost}, {"a weight": weights}
    for name, given in (*shares.items(), *least.items(), ("a baseline", baseline)):
        if given is not None:
            numbers = torch.as_tensor(given, dtype=torch.float64)
            if not bool(((numbers >= 0) & ((numbers <= 1) | (name not in shares))).all()):
                raise ValueError(f"{name} lies between 0 and 1" if name in shares else f"{name} is at least 0")
    if any(given is not None and not bool((torch.as_tensor(given) >= 1).all()) for given in counts):
        raise ValueError("a completion has at least one token")


def _refuse_beside(objective: Objective, policy: Logps, reference: Logps | None, weights: Any) -> None:
    """Raise ValueError where what is said of whole distributions is not read or cannot be, or weights are not read."""
    entropy = None if reference is None else reference.entropy
    for name, given, is_read, most in (
        ("confidences", policy.confidence, objective.modifiers.confidence_weights is not None, None),
        ("divergences", policy.divergence, objective.asks_distributions, math.inf),
        ("entropies", entropy, objective.formula.asks_entropy, 1.0),
    ):
        if given is not None and not is_read:
            raise ValueError(f"{objective.name} does not read {name}")
        if given is not None and most is not None and not bool(((given >= 0) & (given <= most)).all()):
            raise ValueError(f"{name} are at least 0" + (f" and at most {most:g}" if most < math.inf else ""))
    if weights is not None and objective.is_coupled:
        raise ValueError(f"{objective.name} does not read weights: the loss of one pair depends on the others")


def _refuse_unknown_lengths(objective: Objective, found: Losses, other: Losses) -> None:
    """Raise ValueError where other numbers of tokens do not give the same: then they have to be known."""
    for one, two in ((other.losses, found.losses), (other.rewards, found.rewards)):
        if not torch.equal(one.nan_to_num(), two.nan_to_num()):
            raise ValueError(
                f"{objective.name} reads how many tokens a completion has: give chosen_num_tokens and "
                "rejected_num_tokens, or log-probabilities of every token"
            )


def _seen(
    objective: Objective,
    policy: tuple[Given, Given],
    reference: tuple[Given, Given] | None,
    num_tokens: tuple[Any, Any],
) -> tuple[Logps, Logps | None, bool]:
    """Return what is summed of policy and reference, and whether it is known how many tokens completions have.

    Completions stand pair after pair or, of objectives that learn from each on its own, one side after the other.
    """
    apart = objective.formula.learns_from is TokenizedThumb
    ours, theirs = _tokens(policy, apart=apart), None if reference is None else _tokens(reference, apart=apart)
    if ours is not None and (reference is None or theirs is not None):
        said, asked, known = *objective.modifiers.summed(ours, theirs), True
    elif objective.modifiers.weigh_tokens:
        raise ValueError("tokens do not count alike: give log-probabilities of every token")
    else:
        said, known = _together(policy, ours, num_tokens, apart=apart)
        asked = None if reference is None else _together(reference, theirs, num_tokens, apart=apart)[0]
    for of, seen in (("policy", said), ("reference", asked)):
        if seen is not None and not bool((seen.sums <= _ROUNDING).all()):  # not ">": a NaN is refused, too
            raise ValueError(f"a log-probability of the {of} is above 0 or no number")
    if asked is not None and asked.sums.shape != said.sums.shape:
        raise ValueError("policy and reference have to say something of the same completions")
    return said, asked, known


def _tokens(sides: tuple[Given, Given], *, apart: bool) -> TokenLogps | None:
    """Return the tokens of both sides; None where sums are given."""
    if not all(_has_length(side) for side in sides):
        raise ValueError("a number, or the numbers of its tokens, is wanted for each of several completions: a list")
    if apart and not (len(sides[0]) or len(sides[1])):
        raise ValueError("no completion is given")
    if not apart and (len(sides[0]) != len(sides[1]) or not len(sides[0])):
        raise ValueError(f"{len(sides[0])} chosen and {len(sides[1])} rejected completions are no pairs")
    by_token = [_rows(side) for side in sides]
    if not (by_token[0] and by_token[1]):
        return None
    rows = [*by_token[0], *by_token[1]] if apart else [row for pair in zip(*by_token, strict=True) for row in pair]
    return TokenLogps(torch.cat(rows), tuple(map(len, rows)))


def _together(
    sides: tuple[Given, Given], tokens: TokenLogps | None, num_tokens: tuple[Any, Any], *, apart: bool
) -> tuple[Logps, bool]:
    """Return the sums of both sides, and whether it is known how many tokens they have."""
    if tokens is not None:
        return tokens.summed(), True

    def joined(both: Sequence[Tensor]) -> Tensor:
        return torch.cat(list(both)) if apart else torch.stack(list(both), dim=1).flatten()

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
