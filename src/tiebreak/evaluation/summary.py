"""From evidence and answers to the before/after table.

Owns which rows the table has and what each means. Pure: rows in, one JSON document out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from tiebreak.config import Config
from tiebreak.evaluation.gate import decide
from tiebreak.evaluation.heldout import Evidence
from tiebreak.fingerprint import derive_seed
from tiebreak.maths.stats import Estimate, clustered_mean


def summarise(evidence: Sequence[Evidence], samples: Sequence[dict[str, Any]], config: Config) -> dict[str, Any]:
    """Return evaluation.json: counts, the before/after table and the verdict."""
    prompts = [row.prompt_id for row in evidence]
    accuracy = _estimate([row.win for row in evidence], prompts, config)
    margin = _estimate([row.margin for row in evidence], prompts, config)
    before, after = _likelihood(evidence)
    table = [
        # Before training policy and reference are the same model: every pair is a tie.
        _row("Held-out preference accuracy", "share", _exactly(0.5, evidence, prompts), accuracy),
        _row("Reward margin (chosen − rejected)", "nats", _exactly(0.0, evidence, prompts), margin),
        _row("DPO loss", "nats", _exactly(math.log(2), evidence, prompts), _losses(evidence, prompts, config)),
        _row(
            "Chosen likelier than rejected, per token",
            "share",
            _estimate(before, prompts, config),
            _estimate(after, prompts, config),
        ),
        *_sample_rows(samples, config),
    ]
    return {
        "num_heldout_pairs": len(evidence),
        "num_heldout_prompts": len(set(prompts)),
        "num_samples": len(samples),
        "table": table,
        **decide(accuracy).as_dict(),
    }


def _likelihood(evidence: Sequence[Evidence]) -> tuple[list[float], list[float]]:
    """Say for each pair whether chosen has the higher mean log-probability per token, before and after."""
    before = [
        _prefers(
            row.reference_chosen_logps / row.chosen_num_tokens, row.reference_rejected_logps / row.rejected_num_tokens
        )
        for row in evidence
    ]
    after = [
        _prefers(row.policy_chosen_logps / row.chosen_num_tokens, row.policy_rejected_logps / row.rejected_num_tokens)
        for row in evidence
    ]
    return before, after


def _prefers(chosen: float, rejected: float) -> float:
    return 0.5 if chosen == rejected else float(chosen > rejected)


def _losses(evidence: Sequence[Evidence], prompts: Sequence[str], config: Config) -> Estimate:
    return _estimate([row.loss for row in evidence], prompts, config)


def _sample_rows(samples: Sequence[dict[str, Any]], config: Config) -> list[dict[str, Any]]:
    """Return what can be counted on the answers themselves."""
    if not samples:
        return []
    measures = [
        ("Tokens in an answer", "tokens", "num_tokens"),
        ("Answers that end by themselves", "share", "finished"),
    ]
    if config.evaluation.rule:
        measures.insert(0, (f"Answers: {config.evaluation.rule.name}", "share", "matches_rule"))
    prompts = [row["prompt_id"] for row in samples]
    return [
        _row(
            name,
            unit,
            _estimate([float(row["before"][key]) for row in samples], prompts, config),
            _estimate([float(row["after"][key]) for row in samples], prompts, config),
        )
        for name, unit, key in measures
    ]


def _row(name: str, unit: str, before: Estimate, after: Estimate) -> dict[str, Any]:
    return {"name": name, "unit": unit, "before": asdict(before), "after": asdict(after)}


def _exactly(value: float, evidence: Sequence[Evidence], prompts: Sequence[str]) -> Estimate:
    return Estimate(value, value, value, len(evidence), len(set(prompts)))


def _estimate(values: Sequence[float], prompts: Sequence[str], config: Config) -> Estimate:
    return clustered_mean(values, prompts, seed=derive_seed(config.training.seed, "bootstrap"))
