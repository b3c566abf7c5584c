"""How examples become rectangles of token ids: which ones share a micro-batch, where each token stands.

Owns row order, padding and which position predicts which token. This is the plain layout: one right-padded row for each
completion, the prompt repeated. It is the oracle for any denser one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from jaxtyping import Int
from torch import Tensor

from tiebreak.records import Example, longest_row

E = TypeVar("E", bound=Example)


@dataclass(frozen=True)
class PaddedRows:
    """A row for each completion of each example, in their order."""

    input_ids: Int[Tensor, "rows time"]
    attention_mask: Int[Tensor, "rows time"]
    first_scored: int
    """The first position that predicts a scored token, over all rows."""
    predictors: Int[Tensor, " scored"]
    """Where among positions first_scored .. time − 2 of all rows those stand that predict scored tokens, in order."""
    num_tokens: tuple[int, ...]
    """Scored tokens of each row."""

    def to(self, device: torch.device) -> PaddedRows:
        """Return the rows on a device, which is not waited for."""
        names = ("input_ids", "attention_mask", "predictors")
        return replace(self, **{name: getattr(self, name).to(device, non_blocking=True) for name in names})


def lay_out(examples: Sequence[Example], pad_id: int) -> PaddedRows:
    """Return the plain layout of some examples; padding never changes a result."""
    rows = [(example.prompt_ids, completion) for example in examples for completion in example.completions]
    time = max(len(prompt) + len(completion) for prompt, completion in rows)
    input_ids = torch.full((len(rows), time), pad_id)
    lengths = torch.tensor([[len(prompt) + len(completion)] for prompt, completion in rows])
    for row, (prompt, completion) in enumerate(rows):
        input_ids[row, : len(prompt) + len(completion)] = torch.tensor(prompt + completion)
    inside = torch.arange(time) < lengths
    first = min(len(prompt) for prompt, _ in rows) - 1
    # Counted here: where a mask on a GPU is true, nobody knows before it has been waited for.
    begins = [row * (time - 1 - first) + len(prompt) - 1 - first for row, (prompt, _) in enumerate(rows)]
    num_tokens = tuple(len(completion) for _, completion in rows)
    places = [begin + token for begin, num in zip(begins, num_tokens, strict=True) for token in range(num)]
    return PaddedRows(input_ids, inside.long(), first, torch.tensor(places), num_tokens)


def num_padded(examples: Sequence[Example]) -> int:
    """Return the size of the rectangle of some examples."""
    return sum(len(example.completions) for example in examples) * max(map(longest_row, examples))


def micro_batches(examples: Sequence[E], token_budget: int) -> list[list[E]]:
    """Group the examples of a step so that no group pads to more than `token_budget` tokens.

    Examples of similar length go together, longest first. One that is larger than the budget stands alone. The union is
    exactly `examples`: the budget bounds memory and never changes what a step learns from.
    """
    groups: list[list[E]] = []
    for example in sorted(examples, key=longest_row, reverse=True):
        if groups and num_padded([*groups[-1], example]) <= token_budget:
            groups[-1].append(example)
        else:
            groups.append([example])
    return groups
