"""From evidence and answers to rows, and from rows to the before/after table and the verdict.

Owns which rows there are and what each means. Pure: rows of evidence in, one JSON document out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch

from tiebreak.config import GateConfig, RuleConfig
from tiebreak.evaluation.diversity import distinct_n, words
from tiebreak.evaluation.gate import decide
from tiebreak.evaluation.heldout import Evidence
from tiebreak.evaluation.probe import ProbeItem
from tiebreak.evaluation.rows import Row
from tiebreak.fingerprint import derive_seed
from tiebreak.maths.logps import Logps
from tiebreak.maths.metrics import wins
from tiebreak.maths.objectives import Objective
from tiebreak.maths.stats import clustered_share

Samples = Sequence[dict[str, Any]]


def rows(evidence: Sequence[Evidence], samples: Samples, objective: Objective, rule: RuleConfig | None) -> list[Row]:
    """Return what was measured, in the order of the table: on held-out pairs, then on answers."""
    return [*_pair_rows(evidence, objective), *_answer_rows(samples, rule)]


def summarise(
    measured: Sequence[Row], num_samples: int, gate: GateConfig, told: Sequence[str], seed: int
) -> dict[str, Any]:
    """Return evaluation.json: counts, the before/after table and the verdict; `seed` is the run's.

    `told` are facts from elsewhere that belong into the verdict's first line.
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
        **decide(by_key, gate, told, seed=seed).as_dict(),
    }


def _pair_rows(evidence: Sequence[Evidence], objective: Objective) -> list[Row]:
    # Before training the policy is the reference, so what it would have said is known without asking.
    sums = torch.tensor(
        [number for row in evidence for number in (row.reference_chosen_logps, row.reference_rejected_logps)],
        dtype=torch.float64,
    )
    counts = torch.tensor([num for row in evidence for num in (row.chosen_num_tokens, row.rejected_num_tokens)])
    start = objective.at_start(Logps(sums, counts))
    margins = start.rewards[0::2] - start.rewards[1::2]
    prompts = [row.prompt_id for row in evidence]

    chosen = [
        [logps / row.chosen_num_tokens for row, logps in zip(evidence, side, strict=True)]
        for side in ([one.reference_chosen_logps for one in evidence], [one.policy_chosen_logps for one in evidence])
    ]
    losses, loss = [row.loss for row in evidence], f"{objective.name.upper()} loss"
    return [
        Row.of("accuracy", prompts, wins(margins).tolist(), [row.win for row in evidence]),
        Row.of("margin", prompts, margins.tolist(), [row.margin for row in evidence]),
        Row.of("loss", prompts, start.losses.tolist(), losses, loss),
        Row.of("chosen_likelier", prompts, *_likelier(evidence)),
        Row.of("chosen_logps", prompts, chosen[0], chosen[1]),
    ]


def _likelier(evidence: Sequence[Evidence]) -> tuple[list[float], list[float]]:
    """Say for each pair whether chosen has the higher mean log-probability per token, before and after."""
    before, after = [], []
    for row in evidence:
        per_chosen, per_rejected = 1 / row.chosen_num_tokens, 1 / row.rejected_num_tokens
        before.append(_prefers(row.reference_chosen_logps * per_chosen, row.reference_rejected_logps * per_rejected))
        after.append(_prefers(row.policy_chosen_logps * per_chosen, row.policy_rejected_logps * per_rejected))
    return before, after


def _prefers(chosen: float, rejected: float) -> float:
    return 0.5 if chosen == rejected else float(chosen > rejected)


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
        # A half where the rule says the same of both answers.
        won = [(1 + two - one) / 2 for one, two in zip(before, after, strict=True)]
        found.append(Row.of("answers/rule", prompts, before, after, f"Answers: {rule.name}"))
        found.append(Row.of("answers/preferred", prompts, [0.5] * len(won), won))
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
