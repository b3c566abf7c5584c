"""Answers by transformers' `generate`, padded on the left: for models that cannot come to the table.

Owns who shares a batch there. Models that carry a state along, positions that stretch (`engine.stretching`), biases by
distance. Prompts whose answers could come so far that positions stretch are answered one by one, and so are all by a
model whose answers hang on their company.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import peft
import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)

from tiebreak import faults
from tiebreak.engine.answers.drawing import Pick, Wanted, differ_by_rounding
from tiebreak.engine.attention import causal_model
from tiebreak.engine.stretching import forget_lengths, stretching_of

MAX_BATCH = 32
"""Answers in one call of transformers' `generate`."""


def padded(
    network: Any,
    prompts: Sequence[Sequence[int]],
    waiting: Sequence[Wanted],
    pick: Pick,
    eos_ids: Sequence[int],
    pad_id: int,
    positions: int | None,
) -> Iterator[list[Wanted]]:
    """Yield the answers of each batch; each prompt goes through the model once for every one of its answers."""
    stretching = stretching_of(network)
    batches: list[list[Wanted]] = []
    # What a prompt is answered must not hang on its neighbours: a batch has the same room for all.
    for num_new, some in groupby(waiting, lambda one: one.room):
        same = list(some)
        settled = [one for one in same if stretching.is_settled(len(prompts[one.prompt]) + num_new)]
        alone = len(settled) > 1 and _is_moved_by_company(
            network, prompts[settled[0].prompt], _settings(num_new, eos_ids, pad_id), positions
        )
        size = 1 if alone else MAX_BATCH
        batches += [settled[start : start + size] for start in range(0, len(settled), size)]
        batches += [[one] for one in same if not stretching.is_settled(len(prompts[one.prompt]) + num_new)]
    for batch in batches:
        faults.point("generate")
        if stretching.grows:
            forget_lengths(network)
        settings = _settings(batch[0].room, eos_ids, pad_id)
        taken = _padded(network, [prompts[one.prompt] for one in batch], pad_id)
        chosen = LogitsProcessorList([_Chosen(pick, [one.noise for one in batch])])
        with _nothing_suggested(network):
            network.generate(
                **taken,
                generation_config=settings,
                logits_processor=chosen,
                stopping_criteria=StoppingCriteriaList([_Taken(batch, eos_ids)]),
            )
        yield batch


class _Chosen(LogitsProcessor):  # type: ignore[misc]
    """Leaves of all tokens the one that is picked."""

    def __init__(self, pick: Pick, noise: Sequence[np.random.Generator]) -> None:
        self._pick = pick
        self._noise = noise

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        token = self._pick(scores, self._noise).unsqueeze(1)
        return torch.full_like(scores, -torch.inf).scatter_(1, token, 0.0)


class _Taken(StoppingCriteria):  # type: ignore[misc]
    """Hands each token to its answer, and ends the rows of answers that have come to their end."""

    def __init__(self, batch: Sequence[Wanted], eos_ids: Sequence[int]) -> None:
        self._batch = batch
        self._eos_ids = eos_ids
        self._ended = [False] * len(batch)

    def __call__(self, input_ids: Tensor, scores: Tensor, **_: Any) -> Tensor:
        for place, token in enumerate(input_ids[:, -1].tolist()):
            if not self._ended[place]:
                self._ended[place] = self._batch[place].take(token, self._eos_ids)
        return torch.tensor(self._ended, device=input_ids.device)


def _settings(num_new: int, eos_ids: Sequence[int], pad_id: int) -> GenerationConfig:
    """Return the settings for transformers: greedy, because tokens are chosen before."""
    return GenerationConfig(max_new_tokens=num_new, eos_token_id=list(eos_ids), pad_token_id=pad_id, do_sample=False)


@contextlib.contextmanager
def _nothing_suggested(network: Any) -> Iterator[None]:
    """Take what a model's folder suggests away for a while: transformers fills in from there what it is not told."""
    owners = [causal_model(network), *([network] if isinstance(network, peft.PeftModel) else [])]
    before = [owner.generation_config for owner in owners]
    for owner in owners:
        owner.generation_config = GenerationConfig()
    try:
        yield
    finally:
        for owner, config in zip(owners, before, strict=True):
            owner.generation_config = config


def _is_moved_by_company(
    network: Any, prompt: Sequence[int], settings: GenerationConfig, positions: int | None
) -> bool:
    """Whether a longer prompt in the batch, and so padding, changes what is said after one: tried for a few tokens.

    Some recurrent models heed no mask, or lose their state in a batch (RWKV, MiniMax). Where `positions` leave no room
    to try it, it counts as so.
    """
    num_new = min(4, settings.max_new_tokens)
    more = 8 if positions is None else min(8, positions - num_new - len(prompt))
    if more < 1:
        return True
    tried = GenerationConfig(
        max_new_tokens=num_new,
        pad_token_id=settings.pad_token_id,
        do_sample=False,
        output_logits=True,
        return_dict_in_generate=True,
    )
    longer = (list(prompt) * 9)[: len(prompt) + more]
    with _nothing_suggested(network):
        alone, beside = (
            network.generate(**_padded(network, rows, settings.pad_token_id), generation_config=tried).logits
            for rows in ([prompt], [prompt, longer])
        )
    for one, two in zip(alone, beside, strict=False):  # one that has ended is as long as it is
        if not differ_by_rounding(network, two[0], one[0]):
            return True
        if one[0].argmax() != two[0].argmax():  # a tie: what follows is another text
            break
    return False


def _padded(network: Any, prompts: Sequence[Sequence[int]], pad_id: int) -> dict[str, Tensor]:
    """Return prompts as what a network takes, padded on the left."""
    device, width = next(network.parameters()).device, max(map(len, prompts))
    padding = [[0] * (width - len(prompt)) for prompt in prompts]
    ids = [[pad_id] * len(pad) + list(prompt) for pad, prompt in zip(padding, prompts, strict=True)]
    mask = [pad + [1] * len(prompt) for pad, prompt in zip(padding, prompts, strict=True)]
    return {"input_ids": torch.tensor(ids, device=device), "attention_mask": torch.tensor(mask, device=device)}
