"""How examples become one packed row: each prompt once, nothing padded, its completions behind it.

Owns segment order, positions and which hidden state predicts which token. A segment is one prompt with all the
completions that a micro-batch scores for it, each without its last token, which predicts nothing:

    tokens     p0 p1 p2 | c0 c1 | r0 r1 r2 |        prompt of 3, chosen of 3, rejected of 4 tokens
    positions   0  1  2 |  3  4 |  3  4  5 |        every completion continues the prompt
    predicts         c0 | c1 c2 | r1 r2 r3 |        p2 predicts r0 as well

A completion attends to its prompt and to itself. Knows nothing of models; attention is built from `Segment`s elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import TypeVar

import torch
from jaxtyping import Int
from torch import Tensor

from tiebreak.records import Example, Ids

FIRST_FIT_EXAMPLES = 1024
E = TypeVar("E", bound=Example)


@dataclass(frozen=True)
class Segment:
    """Lengths of one prompt and of the completions behind it, in tokens that stand in the row."""

    prompt: int
    completions: tuple[int, ...]

    @property
    def num_tokens(self) -> int:
        """Tokens of the segment in the row."""
        return self.prompt + sum(self.completions)


@dataclass(frozen=True)
class PackedRow:
    """A row of tokens, the segments in it, and for every scored token the position that predicts it."""

    segments: tuple[Segment, ...]
    input_ids: Int[Tensor, " row"]
    position_ids: Int[Tensor, " row"]
    predictors: Int[Tensor, " scored"]
    """Where in the row the hidden state stands that predicts a scored token; completion by completion."""
    targets: Int[Tensor, " scored"]
    completion_tokens: Int[Tensor, " tokens"]
    """Indices into the scored tokens: every completion of every example; one that several examples hold comes again."""
    num_tokens: tuple[int, ...]
    """Of every completion of every example."""

    def __post_init__(self) -> None:
        if sum(segment.num_tokens for segment in self.segments) != self.input_ids.numel():
            raise ValueError("the segments do not cover the row")
        if self.completion_tokens.numel() != sum(self.num_tokens):
            raise ValueError("the scored tokens are not those of the completions")

    def to(self, device: torch.device) -> PackedRow:
        """Return the row on a device, which is not waited for."""
        names = ("input_ids", "position_ids", "predictors", "targets", "completion_tokens")
        return replace(self, **{name: getattr(self, name).to(device, non_blocking=True) for name in names})

    def filled(self, num: int) -> PackedRow:
        """Return the row with `num` tokens behind it: a segment that nothing else sees and nothing is read from."""
        if num == 0:
            return self
        return replace(
            self,
            segments=(*self.segments, Segment(num, (0,))),
            input_ids=torch.cat([self.input_ids, self.input_ids.new_zeros(num)]),
            position_ids=torch.cat([self.position_ids, torch.arange(num)]),
        )


def pack(examples: Sequence[Example]) -> PackedRow:
    """Return the packed layout of some examples: those of one prompt share it, equal completions are scored once."""
    ids: list[int] = []
    positions: list[int] = []
    predictors: list[int] = []
    targets: list[int] = []
    scored_at: dict[tuple[Ids, Ids], range] = {}
    segments: list[Segment] = []
    for prompt, completions in _by_prompt(examples).items():
        last = len(ids) + len(prompt) - 1
        ids += prompt
        positions += range(len(prompt))
        for completion in completions:
            begin = len(ids)
            ids += completion[:-1]
            positions += range(len(prompt), len(prompt) + len(completion) - 1)
            scored_at[prompt, completion] = range(len(targets), len(targets) + len(completion))
            predictors += [last, *range(begin, len(ids))]
            targets += completion
        segments.append(Segment(len(prompt), tuple(len(completion) - 1 for completion in completions)))
    places = [scored_at[example.prompt_ids, completion] for example in examples for completion in example.completions]
    return PackedRow(
        segments=tuple(segments),
        input_ids=torch.tensor(ids),
        position_ids=torch.tensor(positions),
        predictors=torch.tensor(predictors),
        targets=torch.tensor(targets),
        completion_tokens=torch.tensor(list(chain.from_iterable(places))),
        num_tokens=tuple(map(len, places)),
    )


def packed_micro_batches(examples: Sequence[E], token_budget: int) -> list[list[E]]:
    """Group the examples of a step, first-fit-decreasing, so that no group packs to more than `token_budget` tokens.

    Those of one prompt stay together where they fit. One that is larger than the budget stands alone. The union is
    exactly `examples`: the budget bounds memory and never changes what a step learns from. Cost: quadratic in the
    examples of a step; longer lists, as a whole data set to be scored, are grouped `FIRST_FIT_EXAMPLES` at a time.
    """
    parts = (examples[start : start + FIRST_FIT_EXAMPLES] for start in range(0, len(examples), FIRST_FIT_EXAMPLES))
    return [group for part in parts for group in _first_fit(part, token_budget)]


def num_packed(examples: Sequence[Example]) -> int:
    """Return the tokens that these examples occupy when packed."""
    return sum(
        len(prompt) + sum(len(completion) - 1 for completion in completions)
        for prompt, completions in _by_prompt(examples).items()
    )


def _first_fit(examples: Sequence[E], token_budget: int) -> list[list[E]]:
    same_prompt: dict[Ids, list[E]] = {}
    for example in examples:
        same_prompt.setdefault(example.prompt_ids, []).append(example)
    blocks = [block for same in same_prompt.values() for block in _blocks(same, token_budget)]
    groups: list[list[E]] = []
    room: list[int] = []
    for size, block in sorted(((num_packed(block), block) for block in blocks), key=lambda item: -item[0]):
        fits = next((index for index, left in enumerate(room) if size <= left), None)
        if fits is None:
            groups.append([])
            room.append(token_budget)
            fits = len(groups) - 1
        groups[fits] += block
        room[fits] -= size
    return groups


def _blocks(examples: Sequence[E], token_budget: int) -> list[list[E]]:
    """Cut the examples of one prompt where they exceed the budget; each block repeats the prompt."""
    blocks: list[list[E]] = [[]]
    for example in examples:
        if blocks[-1] and num_packed([*blocks[-1], example]) > token_budget:
            blocks.append([])
        blocks[-1].append(example)
    return blocks


def _by_prompt(examples: Sequence[Example]) -> dict[Ids, list[Ids]]:
    """Map each prompt to its different completions, both in order of appearance."""
    found: dict[Ids, dict[Ids, None]] = {}
    for example in examples:
        found.setdefault(example.prompt_ids, {}).update(dict.fromkeys(example.completions))
    return {prompt: list(completions) for prompt, completions in found.items()}
