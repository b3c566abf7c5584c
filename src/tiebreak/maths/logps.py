"""What a model says about completions: log-probabilities by token and by completion.

Owns how tokens become a completion's sum. Sums and counts travel together, so a loss can divide once, last. Knows no
sides: an objective takes the view of its examples, `paired` where they are pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class PairLogps:
    """Summed log-probabilities (nats, fp32) of both completions of each pair, with the tokens behind each sum."""

    chosen: Float[Tensor, " pairs"]
    rejected: Float[Tensor, " pairs"]
    chosen_num_tokens: Int[Tensor, " pairs"]
    rejected_num_tokens: Int[Tensor, " pairs"]

    @property
    def gap(self) -> Float[Tensor, " pairs"]:
        """log π(chosen) − log π(rejected)."""
        return self.chosen - self.rejected


@dataclass(frozen=True)
class Logps:
    """Summed log-probabilities (nats, fp32) of completions, example after example, and the tokens behind each sum."""

    sums: Float[Tensor, " completions"]
    num_tokens: Int[Tensor, " completions"]
    confidence: Float[Tensor, " completions"] | None = None
    """Mean over a completion's tokens of log π − log Σ_v π², nats, without a gradient; None where nobody asked."""
    divergence: Float[Tensor, " completions"] | None = None
    """Σ over a completion's tokens of KL(π_ref ‖ π) of the whole distribution, nats; None where nobody asked."""
    entropy: Float[Tensor, " completions"] | None = None
    """Mean over a completion's tokens of the distribution's entropy, as a share of log V; None where nobody asked."""

    def paired(self) -> PairLogps:
        """Return a view for examples of two completions each, chosen before rejected."""
        return PairLogps(self.sums[0::2], self.sums[1::2], self.num_tokens[0::2], self.num_tokens[1::2])

    def detach(self) -> Logps:
        """Return the same numbers without a gradient."""
        return replace(
            self,
            sums=self.sums.detach(),
            divergence=None if self.divergence is None else self.divergence.detach(),
        )

    def of_itself(self) -> Logps:
        """Return what a reference says as the policy that it is: it does not differ from itself."""
        return replace(self, divergence=torch.zeros_like(self.sums))

    @staticmethod
    def concatenated(parts: Sequence[Logps]) -> Logps:
        """Return the completions of several micro-batches as one."""
        return Logps(
            torch.cat([part.sums for part in parts]),
            torch.cat([part.num_tokens for part in parts]),
            _joined([part.confidence for part in parts]),
            _joined([part.divergence for part in parts]),
            _joined([part.entropy for part in parts]),
        )


