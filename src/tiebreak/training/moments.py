"""Moments of AdamW that another run left, for one that goes on with them: online DPO in short rounds.

Owns which checkpoint of the other run they are read from, and the proof that they are of the same trainable tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from tiebreak.engine.model import Model
from tiebreak.errors import RunError
from tiebreak.runs import as_a_run_writes, open_run
from tiebreak.seals import digest_once
from tiebreak.training.checkpoint import Checkpoints
from tiebreak.training.parts import Moments, Weights

_KEY = "training.moments_from"


@dataclass(frozen=True)
class Earlier:
    """The moments of a run after one of its steps."""

    run: Path
    step: int
    sha256: str
    tensors: Mapping[str, Tensor]

    def as_dict(self) -> dict[str, Any]:
        """Return what the manifest says of it."""
        return {"step": self.step, "sha256": self.sha256}

    def told(self) -> str:
        """Return what a run says of it, in words."""
        return f"the optimizer goes on with the moments of {self.run} after its step {self.step}"


def moments_of(name: str, policy: Model) -> Earlier:
    """Return the moments that a run's policy was left with; raises RunError where they are not of this policy's
    trainable tensors, by name and shape, or not there.
    """
    step, path = _checkpoint(name)
    weights = path / f"{Weights.name}.safetensors"
    with safe_open(weights, framework="pt") as held:
        theirs = {key: tuple(held.get_slice(key).get_shape()) for key in held.keys()}  # noqa: SIM118 - no mapping
    ours = {key: tuple(parameter.shape) for key, parameter in policy.trainable}
    if wrong := sorted(key for key in theirs.keys() | ours.keys() if theirs.get(key) != ours.get(key)):
        first = wrong[0]
        told = " and ".join(
            f"{list(shapes[first])} {where}" if first in shapes else f"none {where}"
            for shapes, where in ((theirs, "there"), (ours, "here"))
        )
        raise RunError(
            f"{_KEY} {name}: its optimizer moved other tensors ({len(wrong)} differ, the first: {first}: {told}); "
            "moments go on for the same model, adapter.kind, rank and target_modules alone"
        )
    file = path / f"{Moments.name}.safetensors"
    return Earlier(Path(name), step, digest_once(file), load_file(file))


def moments_digest(name: str) -> str | None:
    """Return the digest of a run's moments; None where they are not there, or no longer."""
    try:
        return digest_once(_checkpoint(name)[1] / f"{Moments.name}.safetensors")
    except (RunError, OSError):
        return None


def _checkpoint(name: str) -> tuple[int, Path]:
    """Return the step whose weights became a run's policy, and its checkpoint."""
    try:
        run = open_run(name)
    except RunError as error:
        raise RunError(f"{_KEY} {error}") from None
    faults: list[str] = []
    with as_a_run_writes(run.path):
        step = run.manifest.get("artefact_step")
        checkpoints = Checkpoints(run, {}, 2, faults.append, known=run.manifest.get("identities", ()), holds=_HELD)
        found = next(reversed(checkpoints.whole()), None) if step is None else checkpoints.of_step(int(step))
    if found is None:
        raise RunError(
            f"{_KEY} {name}: holds no whole checkpoint of its {'end' if step is None else f'step {step}'}, where the "
            f"moments are ({'; '.join(faults) or 'there is none'}); name a run that has one, or take the setting out"
        )
    return int(found.name.rpartition("-")[2]), found


_HELD = (Weights.name, Moments.name)
