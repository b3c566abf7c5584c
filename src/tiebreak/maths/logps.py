"""What a model says about pairs: log-probabilities by token and by completion.

Owns how tokens become a completion's sum. Sums and counts travel together, so a loss can divide once, last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tiebreak.records import TokenizedPair


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

    def detach(self) -> PairLogps:
        """Return the same numbers without a gradient."""
        return PairLogps(self.chosen.detach(), self.rejected.detach(), self.chosen_num_tokens, self.rejected_num_tokens)


@dataclass(frozen=True)
class TokenLogps:
    """Log-probabilities (nats, fp32) of every scored token: those of all chosen completions, and of all rejected."""

    pairs: tuple[TokenizedPair, ...]
    chosen: Float[Tensor, " chosen"]
    rejected: Float[Tensor, " rejected"]

    def summed(self) -> PairLogps:
        """Return one sum for each completion, with its number of tokens."""
        sides = (("chosen", self.chosen), ("rejected", self.rejected))
        counts = [self._num_tokens(side) for side, _ in sides]
        sums = [_sums(values, count) for (_, values), count in zip(sides, counts, strict=True)]
        return PairLogps(*sums, *(torch.tensor(count, device=self.chosen.device) for count in counts))

    def by_pair(self) -> list[tuple[Tensor, Tensor]]:
        """Return (chosen, rejected) token log-probabilities of each pair."""
        sides = (
            torch.split(self.chosen, self._num_tokens("chosen")),
            torch.split(self.rejected, self._num_tokens("rejected")),
        )
        return list(zip(*sides, strict=True))

    def _num_tokens(self, side: str) -> list[int]:
        return [len(getattr(pair, f"{side}_ids")) for pair in self.pairs]


def _sums(values: Float[Tensor, " tokens"], num_tokens: Sequence[int]) -> Float[Tensor, " pairs"]:
    # Run by run: torch adds a run pairwise, where segment_reduce adds one by one and a cumulative sum cancels.
    return torch.stack([run.sum() for run in torch.split(values, list(num_tokens))])