@dataclass(frozen=True)
class TokenLogps:
    """Log-probabilities (nats, fp32) of every scored token: completion after completion, example after example."""

    values: Float[Tensor, " tokens"]
    num_tokens: tuple[int, ...]
    """Of each completion."""
    beside: Float[Tensor, " tokens"] | None = None
    """What a statistic says of each token's whole distribution, without a gradient; None where none was asked."""
    divergences: Float[Tensor, " tokens"] | None = None
    """KL(π_ref ‖ π) of each token's whole distribution, nats, with a gradient; None where nobody asked."""

    def __post_init__(self) -> None:
        if self.values.numel() != sum(self.num_tokens):
            raise ValueError(f"{self.values.numel()} scored tokens, but the completions have {sum(self.num_tokens)}")

    def rows(self) -> tuple[Float[Tensor, " completion"], ...]:
        """Return the values of each completion."""
        return self._by_completion(self.values)

    def rows_beside(self) -> tuple[Float[Tensor, " completion"], ...]:
        """Return what a statistic says of the tokens of each completion; none where none was asked."""
        return () if self.beside is None else self._by_completion(self.beside)

    def ordered(self, order: Sequence[Any]) -> TokenLogps:
        """Return the completions in the order of what stands for each in `order`, no two alike."""
        return self.picked(sorted(range(len(order)), key=order.__getitem__))

    def picked(self, places: Sequence[int]) -> TokenLogps:
        """Return some completions, in the order of these places."""

        def those(values: Tensor) -> Tensor:
            rows = self._by_completion(values)
            return torch.cat([rows[place] for place in places])

        return TokenLogps(
            those(self.values),
            tuple(self.num_tokens[place] for place in places),
            None if self.beside is None else those(self.beside),
            None if self.divergences is None else those(self.divergences),
        )

    @staticmethod
    def concatenated(parts: Sequence[TokenLogps]) -> TokenLogps:
        """Return the completions of several passes as one."""
        return TokenLogps(
            torch.cat([part.values for part in parts]),
            tuple(num for part in parts for num in part.num_tokens),
            _joined([part.beside for part in parts]),
            _joined([part.divergences for part in parts]),
        )

    def confident(self, logps: Logps) -> Logps:
        """Return sums of these completions with their confidence, where `beside` is log Σ_v π² of each token."""
        if self.beside is None:
            raise ValueError("of these tokens nobody asked how the whole distribution lies")
        apart = self._by_completion(self.values.detach() - self.beside)
        return replace(logps, confidence=torch.stack([row.mean() for row in apart]))

    def uncertain(self, logps: Logps) -> Logps:
        """Return sums of these completions with their entropy, where `beside` is the entropy at each token."""
        if self.beside is None:
            raise ValueError("of these tokens nobody asked how open it was which one follows")
        return replace(logps, entropy=torch.stack([row.mean() for row in self._by_completion(self.beside)]))

    def diverging(self, logps: Logps) -> Logps:
        """Return sums of these completions with how far their distributions are from the reference's."""
        if self.divergences is None:
            raise ValueError("of these tokens nobody asked how far the whole distribution is from the reference's")
        return replace(logps, divergence=torch.stack([row.sum() for row in self._by_completion(self.divergences)]))

    def desensitised(self, share: float) -> Logps:
        """Return a sum for each completion of pairs in which tokens beyond the length of the pair's shorter one count
        `share` (0..1), with all their numbers of tokens. Liu et al. 2024 (LD-DPO, 2409.06411).
        """
        rows, sums = self.rows(), []
        for chosen, rejected in zip(rows[0::2], rows[1::2], strict=True):
            shared = min(len(chosen), len(rejected))
            sums += [row[:shared].sum() + share * row[shared:].sum() for row in (chosen, rejected)]
        return Logps(torch.stack(sums), self._counts())

    def decayed(self, share: float) -> Logps:
        """Return a sum for each completion in which token t = 0, 1, … counts share^t (share 0..1), with all its tokens.

        Shao et al. 2025 (2502.14340).
        """
        weights = share ** torch.arange(max(self.num_tokens), device=self.values.device, dtype=self.values.dtype)
        sums = torch.stack([(row * weights[: len(row)]).sum() for row in self.rows()])
        return Logps(sums, self._counts())

    def within(self, reference: TokenLogps, low: float, high: float) -> TokenLogps:
        """Return the same tokens, none further from the reference's than `low` below or `high` above it (nats).

        Beyond the bounds a token has no gradient. Liu et al. 2025 (humanline, 2509.24207).
        """
        if reference.num_tokens != self.num_tokens:
            raise ValueError("policy and reference have to say something of the same tokens")
        return TokenLogps(reference.values + (self.values - reference.values).clamp(low, high), self.num_tokens)

    def summed(self) -> Logps:
        """Return one sum for each completion, with its number of tokens."""
        # Run by run: torch adds a run pairwise, where segment_reduce adds one by one and a cumulative sum cancels.
        sums = torch.stack([row.sum() for row in self.rows()])
        return Logps(sums, self._counts())

    def _counts(self) -> Tensor:
        return torch.tensor(self.num_tokens).to(self.values.device, non_blocking=True)  # no device is waited for

    def _by_completion(self, values: Tensor) -> tuple[Tensor, ...]:
        return torch.split(values, list(self.num_tokens))


def _joined(parts: Sequence[Tensor | None]) -> Tensor | None:
    """Return the parts as one; None where some have nothing to say."""
    told = [part for part in parts if part is not None]
    return torch.cat(told) if told and len(told) == len(parts) else None
