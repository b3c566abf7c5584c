"""Answers of a model to prompts.

Owns how text is sampled: left padding, stopping, greedy or with a temperature. Prompts come as rendered ids.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn
from transformers import GenerationConfig

from tiebreak import faults
from tiebreak.engine.attention import use_plain_attention
from tiebreak.engine.reference.kinds import evaluation_mode

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


@dataclass(frozen=True)
class Answer:
    """Generated ids without the EOS; `finished` says whether there was one."""

    ids: tuple[int, ...]
    finished: bool


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn; temperature 0 is greedy."""

    max_new_tokens: int
    eos_ids: tuple[int, ...]
    pad_id: int
    temperature: float = 0.0

    def generation_config(self) -> GenerationConfig:
        """Return the settings for transformers, independent of what the model's own folder suggests."""
        drawn: dict[str, Any] = {"do_sample": False, "temperature": 1.0, "top_k": 50}
        if self.temperature > 0:
            drawn = {"do_sample": True, "temperature": self.temperature, "top_k": 0}
        return GenerationConfig(
            max_new_tokens=self.max_new_tokens,
            eos_token_id=list(self.eos_ids),
            pad_token_id=self.pad_id,
            **drawn,
            **PLAIN,
        )


class Kept(Protocol):
    """Answers that are known from before."""

    def get(self, prompt: Sequence[int]) -> Answer | None:
        """Return the answer to a prompt, where it is known."""

    def put(self, answers: Sequence[tuple[Sequence[int], Answer]]) -> None:
        """Take the answers of one batch."""


def generate(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    progress: Callable[[int], None] = lambda _: None,
    kept: Kept | None = None,
) -> list[Answer]:
    """Return one answer for each prompt, in order; prompts of similar length are batched together.

    What `kept` knows is not asked again. It knows whole batches, so the others are batched as they would have been.
    """
    answers = [kept.get(prompt) if kept else None for prompt in prompts]
    if num_known := sum(answer is not None for answer in answers):
        progress(num_known)
    order = sorted((i for i, known in enumerate(answers) if known is None), key=lambda index: len(prompts[index]))
    for start in range(0, len(order), MAX_BATCH):
        faults.point("generate")
        chosen = order[start : start + MAX_BATCH]
        made = _batch(model, [prompts[i] for i in chosen], sampling)
        for index, answer in zip(chosen, made, strict=True):
            answers[index] = answer
        if kept:
            kept.put([(prompts[index], answer) for index, answer in zip(chosen, made, strict=True)])
        progress(len(chosen))
    return [answer for answer in answers if answer is not None]


def _batch(model: Any, prompts: Sequence[Sequence[int]], sampling: Sampling) -> list[Answer]:
    device = next(model.parameters()).device
    width = max(map(len, prompts))
    padding = [[0] * (width - len(prompt)) for prompt in prompts]
    ids = [[sampling.pad_id] * len(pad) + list(prompt) for pad, prompt in zip(padding, prompts, strict=True)]
    mask = [pad + [1] * len(prompt) for pad, prompt in zip(padding, prompts, strict=True)]
    use_plain_attention(model)
    with evaluation_mode(model), torch.inference_mode():
        rows = model.generate(
            input_ids=torch.tensor(ids, device=device),
            attention_mask=torch.tensor(mask, device=device),
            generation_config=sampling.generation_config(),
        )
    return [_answer(row, sampling.eos_ids) for row in rows[:, width:].tolist()]


def _answer(ids: list[int], eos_ids: Sequence[int]) -> Answer:
    end = next((index for index, token in enumerate(ids) if token in eos_ids), None)
    return Answer(tuple(ids[:end]), end is not None)
