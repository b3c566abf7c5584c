"""Held-out completions that were judged one at a time, under reference and policy: evidence in the form of pairs'.

Owns how they are scored. What is said of a pair is here said of a duel of a good completion and a bad one.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tiebreak import faults
from tiebreak.engine.baseline import baseline
from tiebreak.engine.model import Model
from tiebreak.engine.noise import evaluation_mode
from tiebreak.engine.reference.kinds import Reference
from tiebreak.engine.scorer import Cut
from tiebreak.errors import DataError
from tiebreak.evaluation.duels import Duel, duels, mismatches
from tiebreak.evaluation.heldout import Evidence, HeldOut, HeldoutPairs, require_finite
from tiebreak.evaluation.kept import KeptRows
from tiebreak.fingerprint import fingerprint
from tiebreak.maths.logps import Logps
from tiebreak.maths.metrics import wins
from tiebreak.maths.objectives import Objective, Stated
from tiebreak.progress import Progress, Silent
from tiebreak.records import Example, Tokenized, TokenizedPair, TokenizedThumb


class HeldoutThumbs:
    """Held-out completions on their own, scored by policy and reference."""

    def __init__(
        self, policy: Model, reference: Reference, objective: Objective, thumbs: Sequence[TokenizedThumb], cut: Cut
    ) -> None:
        self._policy = policy
        self._reference = reference
        self._objective = objective
        self._duels = mismatches(thumbs) if objective.formula.learns_good_alone else duels(thumbs)
        self._cut = cut
        if not self._duels or len({one.prompt_id for one in thumbs}) < 2:
            raise DataError(
                f"{objective.name}: good completions are held against bad ones, on two prompts at least, or against "
                "those of other prompts where good ones alone are learned from; the held-out completions have no such"
            )

    def by(self, objective: Objective) -> HeldoutThumbs:
        """Return the same completions, measured by another objective."""
        found = copy.copy(self)
        found._objective = objective
        return found

    def evidence(
        self, num: int | None = None, progress: Progress | None = None, kept: KeptRows | None = None
    ) -> list[Evidence]:
        """Return one row for each of the first `num` duels, all of them by default, in their order.

        What `kept` knows is not scored again. A duel's loss is the mean of its two, or that of the good one where good
        ones alone are learned from; a baseline is one over all that are shown, as they would be one step.
        """
        wanted = self._duels[:num]
        thumbs = list(dict.fromkeys(one for duel in wanted for one in (duel.good, duel.bad)))
        sums = self._sums(thumbs, progress or Silent(), kept)
        counts = torch.tensor([len(thumb.completion_ids) for thumb in thumbs])
        policy, reference = Logps(sums[:, 0], counts), Logps(sums[:, 1], counts)
        stated = Stated.of(thumbs, self._objective.facts, policy.sums)
        before = self._objective.at_start(reference, stated).losses
        if self._objective.formula.asks_baseline:
            # The first few duels may be of one prompt, and there is nothing to compare with.
            several = len({one.prompt_id for one in thumbs}) > 1
            shown = thumbs if several else [one for duel in self._duels for one in (duel.good, duel.bad)]
            gain = baseline(self._policy, self._reference, shown, self._cut)
            stated = stated.with_baseline(gain, policy.sums)
        after = self._objective(policy, reference, stated)
        place = {thumb: place for place, thumb in enumerate(thumbs)}
        good, bad = (torch.tensor([place[getattr(duel, side)] for duel in wanted]) for side in ("good", "bad"))
        # Without a reference its own scores say how likely a completion is; what was learned is the change.
        rewards = after.rewards if self._objective.asks_reference else policy.sums - reference.sums
        margins = rewards[good] - rewards[bad]
        learned = 1.0 if self._objective.formula.learns_good_alone else 0.5
        columns = [learned * (after.losses[good] + after.losses[bad]), margins, wins(margins)]
        columns += [learned * (before[good] + before[bad]), torch.zeros_like(margins)]
        columns += [policy.sums[good], policy.sums[bad], reference.sums[good], reference.sums[bad]]
        numbers = torch.stack([column.detach().float() for column in columns], dim=1)
        require_finite(numbers, [duel.good for duel in wanted])
        return [_evidence(duel, row) for duel, row in zip(wanted, numbers.tolist(), strict=True)]

    def _sums(self, thumbs: Sequence[TokenizedThumb], progress: Progress, kept: KeptRows | None) -> Tensor:
        """Return [thumbs, 2]: what policy and reference say of each completion, nats."""
        found: dict[Example, list[float]] = {}
        of: list[Any] = []
        if kept:
            with self._reference.model() as frozen:
                of = ["thumb", *([model.identity, model.scorer.layout] for model in (self._policy, frozen))]
        with progress.stage("held-out completions", len(thumbs)) as advance:
            for group in self._cut(thumbs):
                keys = [fingerprint([*of, one.prompt_ids, one.completions]) for one in group]
                rows = kept and kept.rows(keys)
                if not rows:
                    faults.point("evaluate")
                    with evaluation_mode(self._policy.network), torch.no_grad():
                        said = self._policy.score(group).summed().sums
                    frozen_sums = self._reference.logps(group).summed().sums
                    rows = torch.stack([said, frozen_sums], dim=1).float().cpu().tolist()
                    if kept:
                        kept.keep(dict(zip(keys, rows, strict=True)))
                found |= zip(group, rows, strict=True)
                advance(len(group))
        return torch.tensor([found[thumb] for thumb in thumbs])


def held_out(
    policy: Model, reference: Reference, objective: Objective, examples: Sequence[Tokenized], cut: Cut
) -> HeldOut:
    """Return held-out examples of the kind that an objective learns from."""
    if objective.formula.learns_from is TokenizedThumb:
        thumbs = [one for one in examples if isinstance(one, TokenizedThumb)]
        return HeldoutThumbs(policy, reference, objective, thumbs, cut)
    return HeldoutPairs(policy, reference, objective, [one for one in examples if isinstance(one, TokenizedPair)], cut)


def _evidence(duel: Duel, row: Sequence[float]) -> Evidence:
    name = fingerprint([duel.good.example_id, duel.bad.example_id])
    loss, margin, win, *others = row
    lengths = len(duel.good.completion_ids), len(duel.bad.completion_ids)
    return Evidence(name, duel.cluster, loss, margin, win, *others, *lengths)  # type: ignore[call-arg, arg-type]
