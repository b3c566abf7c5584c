"""An objective for whoever holds log-probabilities: numbers in, losses, rewards and the mean that training goes down.

For notebooks and tests. Training itself asks `Objective`; both compute the same formula.
"""

from __future__ import annotations

import inspect
import math
import sys
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
_EITHER = "of some completions there are tokens, of others a sum: give either of all"


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
        sides, asked = (chosen, rejected), (reference_chosen, reference_rejected)
        policy, reference, counted = _seen(self.objective, sides, asked, counts)
        like, places = policy.sums, torch.arange(len(policy.sums), device=policy.sums.device)
        good, num = (places < len(chosen), len(like)) if apart else (places % 2 == 0, len(like) // 2)
        policy = replace(policy, confidence=_paired(chosen_confidences, rejected_confidences, like, num, "confidences"))
        policy = replace(policy, divergence=_paired(chosen_divergences, rejected_divergences, like, num, "divergences"))
        entropy = _paired(chosen_entropies, rejected_entropies, like, num, "entropies")
        _refuse_beside(self.objective, policy, entropy, weights)
        facts, liked = (soft_labels, margins, chosen_win_rates, rejected_win_rates), good.to(like) if apart else None
        _refuse(self.objective, facts, weights=weights, baseline=baseline)
        stated = replace(Stated(*(_numbers(one, like, num) for one in facts)), liked=liked)
        stated = stated if baseline is None else stated.with_baseline(baseline, like)
        reference = reference and replace(reference, entropy=entropy)
        found = self.objective(policy, reference, stated)
        if not counted:
            other = self.objective(replace(policy, num_tokens=places + 2), reference, stated)
            _refuse_unknown_lengths(self.objective, found, other)
        mean = (found.losses if weights is None else found.losses * _numbers(weights, like, num)).mean()
        return Worked(found.losses, found.rewards[good], found.rewards[~good], mean)


def _both(chosen: Any, rejected: Any, what: str) -> tuple[Any, Any] | None:
    """Return what is given of both sides; None where none is. Raises ValueError where it is given of one."""
    if (chosen is None) != (rejected is None):
        raise ValueError(f"{what}: given of {'rejected' if chosen is None else 'chosen'} alone; give both, or neither")
    return None if chosen is None else (chosen, rejected)


def _paired(chosen: Any, rejected: Any, like: Tensor, num: int, what: str) -> Tensor | None:
    """Return a number for each completion of `num` pairs; None where none are given."""
    sides = _both(chosen, rejected, what)
    return None if sides is None else torch.stack([_numbers(side, like, num) for side in sides], dim=1).flatten()


def _refuse(objective: Objective, facts: Sequence[Any], *, weights: Any, baseline: Any) -> None:
    """Raise ValueError where an objective does not read what is stated, lacks what it reads, or no number is so."""
    if (baseline is not None) != objective.formula.asks_baseline:
        does = "reads a baseline: give one" if baseline is None else "reads no baseline"
        raise ValueError(f"{objective.name} {does}")
    for name, given in zip(FACTS, facts, strict=True):
        if given is not None and name not in objective.facts:
            raise ValueError(f"{objective.name} does not read {name}s")
    soft, margins, won, lost = facts
    shares, least = {"a soft label": soft, "a win rate": won, "a win rate of rejected": lost}, {"a weight": weights}
    for name, given in (*shares.items(), *least.items(), ("a baseline", baseline)):
        if given is not None:
            numbers = torch.as_tensor(given, dtype=torch.float64)
            if not bool(((numbers >= 0) & (numbers <= (1 if name in shares else sys.float_info.max))).all()):
                told = "lies between 0 and 1" if name in shares else "is at least 0, and finite"
                raise ValueError(f"{name} {told}")
    if margins is not None:
        numbers = torch.as_tensor(margins, dtype=torch.float64)
        if not bool(numbers.isfinite().all()):
            raise ValueError("a margin is a finite number")
        if objective.needs_margins_above_zero and not bool((numbers > 0).all()):
            raise ValueError(f"{objective.name} takes the logarithm of a margin: each is above 0 (or scale='linear')")


def _refuse_beside(objective: Objective, policy: Logps, entropy: Tensor | None, weights: Any) -> None:
    """Raise ValueError where what is said of whole distributions is not read or cannot be, or weights are not read."""
    for name, given, is_read, least, most in (
        ("confidences", policy.confidence, objective.modifiers.confidence_weights is not None, -math.inf, math.inf),
        ("divergences", policy.divergence, objective.asks_distributions, 0.0, math.inf),
        ("entropies", entropy, objective.formula.asks_entropy, 0.0, 1.0),
    ):
        if given is not None and not is_read:
            raise ValueError(f"{objective.name} does not read {name}")
        if given is not None and not bool(((given >= least) & (given <= most) & given.isfinite()).all()):
            bounds = [f"at least {least:g}"] * (least == 0) + [f"at most {most:g}"] * (most == 1) + ["finite"]
            raise ValueError(f"{name} are {' and '.join(bounds)}")
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
    asked_of: tuple[Given | None, Given | None],
    num_tokens: tuple[Any, Any],
) -> tuple[Logps, Logps | None, bool]:
    """Return what is summed of policy and reference, and whether it is known how many tokens completions have.

    Completions stand pair after pair or, of objectives that learn from each on its own, one side after the other.
    """
    apart, reference = objective.formula.learns_from is TokenizedThumb, _both(*asked_of, "what the reference says")
    ours, theirs = _tokens(policy, apart=apart), None if reference is None else _tokens(reference, apart=apart)
    _refuse_counts(policy, num_tokens)
    if reference is not None and list(map(len, policy)) != list(map(len, reference)):
        raise ValueError("policy and reference have to say something of the same completions")
    if ours is not None and theirs is not None and ours.num_tokens != theirs.num_tokens:
        one, two = next(two for two in zip(ours.num_tokens, theirs.num_tokens, strict=True) if two[0] != two[1])
        raise ValueError(f"of one completion the policy has {one} tokens and the reference {two}: give the same ones")
    if ours is not None and (reference is None or theirs is not None):
        said, asked, known = *objective.modifiers.summed(ours, theirs), True
    elif objective.modifiers.weigh_tokens:
        raise ValueError("tokens do not count alike: give log-probabilities of every token")
    else:
        said, known = _together(policy, ours, num_tokens, apart=apart)
        asked = None if reference is None else _together(reference, theirs, num_tokens, apart=apart)[0]
    for of, tokens, seen in (("policy", ours, said), ("reference", theirs, asked)):
        # Of each token: among others one that is no log-probability would be hidden in their sum.
        numbers = tokens.values if tokens is not None else None if seen is None else seen.sums
        if numbers is not None and not bool((numbers <= _ROUNDING).all()):  # not ">": a NaN is refused, too
            raise ValueError(f"a log-probability of the {of} is above 0 or no number")
    return said, asked, known


