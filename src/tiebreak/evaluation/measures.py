"""From evidence and answers to the before/after table.

Owns which rows the table has and what each means. Pure: rows in, one JSON document out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from tiebreak.config import RuleConfig
from tiebreak.evaluation.gate import decide
from tiebreak.evaluation.heldout import Evidence
from tiebreak.fingerprint import derive_seed
from tiebreak.maths.logps import Logps
from tiebreak.maths.metrics import wins
from tiebreak.maths.objectives import Objective
from tiebreak.maths.stats import Estimate, clustered_mean, clustered_share


@dataclass(frozen=True)
class Measure:
    """One row of the table: a value for each pair or answer, before and after, and the prompt each belongs to."""

    name: str
    unit: str
    prompts: Sequence[str]
    before: Sequence[float]
    after: Sequence[float]

    def row(self, seed: int) -> dict[str, Any]:
        """Return both means with their intervals."""
        sides = {"before": self._estimate(self.before, seed), "after": self._estimate(self.after, seed)}
        return {"name": self.name, "unit": self.unit, **{side: asdict(found) for side, found in sides.items()}}

    def _estimate(self, values: Sequence[float], seed: int) -> Estimate:
        return (clustered_share if self.unit == "share" else clustered_mean)(values, self.prompts, seed)


def summarise(
    evidence: Sequence[Evidence],
    samples: Sequence[dict[str, Any]],
    objective: Objective,
    rule: RuleConfig | None,
    seed: int,
) -> dict[str, Any]:
    """Return evaluation.json: counts, the before/after table and the verdict; `seed` is the run's."""
    seed = derive_seed(seed, "bootstrap")
    prompts = [row.prompt_id for row in evidence]
    measures = [*_pair_measures(evidence, objective, prompts), *_answer_measures(samples, rule)]
    accuracy = clustered_share([row.win for row in evidence], prompts, seed)
    return {
        "num_heldout_pairs": len(evidence),
        "num_heldout_prompts": len(set(prompts)),
        "num_samples": len(samples),
        "table": [measure.row(seed) for measure in measures],
        **decide(accuracy).as_dict(),
    }


def _pair_measures(evidence: Sequence[Evidence], objective: Objective, prompts: Sequence[str]) -> list[Measure]:
    # Before training the policy is the reference, so what it would have said is known without asking.
    sums = torch.tensor(
        [number for row in evidence for number in (row.reference_chosen_logps, row.reference_rejected_logps)],
        dtype=torch.float64,
    )
    counts = torch.tensor([num for row in evidence for num in (row.chosen_num_tokens, row.rejected_num_tokens)])
    start = objective.at_start(Logps(sums, counts))
    margins = start.rewards[0::2] - start.rewards[1::2]
    at_start = {"losses": start.losses.tolist(), "margins": margins.tolist(), "wins": wins(margins).tolist()}
    likelier, loss = "Chosen likelier than rejected, per token", f"{objective.name.upper()} loss"
    accuracy, margin = "Held-out preference accuracy", "Reward margin (chosen − rejected)"
    return [
        Measure(accuracy, "share", prompts, at_start["wins"], [row.win for row in evidence]),
        Measure(margin, "nats", prompts, at_start["margins"], [row.margin for row in evidence]),
        Measure(loss, "nats", prompts, at_start["losses"], [row.loss for row in evidence]),
        Measure(likelier, "share", prompts, *_likelier(evidence)),
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


def _answer_measures(samples: Sequence[dict[str, Any]], rule: RuleConfig | None) -> list[Measure]:
    """Return what can be counted on the answers themselves."""
    if not samples:
        return []
    counted = [
        ("Tokens in an answer", "tokens", "num_tokens"),
        ("Answers that end by themselves", "share", "finished"),
        ("Share of an answer that repeats itself", "share", "repetition"),
        ("Answers that go round in circles", "share", "looping"),
    ]
    if rule:
        counted.insert(0, (f"Answers: {rule.name}", "share", "matches_rule"))
    prompts = [row["prompt_id"] for row in samples]
    return [
        Measure(name, unit, prompts, *([float(row[side][key]) for row in samples] for side in ("before", "after")))
        for name, unit, key in counted
    ]
