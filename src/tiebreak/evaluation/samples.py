"""Answers of reference and policy to held-out prompts, side by side.

Owns which prompts are answered and what is counted on the answers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from tiebreak.config import Config, RuleConfig
from tiebreak.data.render import Renderer
from tiebreak.engine.answers.kept import AnswerFile
from tiebreak.engine.answers.local import Answer, generate
from tiebreak.engine.attention import causal_model
from tiebreak.engine.model import POLICY_ADAPTER, Policy
from tiebreak.engine.weights import weights_digest
from tiebreak.progress import Progress
from tiebreak.records import Pair


def choose_prompts(pairs: Sequence[Pair], num: int) -> list[Pair]:
    """Return one pair for each of up to `num` different prompts, in an order set by the prompts' own hashes."""
    by_prompt = {pair.prompt_id: pair for pair in reversed(pairs)}
    return [by_prompt[prompt_id] for prompt_id in sorted(by_prompt)[:num]]


def sample(
    policy: Policy, pairs: Sequence[Pair], config: Config, progress: Progress, kept_in: Path | None = None
) -> list[dict[str, Any]]:
    """Return a row for each chosen prompt with the greedy answers before (reference) and after (policy).

    `kept_in` is a file in which answers survive a crash.
    """
    chosen = choose_prompts(pairs, config.evaluation.num_samples)
    if not chosen:
        return []
    renderer = policy.renderer(config.data)
    prompts = [renderer.prompt(pair.prompt, pair.tools) for pair in chosen]
    sampling = policy.sampling(config.evaluation.max_new_tokens)
    with progress.stage("answers", 2 * len(prompts)) as advance:
        with policy.reference.model() as reference:
            known = AnswerFile(kept_in, policy.reference.digest(), sampling) if kept_in else None
            before = generate(reference, prompts, sampling, progress=advance, kept=known)
        known = AnswerFile(kept_in, _digest(policy), sampling) if kept_in else None
        after = generate(policy.model, prompts, sampling, progress=advance, kept=known)
    rule = config.evaluation.rule
    return [
        {
            "prompt_id": pair.prompt_id,
            "prompt": [message.as_dict() for message in pair.prompt],
            "chosen": pair.chosen.content,
            "rejected": pair.rejected.content,
            "before": _described(one, renderer, rule),
            "after": _described(two, renderer, rule),
        }
        for pair, one, two in zip(chosen, before, after, strict=True)
    ]


def _digest(policy: Policy) -> str:
    """Return the fingerprint of the policy's weights."""
    adapter = POLICY_ADAPTER if policy.is_adapter else None
    return weights_digest(policy.model, causal_model(policy.model).config, adapter)


def _described(answer: Answer, renderer: Renderer, rule: RuleConfig | None) -> dict[str, Any]:
    text = renderer.text(answer.ids)
    matched = {} if rule is None else {"matches_rule": re.search(rule.pattern, text) is not None}
    counted = {"num_tokens": len(answer.ids), "finished": answer.finished, "repetition": repetition(text)}
    return {"text": text, **counted, **matched}


def repetition(text: str) -> float:
    """Return the share of word pairs that stood in the text before: 1 − distinct-2 (Li et al. 2016)."""
    words = text.split()
    pairs = list(pairwise(words))
    return 1 - len(set(pairs)) / len(pairs) if pairs else 0.0
