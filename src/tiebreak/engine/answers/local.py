"""Answers of a model in this process.

Owns how text is sampled: left padding, stopping, greedy or with a temperature. Prompts come as rendered ids. Each gets
the answer that it gets alone: where positions stretch (`engine.stretching`), prompts whose answers could come that far
are answered one by one, and so are all by a model whose answers hang on their company.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

import torch
from transformers import GenerationConfig

from tiebreak import faults
from tiebreak.engine.answers.answerer import Sampling
from tiebreak.engine.stretching import forget_lengths, stretching_of

MAX_BATCH = 32
ROUNDING = {torch.float32: 1e-3, torch.bfloat16: 5e-2}
"""Mean difference of logits, relative to their size, that a batch may make."""
# transformers fills what is left out from the model's generation_config.json; these would change the answers.
PLAIN: dict[str, Any] = {
    "num_beams": 1,
    "top_p": 1.0,
    "typical_p": 1.0,
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "min_length": 0,
}

Ids = tuple[int, ...]


def generate(
    network: Any,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    eos_ids: Sequence[int],
    pad_id: int,
    done: Callable[[Sequence[tuple[int, Ids, bool]]], None] = lambda _: None,
    positions: int | None = None,
) -> list[tuple[Ids, bool]]:
    """Return for each prompt the ids without the EOS, and whether there was one.

    Prompts of similar length are batched together; `done` is told each batch: place of the prompt, ids, finished. A
    model with so many `positions` is asked for no token beyond; every prompt is shorter than that.
    """
    found: dict[int, tuple[Ids, bool]] = {}
    most = sampling.max_new_tokens
    room = [most if positions is None else min(most, positions - len(prompt)) for prompt in prompts]
    stretching = stretching_of(network)
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    # What a prompt is answered must not hang on its neighbours: a batch has the same room for all.
    batches: list[tuple[int, list[int]]] = []
    for num_new, some in groupby(order, room.__getitem__):
        same = list(some)
        settled = [index for index in same if stretching.is_settled(len(prompts[index]) + num_new)]
        probe = generation_config(replace(sampling, max_new_tokens=num_new), eos_ids, pad_id)
        alone = len(settled) > 1 and _is_moved_by_company(network, prompts[settled[0]], probe, positions)
        size = 1 if alone else MAX_BATCH
        batches += [(num_new, settled[start : start + size]) for start in range(0, len(settled), size)]
        batches += [(num_new, [index]) for index in same if index not in settled]
    for num_new, chosen in batches:
        faults.point("generate")
        if stretching.grows:
            forget_lengths(network)
        settings = generation_config(replace(sampling, max_new_tokens=num_new), eos_ids, pad_id)
        made = _batch(network, [prompts[index] for index in chosen], settings)
        found |= dict(zip(chosen, made, strict=True))
        done([(index, *answer) for index, answer in zip(chosen, made, strict=True)])
    return [found[index] for index in range(len(prompts))]


def generation_config(sampling: Sampling, eos_ids: Sequence[int], pad_id: int) -> GenerationConfig:
    """Return the settings for transformers, independent of what the model's own folder suggests."""
    drawn: dict[str, Any] = {"do_sample": False, "temperature": 1.0, "top_k": 50}
    if sampling.temperature > 0:
        drawn = {"do_sample": True, "temperature": sampling.temperature, "top_k": 0}
    return GenerationConfig(
        max_new_tokens=sampling.max_new_tokens, eos_token_id=list(eos_ids), pad_token_id=pad_id, **drawn, **PLAIN
    )


def _is_moved_by_company(
    network: Any, prompt: Sequence[int], settings: GenerationConfig, positions: int | None
) -> bool:
    """Whether a longer prompt in the batch, and so padding, changes what is said after one: tried for a few tokens.

    Some recurrent models heed no mask, or lose their state in a batch (RWKV, MiniMax). Where `positions` leave no room
    to try it, it counts as so.
    """
    tried, num_new = copy.deepcopy(settings), min(4, settings.max_new_tokens)
    more = 8 if positions is None else min(8, positions - num_new - len(prompt))
    if more < 1:
        return True
    tried.update(max_new_tokens=num_new, do_sample=False, eos_token_id=None)
    tried.update(output_logits=True, return_dict_in_generate=True)
    longer = (list(prompt) * 9)[: len(prompt) + more]
    with torch.inference_mode():
        alone, beside = (
            network.generate(**_padded(network, rows, settings.pad_token_id), generation_config=tried).logits
            for rows in ([prompt], [prompt, longer])
        )
    most = ROUNDING.get(next(network.parameters()).dtype, max(ROUNDING.values()))
    for one, two in zip(alone, beside, strict=False):  # one that has ended is as long as it is
        if not float((one[0] - two[0]).abs().mean() / one[0].abs().mean()) <= most:
            return True
        if one[0].argmax() != two[0].argmax():  # a tie: what follows is another text
            break
    return False


def _padded(network: Any, prompts: Sequence[Sequence[int]], pad_id: int) -> dict[str, torch.Tensor]:
    """Return prompts as what a network takes, padded on the left."""
    device, width = next(network.parameters()).device, max(map(len, prompts))
    padding = [[0] * (width - len(prompt)) for prompt in prompts]
    ids = [[pad_id] * len(pad) + list(prompt) for pad, prompt in zip(padding, prompts, strict=True)]
    mask = [pad + [1] * len(prompt) for pad, prompt in zip(padding, prompts, strict=True)]
    return {"input_ids": torch.tensor(ids, device=device), "attention_mask": torch.tensor(mask, device=device)}


def _batch(network: Any, prompts: Sequence[Sequence[int]], settings: GenerationConfig) -> list[tuple[Ids, bool]]:
    taken = _padded(network, prompts, settings.pad_token_id)
    with torch.inference_mode():
        rows = network.generate(**taken, generation_config=settings)
    found = []
    for row in rows[:, taken["input_ids"].shape[1] :].tolist():
        end = next((index for index, token in enumerate(row) if token in settings.eos_token_id), None)
        found.append((tuple(row[:end]), end is not None))
    return found
