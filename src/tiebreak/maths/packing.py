"""How pairs become one packed row: each prompt once, nothing padded, both completions behind it.

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

import torch
from jaxtyping import Int
from torch import Tensor

from tiebreak.records import TokenizedPair

Ids = tuple[int, ...]
FIRST_FIT_PAIRS = 1024


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
class PackedPairs:
    """A row of tokens, the segments in it, and for every scored token the position that predicts it."""

    pairs: tuple[TokenizedPair, ...]
    segments: tuple[Segment, ...]
    input_ids: Int[Tensor, " row"]
    position_ids: Int[Tensor, " row"]
    predictors: Int[Tensor, " scored"]
    """Where in the row the hidden state stands that predicts a scored token; completion by completion."""
    targets: Int[Tensor, " scored"]
    chosen_tokens: Int[Tensor, " chosen"]
    """Indices into the scored tokens: the chosen completion of every pair, pair after pair."""
    rejected_tokens: Int[Tensor, " rejected"]

    def __post_init__(self) -> None:
        if sum(segment.num_tokens for segment in self.segments) != self.input_ids.numel():
            raise ValueError("the segments do not cover the row")
        wanted = (sum(len(p.chosen_ids) for p in self.pairs), sum(len(p.rejected_ids) for p in self.pairs))
        if (self.chosen_tokens.numel(), self.rejected_tokens.numel()) != wanted:
            raise ValueError("the scored tokens are not those of the pairs")

    def filled(self, num: int) -> PackedPairs:
        """Return the row with `num` tokens behind it: a segment that nothing else sees and nothing is read from."""
        if num == 0:
            return self
        return replace(
            self,
            segments=(*self.segments, Segment(num, (0,))),
            input_ids=torch.cat([self.input_ids, self.input_ids.new_zeros(num)]),
            position_ids=torch.cat([self.position_ids, torch.arange(num)]),
        )


def pack(pairs: Sequence[TokenizedPair]) -> PackedPairs:
    """Return the packed layout of some pairs; pairs of the same prompt share it, equal completions are scored once."""
    ids: list[int] = []
    positions: list[int] = []
    predictors: list[int] = []
    targets: list[int] = []
    scored_at: dict[tuple[Ids, Ids], range] = {}
    segments: list[Segment] = []
    for prompt, completions in _by_prompt(pairs).items():
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
    chosen = chain.from_iterable(scored_at[pair.prompt_ids, pair.chosen_ids] for pair in pairs)
    rejected = chain.from_iterable(scored_at[pair.prompt_ids, pair.rejected_ids] for pair in pairs)
    columns = (ids, positions, predictors, targets, list(chosen), list(rejected))
    return PackedPairs(tuple(pairs), tuple(segments), *(torch.tensor(column) for column in columns))


def packed_micro_batches(pairs: Sequence[TokenizedPair], token_budget: int) -> list[list[TokenizedPair]]:
    """Group the pairs of a step, first-fit-decreasing, so that no group packs to more than `token_budget` tokens.

    Pairs of one prompt stay together where they fit. A pair that is larger than the budget stands alone. The union is
    exactly `pairs`: the budget bounds memory and never changes what a step learns from. Cost: quadratic in the pairs of
    a step; longer lists, as a whole data set to be scored, are grouped `FIRST_FIT_PAIRS` at a time.
    """
    parts = (pairs[start : start + FIRST_FIT_PAIRS] for start in range(0, len(pairs), FIRST_FIT_PAIRS))
    return [group for part in parts for group in _first_fit(part, token_budget)]


def _first_fit(pairs: Sequence[TokenizedPair], token_budget: int) -> list[list[TokenizedPair]]:
    blocks = [block for same in _same_prompt(pairs) for block in _blocks(same, token_budget)]
    groups: list[list[TokenizedPair]] = []
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


def num_packed(pairs: Sequence[TokenizedPair]) -> int:
    """Return the tokens that these pairs occupy when packed."""
    return sum(
        len(prompt) + sum(len(completion) - 1 for completion in completions)
        for prompt, completions in _by_prompt(pairs).items()
    )


def _by_prompt(pairs: Sequence[TokenizedPair]) -> dict[Ids, list[Ids]]:
    """Map each prompt to its different completions, both in order of appearance."""
    found: dict[Ids, dict[Ids, None]] = {}
    for pair in pairs:
        found.setdefault(pair.prompt_ids, {}).update({pair.chosen_ids: None, pair.rejected_ids: None})
    return {prompt: list(completions) for prompt, completions in found.items()}


def _same_prompt(pairs: Sequence[TokenizedPair]) -> list[list[TokenizedPair]]:
    found: dict[Ids, list[TokenizedPair]] = {}
    for pair in pairs:
        found.setdefault(pair.prompt_ids, []).append(pair)
    return list(found.values())


def _blocks(pairs: Sequence[TokenizedPair], token_budget: int) -> list[list[TokenizedPair]]:
    """Cut the pairs of one prompt where they exceed the budget; each block repeats the prompt."""
    blocks: list[list[TokenizedPair]] = [[]]
    for pair in pairs:
        if blocks[-1] and num_packed([*blocks[-1], pair]) > token_budget:
            blocks.append([])
        blocks[-1].append(pair)
    return blocks
