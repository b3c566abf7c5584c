"""Answers of a model in this process.

Owns what is asked of a model: which answers to which prompts, and the way they are generated. Prompts come as rendered
ids. Each gets the answer that it gets alone, at the table (`engine.answers.seating`) or by transformers' `generate`
(`engine.answers.padded`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tiebreak.engine.answers.answerer import Sampling
from tiebreak.engine.answers.drawing import Pick, Wanted, drawn, likeliest, noise_of
from tiebreak.engine.answers.padded import padded
from tiebreak.engine.answers.seating import at_the_table, may_come_to_the_table
from tiebreak.engine.attention import use_plain_attention

Ids = tuple[int, ...]
Told = Callable[[Sequence[tuple[int, Ids, bool]]], None]
Heard = Callable[[int, int], bool]
"""Is told each token as it is chosen, the EOS among them, behind the place of its answer in what is returned, and says
whether that answer may end here."""


def generate(
    network: Any,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    eos_ids: Sequence[int],
    pad_id: int,
    done: Told = lambda _: None,
    positions: int | None = None,
    heard: Heard | None = None,
) -> list[tuple[Ids, bool]]:
    """Return `sampling.num` answers for each prompt, prompt after prompt: ids without the EOS, and if there was one.

    `done` is told the answers of prompts that have all of theirs: place in what is returned, ids, finished. A model
    with so many `positions` is asked for no token beyond; every prompt is shorter than that. Greedy answers to one
    prompt are computed once. A drawn one hangs on seed, prompt and number alone (`engine.answers.drawing`).
    `heard` listens to answers while they come, to greedy ones of a prompt once; to listen changes no token, but it may
    end an answer early.
    """
    greedy = sampling.temperature <= 0
    pick: Pick = (lambda logits, _: likeliest(logits)) if greedy else partial(_drawn_at, sampling)
    times, num = (sampling.num, 1) if greedy else (1, sampling.num)
    most = sampling.max_new_tokens
    # Prompts of similar length stand together: their answers are as long for a similar time.
    waiting = [
        Wanted(
            index,
            number,
            most if positions is None else min(most, positions - len(prompts[index])),
            noise_of(sampling.seed, prompts[index], number),
            heard=heard and partial(heard, index * sampling.num + number),
        )
        for index in sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
        for number in range(num)
    ]
    found: dict[int, list[Wanted]] = {index: [] for index in range(len(prompts))}
    use_plain_attention(network)
    answers = at_the_table if waiting and may_come_to_the_table(network, positions) else padded
    with torch.inference_mode():
        for ended in answers(network, prompts, waiting, pick, eos_ids, pad_id, positions):
            for answer in ended:
                found[answer.prompt].append(answer)
            whole = [found[index] for index in dict.fromkeys(answer.prompt for answer in ended)]
            told = [
                (one.prompt * sampling.num + one.number + more, tuple(one.ids), one.finished)
                for group in whole
                if len(group) == num
                for one in group
                for more in range(times)
            ]
            if told:
                done(told)
    every = [sorted(found[index], key=lambda one: one.number) for index in range(len(prompts))]
    return [(tuple(one.ids), one.finished) for group in every for one in group for _ in range(times)]


def _drawn_at(sampling: Sampling, logits: Tensor, noise: Sequence[np.random.Generator]) -> Tensor:
    return drawn(logits, sampling.temperature, noise, sampling.top_p)
