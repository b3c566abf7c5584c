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
        return {name: _plain(parameter) for name, parameter in self._policy.trainable}

    def beside(self) -> Sequence[Path]:
        """Return nothing."""
        return ()

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy the parameters into the policy."""
        with torch.no_grad():
            for name, parameter in self._policy.trainable:
                parameter.copy_(tensors[name])


class Moments:
    """AdamW's moments, by parameter."""

    name = "optimizer"

    def __init__(self, policy: Model, optimizer: torch.optim.Optimizer) -> None:
        self._policy = policy
        self._optimizer = optimizer

    def tensors(self) -> Mapping[str, Tensor]:
        """Return the moments of every parameter that was moved."""
        faults.point("save:optimizer")
        state = self._optimizer.state
        return {
            f"{name}.{key}": _plain(torch.as_tensor(state[parameter][key]))
            for name, parameter in self._policy.trainable
            for key in MOMENTS
            if key in state.get(parameter, {})
        }

    def beside(self) -> Sequence[Path]:
        """Return nothing."""
        return ()

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Give the optimizer its moments back."""
        for name, parameter in self._policy.trainable:
            held = {key: tensors[f"{name}.{key}"] for key in MOMENTS if f"{name}.{key}" in tensors}
            # A moment lies where its parameter is; AdamW counts steps on the CPU, or where its one kernel reads them.
            placed = {
                key: value if key == "step" and not parameter.is_cuda else value.to(parameter.device)
                for key, value in held.items()
            }
            self._optimizer.state[parameter] = placed


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


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous()
