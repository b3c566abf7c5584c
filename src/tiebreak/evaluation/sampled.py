"""What the policy says of its own accord while it trains, and what is counted on it.

Owns the keys under `sampled/` and the rows of a look's file. When there is a look is known to `looking`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from tiebreak import faults
from tiebreak.config import SAMPLED
from tiebreak.engine.answers.answerer import Answer, Chat, Sampling
from tiebreak.engine.features import Completions
from tiebreak.engine.model import Model
from tiebreak.engine.noise import evaluation_mode
from tiebreak.engine.scorer import Cut
from tiebreak.evaluation.diversity import distinct_n, words
from tiebreak.evaluation.draws import scored_ids
from tiebreak.evaluation.repetition import is_looping, looping
from tiebreak.maths.distributions import entropy
from tiebreak.maths.kl import Floats, kl_of
from tiebreak.records import Judgement

BEFORE = "before/"
"""Stands in a key between `sampled/` and what was counted on the reference's own answers."""
FIRST_WORDS = 16
"""Of each answer, for its variety: how many words an answer has must not move it."""


@dataclass(frozen=True)
class Said:
    """Answers of a model, one to each prompt, with what it says of each of their tokens and of what else it could say.

    Nats; of an answer without a token that is scored, none.
    """

    prompts: Sequence[tuple[int, ...]]
    answers: Sequence[Answer]
    scored: Sequence[tuple[int, ...]]
    logps: Sequence[Floats]
    entropies: Sequence[Floats]

    def rows(self, judged: Sequence[Judgement], reference: Sequence[Floats] | None) -> list[dict[str, Any]]:
        """Return what is kept of a look, a row for each answer; log-probabilities that are no number are null."""
        return [
            {
                "prompt_id": one.prompt_id,
                "prompt": [message.as_dict() for message in one.prompt],
                "text": answer.text,
                "num_tokens": len(answer.ids),
                "finished": answer.finished,
                "looping": is_looping(answer.text),
                "logps": _sum(own),
                "reference_logps": None if reference is None else _sum(reference[place]),
            }
            for place, (one, answer, own) in enumerate(zip(judged, self.answers, self.logps, strict=True))
        ]

    def counted(self, reference: Sequence[Floats] | None = None, of: str = SAMPLED) -> dict[str, float]:
        """Return what is recorded of them, keys behind `of`; KL where it is known what the reference says of the same.

        What is no number, as of broken weights, is left out.
        """
        texts, num = [answer.text for answer in self.answers], len(self.answers)
        found = {
            "num_tokens": sum(len(answer.ids) for answer in self.answers) / num,
            "repetition": sum(map(looping, texts)) / num,
            "looping": sum(map(is_looping, texts)) / num,
            "eos_rate": sum(answer.finished for answer in self.answers) / num,
        }
        found |= variety(texts)
        if any(map(len, self.logps)):
            found["entropy"] = float(np.mean(np.concatenate(self.entropies)))
            if reference is not None:
                kl = kl_of([own - base for own, base in zip(self.logps, reference, strict=True)])
                found |= {"kl": kl.sequence, "kl_k3": kl.sequence_k3}
                found |= {"kl_token": kl.token, "kl_k3_token": kl.token_k3}
        return {of + key: value for key, value in found.items() if math.isfinite(value)}


def variety(texts: Sequence[str]) -> dict[str, float]:
    """Return the share of different pairs of words of answers (`distinct_2`); nothing where most are too short."""
    if sum(len(words(text)) >= FIRST_WORDS for text in texts) * 2 < len(texts):
        return {}
    return {"distinct_2": distinct_n(texts, 2, FIRST_WORDS)}


def said_by(model: Model, judged: Sequence[Judgement], sampling: Sampling, cut: Cut) -> Said:
    """Let a model answer prompts, one answer each, and tell what it says of them."""
    faults.point("look")
    chats = [Chat(one.prompt, one.tools) for one in judged]
    answers = model.answer(chats, sampling)
    prompts = [model.prompt_ids(chat, sampling) for chat in chats]
    scored = [scored_ids(model.eos_ids, answer) for answer in answers]
    logps, entropies = scored_tokens(model, prompts, scored, cut)
    return Said(prompts, answers, scored, logps, entropies)


def heard_by(model: Model, said: Said, cut: Cut) -> list[Floats]:
    """Return what another model says of each token of answers."""
    return scored_tokens(model, said.prompts, said.scored, cut)[0]


def passed_over(model: Model, judged: Judgement, sampling: Sampling, cut: Cut) -> None:
    """Take one pass over a prompt and the first token of what could follow."""
    scored_tokens(model, [model.prompt_ids(Chat(judged.prompt, judged.tools), sampling)], [(model.pad_id,)], cut)


def scored_tokens(
    model: Model, prompts: Sequence[tuple[int, ...]], scored: Sequence[tuple[int, ...]], cut: Cut
) -> tuple[list[Floats], list[Floats]]:
    """Return [answer][token] log-probabilities and entropies, nats."""
    examples = {
        place: Completions(prompt, (ids,), example_id=str(place))
        for place, (prompt, ids) in enumerate(zip(prompts, scored, strict=True))
        if ids
    }
    nothing = np.empty(0)
    logps, entropies = [nothing] * len(scored), [nothing] * len(scored)
    for group in cut([*examples.values()]):
        with evaluation_mode(model.network), torch.no_grad():
            told = model.score(group, entropy)
        assert told.beside is not None, "it was asked"  # noqa: S101
        beside = torch.split(told.beside.double().cpu(), list(told.num_tokens))
        for example, row, spread in zip(group, told.rows(), beside, strict=True):
            logps[int(example.example_id)] = row.double().cpu().numpy()
            entropies[int(example.example_id)] = spread.numpy()
    return logps, entropies


def _sum(logps: Floats) -> float | None:
    found = float(logps.sum())
    return found if len(logps) and math.isfinite(found) else None
