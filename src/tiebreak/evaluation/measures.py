"""From evidence and answers to rows, and from rows to the before/after table and the verdict.

Owns which rows there are and what each means. Pure: rows of evidence in, one JSON document out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch

from tiebreak.config import GateConfig, RuleConfig
from tiebreak.evaluation.diversity import distinct_n, self_bleu, shared_length, words
from tiebreak.evaluation.gate import decide, not_heard
from tiebreak.evaluation.heldout import Evidence
from tiebreak.evaluation.probe import ProbeItem
from tiebreak.evaluation.rows import Row
from tiebreak.fingerprint import derive_seed
from tiebreak.maths.metrics import wins
from tiebreak.maths.objectives import Objective
from tiebreak.maths.stats import clustered_share, preferred
from tiebreak.records import TokenizedThumb

Samples = Sequence[dict[str, Any]]


def rows(evidence: Sequence[Evidence], samples: Samples, objective: Objective, rule: RuleConfig | None) -> list[Row]:
    """Return what was measured, in the order of the table: on held-out pairs, then on answers."""
    return [*_pair_rows(evidence, objective), *_answer_rows(samples, rule)]


def draw_rows(draws: Samples, temperature: float) -> list[Row]:
    """Return what drawn answers show, a value for each prompt; rows of `draws.draw`.

    KL(π ‖ π_ref) is E_π[log π − log π_ref]: the mean over the policy's own answers (the estimator without bias, k1 of
    Schulman 2020), of an answer up to `max_new_tokens` and of a token. It is known where answers were drawn at 1. The
    entropy of the next token is the mean of −log p over tokens that a model drew itself. Likeness is self-BLEU among
    the answers to one prompt, all cut to the length that three quarters of all answers have.
    """
    scored = {
        row["prompt_id"]: sides
        for row in draws
        if all(sides := [[one for one in row[side] if one["num_scored"]] for side in ("before", "after")])
    }
    found = []
    if scored and temperature == 1:
        prompts, none = list(scored), [0.0] * len(scored)
        ratios = [[one["logps"] - one["reference_logps"] for one in after] for _, after in scored.values()]
        tokens = [sum(one["num_scored"] for one in after) for _, after in scored.values()]
        before, after = (
            [-sum(one["logps"] for one in side) / sum(one["num_scored"] for one in side) for side in column]
            for column in zip(*scored.values(), strict=True)
        )
        found += [
            Row.of("kl", prompts, none, [sum(some) / len(some) for some in ratios]),
            Row.of("kl_token", prompts, none, [sum(some) / num for some, num in zip(ratios, tokens, strict=True)]),
            Row.of("answers/entropy", prompts, before, after),
        ]
    texts = {row["prompt_id"]: [[one["text"] for one in row[side]] for side in ("before", "after")] for row in draws}
    length = shared_length(*([text for sides in texts.values() for text in sides[side]] for side in (0, 1)))
    alike = {}
    for prompt_id, sides in texts.items():
        long = [[text for text in side if len(words(text)) >= length] for side in sides]
        if length >= _FEWEST_WORDS and all(len(side) > 1 for side in long):
            alike[prompt_id] = [self_bleu(side, length) for side in long]
    if alike:
        before, after = map(list, zip(*alike.values(), strict=True))
        found.append(Row.of("answers/self_bleu", list(alike), before, after))
    return found


def summarise(
    measured: Sequence[Row],
    num_samples: int,
    gate: GateConfig,
    told: Sequence[str],
    seed: int,
    judge: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return evaluation.json: counts, the before/after table and the verdict; `seed` is the run's.

    `told` are facts from elsewhere that belong into the verdict's first line. What was measured anew has no overrides
    but those of `gate`: a reason is about what was measured before. `judge` is what is written down of the judge.
    """
    by_key, stream = {row.key: row for row in measured}, derive_seed(seed, "bootstrap")
    pairs = by_key["accuracy"]
    return {
        "num_heldout_pairs": len(pairs.after),
        "num_heldout_prompts": len(set(pairs.prompts)),
        "num_samples": num_samples,
        # A mean of what is no number is none; the verdict names the measure.
        "table": [row.table(stream) for row in measured if not row.num_not_finite],
        "accuracy": asdict(clustered_share(pairs.after, pairs.prompts, stream)),
        **decide(by_key, gate, told, unheard=not_heard(judge), seed=seed).as_dict(),
        "judge": judge,
        "recorded_overrides": {},
    }


