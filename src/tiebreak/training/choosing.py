"""Which checkpoint becomes the policy: the last, or an earlier one that scores better on held-out pairs.

Owns how the choice is carried out and told. How sure it has to be is known to `evaluation.stopping`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tiebreak.config import StoppingConfig
from tiebreak.engine.model import Model
from tiebreak.evaluation.stopping import Choice, Stopping
from tiebreak.progress import Progress
from tiebreak.training.checkpoint import Checkpoints
from tiebreak.training.loop import Outcome
from tiebreak.training.parts import Weights


@dataclass(frozen=True)
class Artefact:
    """The step whose weights the policy has, what its objective remembers, and how it was chosen."""

    step: int
    running: tuple[float, float]
    choice: Choice | None

    def as_dict(self, outcome: Outcome) -> dict[str, Any]:
        """Return what the manifest says of it."""
        best = None if self.choice is None else self.choice.as_dict()
        return {"stopped": outcome.stopped, "artefact_step": self.step, "best": best}


def choose(
    policy: Model,
    stopping: Stopping,
    settings: StoppingConfig,
    checkpoints: Checkpoints,
    outcome: Outcome,
    progress: Progress,
) -> Artefact:
    """Give a policy that is trained the weights that it is kept with, and say where they are not its last."""
    choice = stopping.choice()
    if signals := ", ".join(stopping.unheard):
        progress.warn(
            f"stopping.rules: {signals} was never recorded in this run, so that its bound could not be broken"
        )
    if choice and choice.start is not None and choice.best.mean < choice.start:
        told = choice.as_dict()
        progress.warn(
            f"no checkpoint scores as well on held-out pairs as the start: {choice.by} {told['score']:.4g} at step "
            f"{choice.best.step}, {told['start']:.4g} before training"
        )
    last = Artefact(outcome.num_steps_done, outcome.running, choice)
    if choice is None or settings.artefact == "last" or choice.step == choice.last.step:
        return last
    path = checkpoints.of_step(choice.step)
    if path is None:
        progress.warn(f"the best checkpoint, of step {choice.step}, is not whole; the policy is the last one's")
        return last
    state = checkpoints.restore(path, [Weights(policy)])
    progress.say(
        f"the policy is that of step {choice.step} of {outcome.num_steps_done}: its {choice.by} on "
        f"{len(choice.best.pairs)} held-out pairs is better than the last one's by {choice.gain:.3g}, with a standard "
        f"error of {choice.error:.2g}; the last checkpoint stays"
    )
    return Artefact(choice.step, state.running, choice)


def told_of(manifest: Mapping[str, Any]) -> str | None:
    """Return what a verdict says first of a policy that is not the last one; None of one that is."""
    step, done, best = (manifest.get(key) for key in ("artefact_step", "num_steps_done", "best"))
    if step is None or step == done or not best:
        return None
    return (
        f"the policy is that of step {step} of {done}, chosen by its {best['by']} on {best['of']} of the held-out "
        "pairs that it is measured on here"
    )
