"""What a checkpoint is made of: a state, and parts that each know what to write and how to go back to it.

Owns the parts that every run has: the weights that train, the optimizer's moments, the random streams. A reference or
an objective that remembers something brings a part of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from tiebreak import faults
from tiebreak.engine.model import Model
from tiebreak.engine.ranks import Ranks
from tiebreak.engine.tasks import restore, whole

_RESTORED = "what is restored"
OPTIMIZER = "optimizer"
"""What each process keeps its optimizer as."""
MOMENTS = ("exp_avg", "exp_avg_sq", "step")


class Part(Protocol):
    """Something that training needs to go on as if nothing had happened."""

    name: str
    """Of its file in the checkpoint, without the suffix."""

    def tensors(self) -> Mapping[str, Tensor]:
        """Return what is written, on the CPU."""

    def beside(self) -> Sequence[Path]:
        """Return files of the run that the last tensors stand on, called by their SHA-256: verified, never copied."""

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Go back to what `tensors` returned."""


class Weights:
    """The parameters that train."""

    name = "policy"

    def __init__(self, policy: Model) -> None:
        self._policy = policy

    def tensors(self) -> Mapping[str, Tensor]:
        """Return the parameters by their names."""
        faults.point("save:policy")
        return self._policy.ranks.run(_whole_weights, self._policy.key)

    def beside(self) -> Sequence[Path]:
        """Return nothing."""
        return ()

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy the parameters into the policy."""
        ranks = self._policy.ranks
        ranks.kept[_RESTORED] = tensors
        ranks.run(_restore_weights, self._policy.key)


class Moments:
    """AdamW's moments, by parameter."""

    name = "optimizer"

    def __init__(self, policy: Model, optimizer: torch.optim.Optimizer) -> None:
        self._policy = policy
        self._optimizer = optimizer

    def tensors(self) -> Mapping[str, Tensor]:
        """Return the moments of every parameter that was moved."""
        faults.point("save:optimizer")
        ranks = self._policy.ranks
        ranks.kept[OPTIMIZER] = self._optimizer
        return ranks.run(_whole_moments, self._policy.key)

    def beside(self) -> Sequence[Path]:
        """Return nothing."""
        return ()

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Give the optimizer its moments back."""
        ranks = self._policy.ranks
        ranks.kept.update({_RESTORED: tensors, OPTIMIZER: self._optimizer})
        ranks.run(_restore_moments, self._policy.key, sorted(tensors))


def _whole_weights(ranks: Ranks, key: str) -> dict[str, Tensor]:
    """Return what trains; nothing in other processes than the first."""
    return whole(ranks, ranks.kept[key].trainable)


def _whole_moments(ranks: Ranks, key: str) -> dict[str, Tensor]:
    """Return the moments of what trains, in the same way."""
    state = ranks.kept[OPTIMIZER].state
    moments = (
        (f"{name}.{moment}", torch.as_tensor(state[parameter][moment]))
        for name, parameter in ranks.kept[key].trainable
        for moment in MOMENTS
        if moment in state.get(parameter, {})
    )
    return whole(ranks, moments)


def _restore_weights(ranks: Ranks, key: str) -> None:
    """Give what trains the numbers that the first process has read."""
    tensors = ranks.kept.pop(_RESTORED, {})
    for name, parameter in ranks.kept[key].trainable:
        restore(ranks, parameter, tensors.get(name))


def _restore_moments(ranks: Ranks, key: str, names: Sequence[str]) -> None:
    """Give the optimizer the moments that the first process has read, and of other parameters none."""
    state, tensors, known = ranks.kept[OPTIMIZER].state, ranks.kept.pop(_RESTORED, {}), set(names)
    for name, parameter in ranks.kept[key].trainable:
        held = {}
        for moment in MOMENTS:
            if (called := f"{name}.{moment}") in known:
                # A moment lies where its parameter is; AdamW counts steps on the CPU, or where its kernel reads them.
                counts = torch.zeros((), device=parameter.device if parameter.is_cuda else "cpu")
                held[moment] = counts if moment == "step" else torch.zeros_like(parameter.detach())
                restore(ranks, held[moment], tensors.get(called))
        state[parameter] = held


class Streams:
    """The random streams that dropout draws from."""

    name = "random"

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def tensors(self) -> Mapping[str, Tensor]:
        """Return the states of the streams."""
        streams = {"cpu": torch.get_rng_state()}
        if self._device.type == "cuda":
            streams["cuda"] = torch.cuda.get_rng_state(self._device)
        return streams

    def beside(self) -> Sequence[Path]:
        """Return nothing."""
        return ()

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Set the streams."""
        torch.set_rng_state(tensors["cpu"])
        if self._device.type == "cuda" and "cuda" in tensors:
            torch.cuda.set_rng_state(tensors["cuda"], self._device)
