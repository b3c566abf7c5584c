"""Early stopping, and the best checkpoint: by a held-out score and by bounds on what is recorded, never by what is
learned from.

Owns when training ends before its last step, and by how much one step's policy has to score better than the last one's
to be taken in its place: more than one standard error of their difference, pair by pair and clustered by prompt. A
smaller difference is one that the same two policies might not show on other pairs, and the last one is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tiebreak.config import StoppingConfig
from tiebreak.evaluation.heldout import Evidence, Probe, probed
from tiebreak.evaluation.watching import Seen
from tiebreak.maths.objectives import Objective
from tiebreak.maths.paired import standard_error

SCORES: Mapping[str, Callable[[Evidence], float]] = {
    "loss": lambda row: -row.loss,
    "accuracy": lambda row: row.win,
    "margin": lambda row: row.margin,
}
"""What a pair scores; larger is better."""


@dataclass(frozen=True)
class Scored:
    """The policy of a step: a score for each pair of a probe, larger being better, and the prompts that they are of."""

    step: int
    pairs: Tensor
    """[pairs], float64."""
    prompts: Tensor
    """[pairs]: equal numbers are one prompt."""

    @property
    def mean(self) -> float:
        """The score of the policy."""
        return float(self.pairs.mean())


@dataclass(frozen=True)
class Choice:
    """Which step's policy is taken: the best by its score where that is sure enough, or else the last."""

    best: Scored
    last: Scored
    by: str
    """The name of the score."""
    gain: float
    """By how much the best scores better than the last, a mean of pairs."""
    error: float
    """Its standard error, over prompts; infinite where there is one prompt."""
    start: float | None = None
    """What the start scored, where it was probed."""

    @property
    def step(self) -> int:
        """The step that is taken."""
        return self.best.step if self.best.step != self.last.step and self.gain > self.error else self.last.step

    def as_dict(self) -> dict[str, Any]:
        """Return what the manifest says of the best step; a loss is given as it is, though less is better."""
        sign = -1 if self.by == "loss" else 1
        told = {"step": self.best.step, "score": sign * self.best.mean, "of": len(self.best.pairs), "by": self.by}
        error = None if np.isinf(self.error) else self.error
        told |= {} if self.start is None else {"start": sign * self.start}
        return told | {"last": sign * self.last.mean, "gain": self.gain, "standard_error": error}


class Stopping:
    """Watches held-out pairs by a probe, and what others record; also the part of a checkpoint that remembers scores.

    It comes behind the watchers whose rows its rules are about.
    """

    name = "stopping"

    def __init__(self, probe: Probe, settings: StoppingConfig, total: int, by: str | None = None) -> None:
        """`total` is the number of the run's steps; `by` a score in place of the one that is set."""
        self._probe = probe
        self._settings = settings
        self._total = total
        self._by = by or settings.score
        self._heard: dict[str, float] = {}
        self._unheard = {rule.signal for rule in settings.rules}
        self._best: Scored | None = None
        self._last: Scored | None = None
        self._start: float | None = None
        self._waited = 0

    def due(self, step: int) -> bool:
        """Say that it looks after every step: a bound may be about any number."""
        return True

    def hear(self, row: Mapping[str, float]) -> None:
        """Take notice of numbers that rules are about."""
        if self._heard.get("step") != row["step"]:
            self._heard = {}
        self._heard |= row
        self._unheard -= row.keys()

    def look(self, step: int, objective: Objective) -> Seen:
        """Probe held-out pairs where that is due, or where training ends here; say whether it should."""
        row, best = self._probed(step, objective) if self._probe.due(step) else ({}, False)
        stop = self._reason(step, row) if 0 < step < self._total else None
        if stop and not row and self._probe.is_on:
            row, best = self._probed(step, objective)
        return Seen(row, stop, best and self._settings.artefact == "best")

    def choice(self) -> Choice | None:
        """Return which step's policy is taken; None where nothing was scored."""
        best, last = self._best, self._last
        if best is None or last is None:
            return None
        differences = (best.pairs - last.pairs).tolist()
        error = standard_error(differences, best.prompts.tolist())
        return Choice(best, last, self._by, float(np.mean(differences)), error, self._start)

    @property
    def unheard(self) -> list[str]:
        """The signals of rules that were not recorded so far."""
        return sorted(self._unheard)

    def tensors(self) -> Mapping[str, Tensor]:
        """Return the scores of the best step and of the last, and how long there was none better."""
        heard = [rule.signal not in self._unheard for rule in self._settings.rules]
        found = {"waited": torch.tensor(self._waited), "heard": torch.tensor(heard, dtype=torch.bool)}
        found |= {} if self._start is None else {"start": torch.tensor(self._start, dtype=torch.float64)}
        for name, scored in (("best", self._best), ("last", self._last)):
            if scored is not None:
                step = torch.tensor(scored.step)
                found |= {f"{name}.step": step, f"{name}.pairs": scored.pairs, f"{name}.prompts": scored.prompts}
        return {name: tensor.clone() for name, tensor in found.items()}  # both may be the same

    def beside(self) -> Sequence[Path]:
        """Return nothing."""
        return ()

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Go back to what `tensors` returned; a checkpoint of before has nothing of it."""
        heard = tensors["heard"].tolist() if "heard" in tensors else []
        self._unheard = {rule.signal for rule in self._settings.rules}
        self._unheard -= {rule.signal for rule, was in zip(self._settings.rules, heard, strict=False) if was}
        self._heard = {}
        self._waited = int(tensors.get("waited", 0))
        self._start = float(tensors["start"]) if "start" in tensors else None
        self._best, self._last = (
            Scored(int(tensors[f"{name}.step"]), tensors[f"{name}.pairs"], tensors[f"{name}.prompts"])
            if f"{name}.step" in tensors
            else None
            for name in ("best", "last")
        )

    def _probed(self, step: int, objective: Objective) -> tuple[Mapping[str, float], bool]:
        """Return what a probe records, and whether no step scored as well before."""
        evidence = self._probe.evidence(objective)
        scores = torch.tensor([SCORES[self._by](row) for row in evidence], dtype=torch.float64)
        if not step:  # there is no checkpoint of the start
            self._start = float(scores.mean())
            return probed(evidence), False
        _, prompts = np.unique([row.prompt_id for row in evidence], return_inverse=True)
        self._last = Scored(step, scores, torch.from_numpy(prompts))
        is_best = self._best is None or self._last.mean > self._best.mean
        self._best, self._waited = (self._last, 0) if is_best or self._best is None else (self._best, self._waited + 1)
        return probed(evidence), is_best

    def _reason(self, step: int, row: Mapping[str, float]) -> str | None:
        """Return why training should end here: a bound that is broken, or too long without a better score."""
        known = {**(self._heard if self._heard.get("step") == step else {}), **row}
        for rule in self._settings.rules:
            if rule.signal in known and (broken := rule.broken_by(known[rule.signal])):
                return f"{rule.signal} is {known[rule.signal]:.4g}, {broken}"
        patience = self._settings.patience
        if patience is None or self._best is None or not row or self._waited < patience:
            return None
        sign = -1 if self._by == "loss" else 1
        return (
            f"{self._waited} held-out probes without a better {self._by} than {sign * self._best.mean:.4g} at step "
            f"{self._best.step} (stopping.patience)"
        )