def _refuse_counts(sides: tuple[Given, Given], num_tokens: tuple[Any, Any]) -> None:
    """Raise ValueError where numbers of tokens cannot be, or are not those of the tokens that are given."""
    _both(*num_tokens, "numbers of tokens")
    for name, side, given in zip(("chosen", "rejected"), sides, num_tokens, strict=True):
        if given is None:
            continue
        numbers = torch.as_tensor(given, dtype=torch.float64).cpu()
        if numbers.shape != (len(side),):
            raise ValueError(f"{name}_num_tokens: {numbers.numel()} numbers are given for {len(side)} completions")
        if not bool(((numbers >= 1) & (numbers.frac() == 0)).all()):
            raise ValueError(f"{name}_num_tokens: a completion has at least one token, and a whole number of them")
        for num, row in zip(numbers.tolist(), _rows(side) or (), strict=False):
            if num != len(row):
                raise ValueError(
                    f"{name}_num_tokens says {num:g} where log-probabilities of {len(row)} tokens are given: "
                    "leave padding out of the rows; they count themselves"
                )


def _tokens(sides: tuple[Given, Given], *, apart: bool) -> TokenLogps | None:
    """Return the tokens of both sides; None where sums are given."""
    if not all(_has_length(side) for side in sides):
        raise ValueError("a number, or the numbers of its tokens, is wanted for each of several completions: a list")
    if apart and not (len(sides[0]) or len(sides[1])):
        raise ValueError("no completion is given")
    if not apart and (len(sides[0]) != len(sides[1]) or not len(sides[0])):
        raise ValueError(f"{len(sides[0])} chosen and {len(sides[1])} rejected completions are no pairs")
    chosen, rejected = (_rows(side) for side in sides)
    if chosen is None or rejected is None:
        if chosen or rejected:
            raise ValueError(_EITHER)
        return None
    rows = [*chosen, *rejected] if apart else [row for pair in zip(chosen, rejected, strict=True) for row in pair]
    if not all(row.dim() == 1 and len(row) for row in rows):
        raise ValueError("a completion has at least one token, and each token one number")
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


def _rows(side: Given) -> list[Tensor] | None:
    """Return the tokens of each completion, of none where there is none; None where sums are given."""
    if len(side) and ((isinstance(side, Tensor) and side.dim() == 1) or not any(_has_length(one) for one in side)):
        return None
    if not all(_has_length(one) for one in side):
        raise ValueError(_EITHER)
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
