"""Held-out pairs under reference and policy: the evidence that a verdict stands on.

Owns what is measured on pairs. Same scorer, same rendering as training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from tiebreak import faults
from tiebreak.config import Config
from tiebreak.engine.model import Policy
from tiebreak.engine.reference.kinds import evaluation_mode
from tiebreak.errors import TrainingError
from tiebreak.maths.losses import objective
from tiebreak.maths.metrics import pair_metrics
from tiebreak.progress import Progress, Silent
from tiebreak.records import TokenizedPair


@dataclass(frozen=True)
class Evidence:
    """One held-out pair: summed log-probabilities (nats), tokens, margin, and 1 / 0.5 / 0 for won / tied / lost."""

    pair_id: str
    prompt_id: str
    loss: float
    margin: float
    win: float
    policy_chosen_logps: float
    policy_rejected_logps: float
    reference_chosen_logps: float
    reference_rejected_logps: float
    chosen_num_tokens: int
    rejected_num_tokens: int

    def as_dict(self) -> dict[str, Any]:
        """Return the row of evidence.jsonl."""
        return asdict(self)


class HeldoutPairs:
    """Held-out pairs, scored by policy and reference."""

    def __init__(self, policy: Policy, pairs: Sequence[TokenizedPair], config: Config) -> None:
        self._policy = policy
        self._pairs = tuple(pairs)
        self._config = config
        self._loss = objective(config.loss)

    def probe(self) -> Mapping[str, float]:
        """Return mean metrics of the first `evaluation.probe_pairs` pairs, their keys under `heldout/`."""
        rows = self.evidence(self._pairs[: self._config.evaluation.probe_pairs])
        return {
            "heldout/loss": _mean(row.loss for row in rows),
            "heldout/rewards/margins": _mean(row.margin for row in rows),
            "heldout/rewards/accuracies": _mean(row.win for row in rows),
            "heldout/logps/chosen": _mean(row.policy_chosen_logps for row in rows),
            "heldout/logps/rejected": _mean(row.policy_rejected_logps for row in rows),
        }

    def evidence(
        self, pairs: Sequence[TokenizedPair] | None = None, progress: Progress | None = None
    ) -> list[Evidence]:
        """Return one row for each pair, in the order given; all pairs where none are named."""
        wanted = self._pairs if pairs is None else tuple(pairs)
        found: dict[str, Evidence] = {}
        with (progress or Silent()).stage("held-out pairs", len(wanted)) as advance:
            for group in self._policy.micro_batches(wanted):
                faults.point("evaluate")
                found |= {row.pair_id: row for row in self._score(group)}
                advance(len(group))
        return [found[pair.pair_id] for pair in wanted]

    def _score(self, pairs: Sequence[TokenizedPair]) -> list[Evidence]:
        policy = self._policy
        with evaluation_mode(policy.model), torch.no_grad():
            scores = policy.scorer(policy.model, pairs)
        reference = policy.reference.logps(pairs)
        metrics = pair_metrics(self._loss(scores, reference), scores, reference, beta=self._config.loss.beta)
        columns = [metrics.values[:, 0], metrics.values[:, 3], metrics.values[:, 4]]
        columns += [scores.chosen, scores.rejected, reference.chosen, reference.rejected]
        numbers = torch.stack([column.float().cpu() for column in columns], dim=1)
        _require_finite(numbers, pairs)
        return [_evidence(pair, row) for pair, row in zip(pairs, numbers.tolist(), strict=True)]


def _require_finite(numbers: torch.Tensor, pairs: Sequence[TokenizedPair]) -> None:
    bad = [pair.pair_id[:12] for pair, ok in zip(pairs, numbers.isfinite().all(1).tolist(), strict=True) if not ok]
    if bad:
        raise TrainingError(
            f"held-out log-probabilities are not finite for {len(bad)} pairs ({', '.join(bad[:4])}): the weights are "
            "broken; lower training.learning_rate"
        )


def _evidence(pair: TokenizedPair, numbers: Sequence[float]) -> Evidence:
    loss, margin, win, chosen, rejected, reference_chosen, reference_rejected = numbers
    return Evidence(
        pair_id=pair.pair_id,
        prompt_id=pair.prompt_id,
        loss=loss,
        margin=margin,
        win=win,
        policy_chosen_logps=chosen,
        policy_rejected_logps=rejected,
        reference_chosen_logps=reference_chosen,
        reference_rejected_logps=reference_rejected,
        chosen_num_tokens=len(pair.chosen_ids),
        rejected_num_tokens=len(pair.rejected_ids),
    )


def _mean(values: Any) -> float:
    listed = list(values)
    return float(sum(listed) / len(listed))