def _pair_rows(evidence: Sequence[Evidence], objective: Objective) -> list[Row]:
    at_start = [row.margin_at_start for row in evidence]
    prompts = [row.prompt_id for row in evidence]

    chosen, rejected = _per_token(evidence, "chosen"), _per_token(evidence, "rejected")
    before, after = (list(map(preferred, *sides)) for sides in zip(chosen, rejected, strict=True))
    fell = [float(after < before) for before, after in zip(*chosen, strict=True)]
    moved = [row.margin for row in evidence]
    # With sigmoid(margin) the objective says how sure it is that chosen is the better one; 1 would be right each time.
    wrong_before, wrong_after = (
        (torch.sigmoid(-torch.tensor(side, dtype=torch.float64)) ** 2).tolist() for side in (at_start, moved)
    )
    losses = [row.loss_at_start for row in evidence], [row.loss for row in evidence]
    won_before = wins(torch.tensor(at_start, dtype=torch.float64)).tolist()
    return [
        Row.of("accuracy", prompts, won_before, [row.win for row in evidence], _accuracy_of(objective)),
        Row.of("margin", prompts, at_start, moved),
        Row.of("logratio_gap", prompts, [0.0] * len(evidence), [row.logratio_gap for row in evidence]),
        Row.of("loss", prompts, *losses, f"{objective.name.upper()} loss"),
        Row.of("calibration", prompts, wrong_before, wrong_after),
        Row.of("chosen_likelier", prompts, before, after),
        Row.of("chosen_logps", prompts, *chosen),
        Row.of("rejected_logps", prompts, *rejected),
        Row.of("displaced", prompts, [0.0] * len(fell), fell),
    ]


def _accuracy_of(objective: Objective) -> str:
    """Return what is told apart where these are not chosen and rejected; empty where they are."""
    if objective.formula.learns_from is not TokenizedThumb:
        return ""
    alone = objective.formula.learns_good_alone
    return "Own completion gained more than another prompt's" if alone else "Good completion gained more than a bad one"


def _per_token(evidence: Sequence[Evidence], side: str) -> tuple[list[float], list[float]]:
    """Return the log-probability per token (nats) of one side of each pair, before and after."""
    told = [row.as_dict() for row in evidence]
    before, after = (
        [row[f"{who}_{side}_logps"] / row[f"{side}_num_tokens"] for row in told] for who in ("reference", "policy")
    )
    return before, after


def _answer_rows(samples: Samples, rule: RuleConfig | None) -> list[Row]:
    """Return what can be counted on the answers themselves."""
    if not samples:
        return []
    prompts = [row["prompt_id"] for row in samples]

    def counted(name: str) -> tuple[list[float], list[float]]:
        before, after = ([float(sample[side][name]) for sample in samples] for side in ("before", "after"))
        return before, after

    found = []
    if rule:
        before, after = counted("matches_rule")
        found.append(Row.of("answers/rule", prompts, before, after, f"Answers: {rule.name}"))
    before, after = counted("finished")
    variety = {sample["prompt_id"]: sides for sample in samples if (sides := _variety(sample))}
    same = [float(sample["before"]["text"] == sample["after"]["text"]) for sample in samples]
    return [
        *found,
        Row.of("answers/length", prompts, *counted("num_tokens")),
        Row.of("answers/unfinished", prompts, [1 - ended for ended in before], [1 - ended for ended in after]),
        Row.of("answers/repetition", prompts, *counted("repetition")),
        Row.of("answers/looping", prompts, *counted("looping")),
        *_variety_rows(variety),
        Row.of("answers/unchanged", prompts, [1.0] * len(same), same),
    ]


def _variety_rows(variety: Mapping[str, tuple[float, ...]]) -> list[Row]:
    if not variety:
        return []
    before, after = ([sides[side] for sides in variety.values()] for side in (0, 1))
    return [Row.of("answers/distinct", list(variety), before, after)]


def _variety(sample: dict[str, Any]) -> tuple[float, ...]:
    """Return the share of different word pairs in both answers, over as many words as both have; () where few."""
    texts = [sample[side]["text"] for side in ("before", "after")]
    length = min(len(words(text)) for text in texts)
    return tuple(distinct_n([text], 2, length) for text in texts) if length >= _FEWEST_WORDS else ()


_FEWEST_WORDS = 8


def probe_rows(items: Sequence[ProbeItem]) -> list[Row]:
    """Return what neutral texts and questions became: log-probability per token, and of right answers."""
    found = []
    for key, kind in (("neutral_logps", "text"), ("capability", "question")):
        some = [item for item in items if item.kind == kind]
        if some:
            sides = [item.before for item in some], [item.after for item in some]
            found.append(Row.of(key, [item.item_id for item in some], *sides))
    return found
