"""Held-out pairs under reference and policy: the evidence that a verdict stands on.

Owns what is measured on pairs. Same scorer, same rendering as training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

import torch

from tiebreak import faults
from tiebreak.config import HELDOUT, EvaluationConfig
from tiebreak.diagnosis.strides import NOT_FINITE
from tiebreak.engine.comparison import compared
from tiebreak.engine.model import Model
from tiebreak.engine.noise import evaluation_mode
from tiebreak.engine.reference.kinds import Reference
from tiebreak.engine.scorer import Cut
from tiebreak.errors import Diverged
from tiebreak.evaluation.kept import KeptRows
from tiebreak.fingerprint import fingerprint
from tiebreak.maths.logps import Logps
from tiebreak.maths.losses import Losses
from tiebreak.maths.metrics import LOSS, pair_metrics
from tiebreak.maths.objectives import Objective, Stated
from tiebreak.maths.stats import correlation
from tiebreak.progress import Progress, Silent
from tiebreak.records import FACTS, Example, TokenizedPair, unit_of

SIDES = ("chosen", "rejected")


@dataclass(frozen=True)
class Evidence:
    """One held-out pair: summed log-probabilities (nats), tokens, margin, and 1 / 0.5 / 0 for won / tied / lost."""

    pair_id: str
    prompt_id: str
    loss: float
    margin: float
    win: float
    loss_at_start: float
    margin_at_start: float
    """The same where the policy is the reference."""
    policy_chosen_logps: float
    policy_rejected_logps: float
    reference_chosen_logps: float
    reference_rejected_logps: float
    chosen_num_tokens: int
    rejected_num_tokens: int

    @property
    def logratio_gap(self) -> float:
        """By how much more chosen gained than rejected, nats."""
        gained = self.policy_chosen_logps - self.reference_chosen_logps
        return gained - (self.policy_rejected_logps - self.reference_rejected_logps)

    @property
    def chosen_moved(self) -> float:
        """By how much chosen became likelier, nats a token."""
        return (self.policy_chosen_logps - self.reference_chosen_logps) / self.chosen_num_tokens

    @property
    def rejected_moved(self) -> float:
        """By how much rejected became likelier, nats a token."""
        return (self.policy_rejected_logps - self.reference_rejected_logps) / self.rejected_num_tokens

    def as_dict(self) -> dict[str, Any]:
        """Return the row of evidence.jsonl."""
        return asdict(self)


class HeldoutPairs:
    """Held-out pairs, scored by policy and reference."""

    def __init__(
        self, policy: Model, reference: Reference, objective: Objective, pairs: Sequence[TokenizedPair], cut: Cut
    ) -> None:
        self._policy = policy
        self._reference = reference
        self._objective = objective.unweighted
        self._pairs = tuple(pairs)
        self._cut = cut

    def by(self, objective: Objective) -> HeldoutPairs:
        """Return the same pairs, measured by another objective."""
        return HeldoutPairs(self._policy, self._reference, objective, self._pairs, self._cut)

    def evidence(
        self, num: int | None = None, progress: Progress | None = None, kept: KeptRows | None = None
    ) -> list[Evidence]:
        """Return one row for each of the first `num` pairs, all of them by default, in their order.

        What `kept` knows is not scored again; the others have the company that they would have had.
        """
        wanted, found = self._pairs[:num], dict[int, Evidence]()
        of = ["pair", *self._told()] if kept else []
        with (progress or Silent()).stage("held-out pairs", len(wanted)) as advance:
            for group in self._cut(wanted):
                keys = [
                    fingerprint([*of, pair.example_id, pair.prompt_ids, pair.completions, pair.weight, *_facts(pair)])
                    for pair in group
                ]
                known = kept and kept.rows(keys)
                rows = [Evidence(**row) for row in known] if known else self._score(group)
                if kept and not known:
                    kept.keep({key: row.as_dict() for key, row in zip(keys, rows, strict=True)})
                # By the pair itself: what annotators said of the same texts may differ.
                found |= {id(pair): row for pair, row in zip(group, rows, strict=True)}
                advance(len(group))
        rows = [found[id(pair)] for pair in wanted]
        return self._as_one_step(rows, wanted) if rows and self._objective.is_coupled else rows

    def _as_one_step(self, rows: Sequence[Evidence], pairs: Sequence[TokenizedPair]) -> list[Evidence]:
        """Return the rows with losses of all pairs together, where the loss of one depends on the others."""
        policy, reference = (
            Logps(
                torch.tensor([[getattr(row, f"{of}_{side}_logps") for side in SIDES] for row in rows]).flatten(),
                torch.tensor([[row.chosen_num_tokens, row.rejected_num_tokens] for row in rows]).flatten(),
            )
            for of in ("policy", "reference")
        )
        stated = Stated.of(pairs, self._objective.facts, policy.sums)
        after = self._objective(policy, reference, stated).losses.tolist()
        before = self._objective.at_start(reference, stated).losses.tolist()
        return [
            replace(row, loss=loss, loss_at_start=at_start)
            for row, loss, at_start in zip(rows, after, before, strict=True)
        ]

    def _told(self) -> list[Any]:
        """Return what evidence depends on besides the pair."""
        with self._reference.model() as frozen:
            models = [[model.identity, model.scorer.layout] for model in (self._policy, frozen)]
        objective = self._objective
        return [*models, objective.name, dict(objective.settings), asdict(objective.modifiers), list(objective.running)]

    def _score(self, pairs: Sequence[Example]) -> list[Evidence]:
        faults.point("evaluate")
        objective = self._objective
        with evaluation_mode(self._policy.network), torch.no_grad():
            said, frozen = compared(self._policy, self._reference, objective, pairs)
        frozen = self._reference.logps(pairs) if frozen is None else frozen
        seen, start = objective.summed(said, frozen)
        assert start is not None, "it was asked"  # noqa: S101
        stated = Stated.of(pairs, objective.facts, seen.sums)
        after, before = objective(seen, start, stated), objective.at_start(start, stated)
        if not objective.asks_reference:
            # Its own scores say how likely a completion is; what was learned is the change against the start.
            after, before = Losses(after.losses, seen.sums - start.sums), Losses(before.losses, 0 * start.sums)
        metrics, first = pair_metrics(after, said.summed()), pair_metrics(before, frozen.summed())
        policy, reference = said.summed().paired(), frozen.summed().paired()
        columns = [metrics[name] for name in (LOSS, "rewards/margins", "rewards/accuracies")]
        columns += [first[name] for name in (LOSS, "rewards/margins")]
        columns += [policy.chosen, policy.rejected, reference.chosen, reference.rejected]
        numbers = torch.stack([column.float().cpu() for column in columns], dim=1)
        require_finite(numbers, pairs)
        return [
            Evidence(pair.example_id, pair.prompt_id, *row, *map(len, pair.completions))
            for pair, row in zip(pairs, numbers.tolist(), strict=True)
        ]


class HeldOut(Protocol):
    """Held-out examples of any kind."""

    def by(self, objective: Objective) -> HeldOut:
        """Return the same, measured by another objective."""

    def evidence(
        self, num: int | None = None, progress: Progress | None = None, kept: KeptRows | None = None
    ) -> list[Evidence]:
        """Return a row for each of the first `num`, all of them by default."""


class Probe:
    """Watches held-out pairs while training goes on: before it, evenly spaced, and after the last step."""

    def __init__(self, heldout: HeldOut, settings: EvaluationConfig, total: int) -> None:
        self._heldout = heldout
        self._num_pairs = settings.probe_pairs
        self._steps = {0, *probe_steps(total, settings.probes)} if settings.probes else set()

    def due(self, step: int) -> bool:
        """Say whether to look after that many steps."""
        return step in self._steps

    @property
    def is_on(self) -> bool:
        """Whether there are probes at all."""
        return bool(self._steps)

    def evidence(self, objective: Objective) -> list[Evidence]:
        """Return a row for each pair of a probe, always the same ones."""
        return self._heldout.by(objective).evidence(self._num_pairs)


MOVED = 1e-3
"""Nats a token from which on a completion has moved, and not been rounded in another batch."""


def probed(rows: Sequence[Evidence]) -> dict[str, float]:
    """Return what a probe records of its pairs."""
    columns = {
        "loss": [row.loss for row in rows],
        "rewards/margins": [row.margin for row in rows],
        "rewards/accuracies": [row.win for row in rows],
        "logps/chosen": [row.policy_chosen_logps for row in rows],
        "logps/rejected": [row.policy_rejected_logps for row in rows],
        "displaced": [float(row.chosen_moved < -MOVED) for row in rows],
        "chosen_moved": [row.chosen_moved for row in rows],
        "rejected_moved": [row.rejected_moved for row in rows],
    }
    found = {HELDOUT + name: sum(values) / len(values) for name, values in columns.items()}
    if any(max(abs(row.chosen_moved), abs(row.rejected_moved)) > MOVED for row in rows):
        longer = [float(row.chosen_num_tokens - row.rejected_num_tokens) for row in rows]
        related = correlation([row.logratio_gap for row in rows], longer)
        found |= {} if related is None else {f"{HELDOUT}reward_length_correlation": related}
    return found


def probe_steps(total: int, probes: int) -> set[int]:
    """Return the steps after which held-out pairs are scored: evenly spaced, the last step among them."""
    return {round(total * (index + 1) / probes) for index in range(probes)} - {0}


def _facts(pair: Example) -> list[float | None]:
    return [getattr(pair, name, None) for name in FACTS]


def require_finite(numbers: torch.Tensor, pairs: Sequence[Example]) -> None:
    """Raise Diverged where a number of evidence, a row an example, is NaN or infinite."""
    bad = [pair.example_id[:12] for pair, ok in zip(pairs, numbers.isfinite().all(1).tolist(), strict=True) if not ok]
    if bad:
        raise Diverged(
            f"held-out log-probabilities are {NOT_FINITE} for {len(bad)} {unit_of(pairs)} ({', '.join(bad[:4])}): "
            "the weights are broken; lower training.learning_rate"
        )
