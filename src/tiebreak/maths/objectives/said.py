"""What an objective sees of examples: what policy and reference say about each completion, and what annotators said.

Owns the quantities that formulas are made of. `Side` is one completion of each example; `Pairs` are two.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tiebreak.errors import DataError
from tiebreak.fingerprint import fingerprint, unit_interval
from tiebreak.maths.logps import Logps
from tiebreak.maths.objectives.divergences import REVERSE_KL, Divergence
from tiebreak.maths.objectives.running import AT_REST, Running
from tiebreak.records import Example

Numbers = Float[Tensor, " examples"]


@dataclass(frozen=True)
class Stated:
    """What annotators said of examples, as far as an objective asks for it; None where it asks not."""

    soft_label: Numbers | None = None
    """Probability that chosen is the better one, 0 to 1."""
    margin: Numbers | None = None
    """How much better chosen is, in the unit of the scores."""
    chosen_win_rate: Numbers | None = None
    rejected_win_rate: Numbers | None = None
    """Probability to win against a sample of the policy, 0 to 1."""
    liked: Numbers | None = None
    """1 where a completion that was judged on its own is good, 0 where it is bad."""
    baseline: Float[Tensor, ""] | None = None
    """What the policy gained on completions of other prompts, nats: what a whole step knows, and nobody states."""
    luck: Numbers | None = None
    """A standard Gumbel number that was drawn for each example in this step; None where nothing is drawn."""

    def with_baseline(self, value: float | Tensor, like: Tensor) -> Stated:
        """Return the same with a baseline."""
        return replace(self, baseline=torch.as_tensor(value, dtype=like.dtype, device=like.device))

    @staticmethod
    def of(
        examples: Sequence[Example],
        facts: Collection[str],
        like: Tensor,
        baseline: float | Tensor | None = None,
        draws: int | None = None,
    ) -> Stated:
        """Return some facts of examples as numbers like others; raises DataError where one was not stated.

        What is drawn for an example hangs on the seed `draws` and on the example alone, and not on its company.
        """
        told = {name: [getattr(example, name) for example in examples] for name in facts}
        for name, values in told.items():
            if missing := [example for example, value in zip(examples, values, strict=True) if value is None]:
                raise DataError(
                    f"the objective reads {name}, and {len(missing)} of {len(examples)} pairs state none "
                    f"({missing[0].example_id[:12]})"
                )
        found = Stated(**{name: numbers_like(like, values) for name, values in told.items()})
        if draws is not None:
            shares = [unit_interval(fingerprint([draws, example.example_id])) + 2**-54 for example in examples]
            found = replace(found, luck=numbers_like(like, [-math.log(-math.log(share)) for share in shares]))
        return found if baseline is None else found.with_baseline(baseline, like)


def numbers_like(like: Tensor, values: Sequence[float | bool]) -> Tensor:
    """Return values as numbers where others are, in their precision; no device is waited for."""
    return torch.tensor(values, dtype=like.dtype).to(like.device, non_blocking=True)


NOTHING_STATED = Stated()


@dataclass(frozen=True)
class Side:
    """One completion of each example: log-probabilities (nats, summed over its tokens), and how many tokens it has."""

    policy: Numbers
    reference: Numbers | None
    num_tokens: Int[Tensor, " examples"]
    divergence: Numbers | None = None
    """Σ_t KL(π_ref ‖ π) of whole distributions, nats; None where nobody asked."""
    reference_entropy: Numbers | None = None
    """Mean entropy of the reference's next-token distributions, as a share of log V; None where nobody asked."""

    @property
    def compared(self) -> Numbers:
        """log π_ref, nats. Raises ValueError where there is no reference."""
        if self.reference is None:
            raise ValueError("this objective compares with a reference, and none was given")
        return self.reference

    @property
    def ratio(self) -> Numbers:
        """u = log π − log π_ref, nats."""
        return self.policy - self.compared

    @property
    def kl(self) -> Numbers:
        """k = Σ_t KL(π_ref ‖ π), nats. Raises ValueError where whole distributions were not compared."""
        if self.divergence is None:
            raise ValueError("this objective compares whole distributions, and no divergence of them was given")
        return self.divergence

    @property
    def entropy(self) -> Numbers:
        """H, 0 to 1. Raises ValueError where nobody asked the reference for it."""
        if self.reference_entropy is None:
            raise ValueError("this objective reads the reference's entropy, and none was given")
        return self.reference_entropy

    @property
    def mean_ratio(self) -> Numbers:
        """u / |y|, nats a token."""
        return self.ratio / self.num_tokens

    @property
    def mean(self) -> Numbers:
        """a = log π / |y|, nats a token."""
        return self.policy / self.num_tokens


@dataclass(frozen=True)
class Pairs:
    """Two completions of each example, of which chosen is preferred, and what was said of the preference."""

    chosen: Side
    rejected: Side
    stated: Stated = NOTHING_STATED
    divergence: Divergence = REVERSE_KL
    running: Running = AT_REST
    """What the gaps of steps before were like, where an objective remembers them."""

    def rewards(self, beta: float) -> tuple[Numbers, Numbers]:
        """βu of both sides: the implicit rewards. Rafailov et al. 2023, Eq. 5; other divergences make βf'(e^u)."""
        link = self.divergence.link
        return beta * link(self.chosen.ratio), beta * link(self.rejected.ratio)

    def gap(self, beta: float) -> Numbers:
        """The difference of both rewards, as far as the divergence lets it go: βD."""
        chosen, rejected = self.rewards(beta)
        bound = self.divergence.bound
        return chosen - rejected if math.isinf(bound) else (chosen - rejected).clamp(-bound, bound)

    @staticmethod
    def of(policy: Logps, reference: Logps | None, stated: Stated = NOTHING_STATED) -> Pairs:
        """Return completions that stand pair after pair, chosen before rejected, as pairs."""
        chosen, rejected = (
            Side(
                policy.sums[at::2],
                None if reference is None else reference.sums[at::2],
                policy.num_tokens[at::2],
                None if policy.divergence is None else policy.divergence[at::2],
                None if reference is None or reference.entropy is None else reference.entropy[at::2],
            )
            for at in (0, 1)
        )
        return Pairs(chosen, rejected, stated)
