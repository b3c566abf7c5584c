"""How pairs become rectangles of token ids: which pairs share a micro-batch, where each token stands.

Owns segment order, padding and the mask of scored positions. This is the plain layout: one right-padded row for each
completion, the prompt repeated. It is the oracle for any denser one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from tiebreak.records import TokenizedPair


@dataclass(frozen=True)
class PairBatch:
    """Pairs as rows: first the chosen side of every pair, then the rejected side, in the same order."""

    pairs: tuple[TokenizedPair, ...]
    input_ids: Int[Tensor, "rows time"]
    attention_mask: Int[Tensor, "rows time"]
    completion_mask: Bool[Tensor, "rows time"]
    """True where the token itself is scored; it is predicted one position earlier."""

    def to(self, device: torch.device) -> PairBatch:
        """Return the batch on a device."""
        tensors = (self.input_ids, self.attention_mask, self.completion_mask)
        return PairBatch(self.pairs, *(tensor.to(device, non_blocking=True) for tensor in tensors))

    @property
    def first_scored(self) -> int:
        """The first position that predicts a scored token, over all rows."""
        return min(len(pair.prompt_ids) for pair in self.pairs) - 1


def lay_out(pairs: Sequence[TokenizedPair], pad_id: int) -> PairBatch:
    """Return the plain layout of some pairs; padding never changes a result."""
    rows = [(pair.prompt_ids, pair.chosen_ids) for pair in pairs]
    rows += [(pair.prompt_ids, pair.rejected_ids) for pair in pairs]
    time = max(len(prompt) + len(completion) for prompt, completion in rows)
    input_ids = torch.full((len(rows), time), pad_id)
    lengths = torch.tensor([[len(prompt), len(prompt) + len(completion)] for prompt, completion in rows])
    for row, (prompt, completion) in enumerate(rows):
        input_ids[row, : len(prompt) + len(completion)] = torch.tensor(prompt + completion)
    position = torch.arange(time)
    inside = position < lengths[:, 1:]
    return PairBatch(tuple(pairs), input_ids, inside.long(), inside & (position >= lengths[:, :1]))


def micro_batches(pairs: Sequence[TokenizedPair], token_budget: int) -> list[list[TokenizedPair]]:
    """Group the pairs of a step so that no group pads to more than `token_budget` tokens.

    Pairs of similar length go together, longest first. A pair that is larger than the budget stands alone. The union
    is exactly `pairs`: the budget bounds memory and never changes what a step learns from.
    """
    groups: list[list[TokenizedPair]] = []
    for pair in sorted(pairs, key=lambda pair: pair.longest_row, reverse=True):
        # The first pair of a group is its longest, so it sets the width of the rectangle.
        if groups and 2 * (len(groups[-1]) + 1) * groups[-1][0].longest_row <= token_budget:
            groups[-1].append(pair)
        else:
            groups.append([pair])
    return groups
