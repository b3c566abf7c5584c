"""What a model makes of completions, one forward pass for all of a prompt: states, and log-probabilities beside them.

Owns how they come out of the model: which state stands for a completion, and that numbers are those of whatever batch.
Does not know what they are good for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from tiebreak.engine.model import Model
from tiebreak.engine.noise import evaluation_mode
from tiebreak.engine.scorer import Cut
from tiebreak.errors import ModelError
from tiebreak.records import Ids

TOKEN_BUDGET = 4096


@dataclass(frozen=True)
class Completions:
    """Any number of completions of one prompt: an example that is read, and not learned from."""

    prompt_ids: Ids
    completions: tuple[Ids, ...]
    example_id: str = ""
    prompt_id: str = ""
    weight: float = 1.0


@dataclass(frozen=True)
class Reading:
    """What a model made of one completion."""

    state: NDArray[np.float32]
    """[hidden]: what the head is given where it predicts the completion's tokens, the mean over them."""
    logps: NDArray[np.float32]
    """[tokens]: the log-probability of each token, the EOS included (nats)."""


def readings(
    model: Model, examples: Sequence[Completions], cut: Cut | None = None
) -> Iterator[tuple[int, list[Reading]]]:
    """Yield for each example its place and what the model makes of its completions, batch by batch, without a gradient.

    `cut` groups examples so that each group fits in memory. Raises ModelError where a number is not finite or the model
    tells no hidden states.
    """
    places = {id(example): place for place, example in enumerate(examples)}
    groups = model.scorer.micro_batches(examples, TOKEN_BUDGET) if cut is None else cut(examples)
    for group in groups:
        with evaluation_mode(model.network):
            logps, means = model.read(group)
        values, states = logps.values.float().cpu(), means.cpu()
        if not (values.isfinite().all() and states.isfinite().all()):
            raise ModelError(f"{model.source.identity}: its numbers are not finite; the weights are broken")
        made = iter(
            Reading(state, tokens.numpy())
            for state, tokens in zip(states.numpy(), torch.split(values, list(logps.num_tokens)), strict=True)
        )
        for example in group:
            yield places[id(example)], [next(made) for _ in example.completions]
