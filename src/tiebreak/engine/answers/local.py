"""Answers of a model in this process.

Owns how text is sampled: left padding, stopping, greedy or with a temperature. Prompts come as rendered ids. Where
positions stretch (`engine.stretching`), prompts whose answers could come that far are answered alone.
"""

from __future__ import annotations

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
    # What a prompt is answered must not hang on its neighbours, so a batch has the same room for all.
    for num_new, some in groupby(order, room.__getitem__):
        settings = generation_config(replace(sampling, max_new_tokens=num_new), eos_ids, pad_id)
        same = list(some)
        settled = [index for index in same if stretching.is_settled(len(prompts[index]) + num_new)]
        batches = [settled[start : start + MAX_BATCH] for start in range(0, len(settled), MAX_BATCH)]
        for chosen in [*batches, *([index] for index in same if index not in settled)]:
            faults.point("generate")
            if stretching.grows:
                forget_lengths(network)
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


def _batch(network: Any, prompts: Sequence[Sequence[int]], settings: GenerationConfig) -> list[tuple[Ids, bool]]:
    device = next(network.parameters()).device
    width = max(map(len, prompts))
    padding = [[0] * (width - len(prompt)) for prompt in prompts]
    ids = [[settings.pad_token_id] * len(pad) + list(prompt) for pad, prompt in zip(padding, prompts, strict=True)]
    mask = [pad + [1] * len(prompt) for pad, prompt in zip(padding, prompts, strict=True)]
    with torch.inference_mode():
        rows = network.generate(
            input_ids=torch.tensor(ids, device=device),
            attention_mask=torch.tensor(mask, device=device),
            generation_config=settings,
        )
    found = []
    for row in rows[:, width:].tolist():
        end = next((index for index, token in enumerate(row) if token in settings.eos_token_id), None)
        found.append((tuple(row[:end]), end is not None))
    return found
