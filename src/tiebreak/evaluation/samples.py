"""Answers of reference and policy to held-out prompts, side by side.

Owns which prompts are answered and what is counted on the answers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tiebreak.config import EvaluationConfig, RuleConfig
from tiebreak.engine.answers.answerer import Answer, Answerer, Chat, Sampling
from tiebreak.engine.answers.kept import Kept
from tiebreak.engine.model import Model
from tiebreak.engine.reference.kinds import Reference
from tiebreak.evaluation.repetition import is_looping, looping
from tiebreak.progress import Progress
from tiebreak.records import Asked, Judgement, Pair, Thumb

J = TypeVar("J", Pair, Thumb, Judgement, Asked)


@dataclass(frozen=True)
class AnswerFiles:
    """Where answers survive a crash, and where those of the reference are kept for other runs; None: nowhere."""

    own: Path | None = None
    shared: Path | None = None
    """A folder: what is said there of a reference is keyed by its weights."""

    @property
    def before(self) -> Path | None:
        """The file of what the reference answers."""
        return self.shared / "answers.jsonl" if self.shared else self.own

    @property
    def scored(self) -> Path | None:
        """The file of what the reference says of its own answers, where runs share it."""
        return self.shared / "scored.jsonl" if self.shared else None


NOWHERE = AnswerFiles()


def choose_prompts(pairs: Sequence[J], num: int) -> list[J]:
    """Return one pair, or what else has a prompt, for each of up to `num` prompts, in the order of their hashes."""
    by_prompt = {pair.prompt_id: pair for pair in reversed(pairs)}
    return [by_prompt[prompt_id] for prompt_id in sorted(by_prompt)[:num]]


def sample(
    policy: Model,
    reference: Reference,
    pairs: Sequence[Judgement],
    settings: EvaluationConfig,
    progress: Progress,
    said: AnswerFiles = NOWHERE,
) -> list[dict[str, Any]]:
    """Return a row for each chosen prompt with the greedy answers before (reference) and after (policy)."""
    chosen = choose_prompts(pairs, settings.num_samples)
    if not chosen:
        return []
    chats = [Chat(pair.prompt, pair.tools) for pair in chosen]
    before, after = of_both(policy, reference, chats, Sampling(settings.max_new_tokens), progress, "answers", said)
    return [
        {
            "prompt_id": pair.prompt_id,
            "prompt": [message.as_dict() for message in pair.prompt],
            **({"tools": list(pair.tools)} if pair.tools else {}),
            **_judged(pair),
            "before": _described(one, settings.rule),
            "after": _described(two, settings.rule),
        }
        for pair, one, two in zip(chosen, before, after, strict=True)
    ]


def _judged(pair: Judgement) -> dict[str, str]:
    """Return the completions of the data; of one that was judged on its own, the side that it is."""
    if isinstance(pair, Thumb):
        return {"chosen" if pair.liked else "rejected": pair.completion.content}
    return {"chosen": pair.chosen.content, "rejected": pair.rejected.content}


def of_both(
    policy: Model,
    reference: Reference,
    chats: Sequence[Chat],
    sampling: Sampling,
    progress: Progress,
    name: str,
    said: AnswerFiles,
) -> tuple[list[Answer], list[Answer]]:
    """Return what reference and policy answer, `sampling.num` answers a chat; `name` is that of the stage."""
    with progress.stage(name, 2 * len(chats) * sampling.num) as advance:

        def answers(model: Model, kept_in: Path | None) -> list[Answer]:
            answerer: Answerer = Kept(model, kept_in) if kept_in else model
            return answerer.answer(chats, sampling, lambda made: advance(len(made)))

        with reference.model() as frozen:
            before = answers(frozen, said.before)
        after = answers(policy, said.own)
    short = sum(not one.finished and len(one.ids) < sampling.max_new_tokens for one in (*before, *after))
    if short:
        progress.say(f"{name}: {short} end where the model's {policy.context.most} positions do")
    return before, after


def _described(answer: Answer, rule: RuleConfig | None) -> dict[str, Any]:
    matched = {} if rule is None else {"matches_rule": re.search(rule.pattern, answer.text) is not None}
    counted = {"num_tokens": len(answer.ids), "finished": answer.finished}
    repeated = {"repetition": looping(answer.text), "looping": is_looping(answer.text)}
    return {"text": answer.text, **counted, **repeated, **matched}
