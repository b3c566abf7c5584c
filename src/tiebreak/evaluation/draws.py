"""Several answers to a prompt, drawn from reference and policy: how far the policy went, and how varied it still is.

Owns how they are drawn and scored. Each answer is scored by whoever wrote it, and the policy's own by the reference as
well: log π − log π_ref of the policy's own samples is what the KL between them is estimated from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from tiebreak import faults
from tiebreak.config import EvaluationConfig
from tiebreak.engine.answers.answerer import Answer, Chat, Sampling
from tiebreak.engine.features import Completions
from tiebreak.engine.model import Model
from tiebreak.engine.noise import evaluation_mode
from tiebreak.engine.reference.kinds import Reference
from tiebreak.engine.scorer import Cut
from tiebreak.evaluation.kept import KeptRows
from tiebreak.evaluation.samples import AnswerFiles, choose_prompts, of_both
from tiebreak.fingerprint import derive_seed, fingerprint
from tiebreak.progress import Advance, Progress
from tiebreak.records import Ids, Judgement


def draw(
    policy: Model,
    reference: Reference,
    pairs: Sequence[Judgement],
    settings: EvaluationConfig,
    *,
    seed: int,
    cut: Cut,
    progress: Progress,
    said: AnswerFiles,
    kept: KeptRows,
) -> list[dict[str, Any]]:
    """Return a row for each prompt with `settings.num_draws` answers before (reference) and after (policy).

    Of each: its text, whether it ended by itself, and its log-probability (nats) under whoever wrote it (`logps`) and
    under the reference (`reference_logps`), over `num_scored` tokens. An EOS is scored where the model has only one, so
    that it is known which it was. An answer without any such token has no log-probabilities.
    """
    chosen = choose_prompts(pairs, settings.drawn_prompts if settings.num_draws else 0)
    if not chosen:
        return []
    chats = [Chat(pair.prompt, pair.tools) for pair in chosen]
    sampling = Sampling(
        settings.max_new_tokens, settings.draw_temperature, settings.num_draws, derive_seed(seed, "draws")
    )
    drawn = of_both(policy, reference, chats, sampling, progress, "drawn answers", said)
    grouped = [[side[start : start + sampling.num] for start in range(0, len(side), sampling.num)] for side in drawn]

    def completions(writer: Model, side: Sequence[Sequence[Answer]]) -> list[Completions | None]:
        prompts = [writer.prompt_ids(chat, sampling) for chat in chats]
        return [_completions(writer, *one) for one in zip(prompts, side, strict=True)]

    with reference.model() as frozen:  # its template and its EOS may be others, where it is no reference of ours
        before, ends = completions(frozen, grouped[0]), [frozen.eos_ids, policy.eos_ids]
    after = completions(policy, grouped[1])
    with progress.stage("scoring drawn answers", len(before) + 2 * len(after)) as advance:
        own = _logps(policy, after, cut, kept, advance)
        with reference.model() as frozen:
            base = _logps(frozen, after, cut, kept, advance)
            first = _logps(frozen, before, cut, KeptRows(said.scored) if said.scored else kept, advance)
    scores = ((before, first, first), (after, own, base))
    return [
        {
            "prompt_id": pair.prompt_id,
            "prompt": [message.as_dict() for message in pair.prompt],
            **{
                side: _described(eos, answers[place], *(one.get(examples[place]) for one in logps))
                for side, eos, answers, (examples, *logps) in zip(
                    ("before", "after"), ends, grouped, scores, strict=True
                )
            },
        }
        for place, pair in enumerate(chosen)
    ]


def scored_ids(eos_ids: Ids, answer: Answer) -> Ids:
    """Return the tokens of an answer that are scored."""
    return (*answer.ids, *eos_ids) if answer.finished and len(eos_ids) == 1 else answer.ids


def _completions(model: Model, prompt: Ids, answers: Sequence[Answer]) -> Completions | None:
    """Return the answers to a prompt as an example; None where none of them has a token."""
    scored = tuple(ids for answer in answers if (ids := scored_ids(model.eos_ids, answer)))
    return Completions(prompt, scored, example_id=fingerprint([prompt, scored])) if scored else None


Logps = dict[Completions | None, list[float]]


def _logps(model: Model, examples: Sequence[Completions | None], cut: Cut, kept: KeptRows, advance: Advance) -> Logps:
    """Return the summed log-probability (nats) of each completion."""
    found: Logps = {}
    by = [model.identity, model.scorer.layout]
    by_id = {one.example_id: one for one in examples if one}
    for some in cut([*by_id.values()]):
        group = [by_id[one.example_id] for one in some]
        keys = [fingerprint(["draw", *by, one.example_id]) for one in group]
        rows = kept.rows(keys)
        if rows is None:
            faults.point("evaluate")
            with evaluation_mode(model.network), torch.no_grad():
                sums = iter(model.score(group).summed().sums.double().cpu().tolist())
            rows = [[next(sums) for _ in one.completions] for one in group]
            kept.keep(dict(zip(keys, rows, strict=True)))
        found |= zip(group, rows, strict=True)
        advance(len(group))
    return found


def _described(
    eos_ids: Ids, answers: Sequence[Answer], own: list[float] | None, base: list[float] | None
) -> list[dict[str, Any]]:
    sums = iter(zip(own or (), base or (), strict=True))
    rows = []
    for answer in answers:
        ids = scored_ids(eos_ids, answer)
        logps, reference_logps = next(sums) if ids else (None, None)
        said = {"text": answer.text, "num_tokens": len(answer.ids), "finished": answer.finished}
        rows.append(said | {"num_scored": len(ids), "logps": logps, "reference_logps": reference_logps})
    return rows
