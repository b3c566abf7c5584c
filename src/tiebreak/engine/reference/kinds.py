"""The frozen model that the policy is measured against.

Owns what the reference is. Nobody else can tell which form it has:

- the policy with its adapter switched off, where a new adapter is trained on a base model;
- the policy with another, frozen adapter, where training continues an adapter: the reference is then that adapter as
  it was at the start, and not the bare base model;
- a frozen copy of the model, where all weights are trained;
- another model, where a policy is measured against one;
- a copy of all of these that follows the policy, where that is asked for (see `moving`);
- nothing, where the objective asks none.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import NoReturn, Protocol

import torch

from tiebreak.engine.model import Model
from tiebreak.engine.noise import evaluation_mode
from tiebreak.engine.scorer import Cut
from tiebreak.errors import TrainingError
from tiebreak.maths.logps import TokenLogps
from tiebreak.progress import Progress
from tiebreak.records import Example

REFERENCE_ADAPTER = "reference"


class Reference(Protocol):
    """What the policy is measured against; it never moves unless asked."""

    identity: str
    """What the reference is, in words for manifests and messages."""
    dear: bool
    """Whether asking it holds weights in memory that nothing else needs."""
    model_is_dear: bool
    """The same of `model`: one that remembers may answer without its weights, and has to load them to speak."""

    def logps(self, examples: Sequence[Example]) -> TokenLogps:
        """Return the log-probability of every scored token, without a gradient."""

    def begin(self, examples: Sequence[Example], cut: Cut, progress: Progress) -> None:
        """Get ready for a run on these examples: what is dear to ask is asked now, and its weights let go."""

    def moved(self, step: int) -> Mapping[str, float]:
        """Take notice that the policy took a step: a reference that follows it does so now; return what to record."""

    def model(self) -> AbstractContextManager[Model]:
        """Yield the reference as a model, in evaluation mode: to be asked afresh, to answer, to be told by content."""


class AdapterOff:
    """The policy's base model: its adapter switched off."""

    dear = model_is_dear = False

    def __init__(self, policy: Model) -> None:
        self._policy = policy
        self.identity = f"{policy.source.identity}, adapter switched off"

    def logps(self, examples: Sequence[Example]) -> TokenLogps:
        """Score with the adapter switched off."""
        return _scored(self, examples)

    def begin(self, examples: Sequence[Example], cut: Cut, progress: Progress) -> None:
        """Do nothing: it is asked as training goes, at the price of a forward pass."""

    def moved(self, step: int) -> Mapping[str, float]:
        """Do nothing."""
        return {}

    @contextlib.contextmanager
    def model(self) -> Iterator[Model]:
        """Yield the policy without its adapter; afterwards it is as before."""
        network = self._policy.network
        with evaluation_mode(network), network.disable_adapter():
            yield replace(self._policy, adapter=None)


class OtherAdapter:
    """The policy's base model with another adapter: the one that training started from."""

    dear = model_is_dear = False

    def __init__(self, policy: Model, adapter: str = REFERENCE_ADAPTER) -> None:
        self._policy = policy
        self._adapter = adapter
        self.identity = f"{policy.source.identity}, adapter as it was at the start"

    def logps(self, examples: Sequence[Example]) -> TokenLogps:
        """Score with the other adapter."""
        return _scored(self, examples)

    def begin(self, examples: Sequence[Example], cut: Cut, progress: Progress) -> None:
        """Do nothing: it is asked as training goes, at the price of a forward pass."""

    def moved(self, step: int) -> Mapping[str, float]:
        """Do nothing."""
        return {}

    @contextlib.contextmanager
    def model(self) -> Iterator[Model]:
        """Yield the policy with the other adapter active; afterwards it is as before.

        peft lets only the active adapter require gradients, so this must not surround a policy's backward pass.
        """
        network = self._policy.network
        active = network.active_adapter
        with evaluation_mode(network):
            network.set_adapter(self._adapter)
            try:
                yield replace(self._policy, adapter=self._adapter)
            finally:
                network.set_adapter(active)


class FrozenCopy:
    """A second model that no optimizer sees; it is in memory only while it is needed."""

    dear = model_is_dear = True

    def __init__(self, policy: Model, load: Callable[[], object]) -> None:
        """`load` returns the network as it was at the start, whenever it is called."""
        self._policy = policy
        self._load = load
        self._copy: Model | None = None
        self.identity = f"{policy.source.identity}, frozen copy"

    def logps(self, examples: Sequence[Example]) -> TokenLogps:
        """Score with the copy."""
        return _scored(self, examples)

    def begin(self, examples: Sequence[Example], cut: Cut, progress: Progress) -> None:
        """Let go of the weights; they are loaded again when they are asked for."""
        self._copy = None

    def moved(self, step: int) -> Mapping[str, float]:
        """Do nothing."""
        return {}

    @contextlib.contextmanager
    def model(self) -> Iterator[Model]:
        """Yield the copy."""
        if self._copy is None:
            network = self._load()
            network.requires_grad_(False).eval()  # type: ignore[attr-defined]
            self._copy = self._policy.with_network(network)
        yield self._copy


class Another:
    """Another model, which stands for itself."""

    dear = model_is_dear = False

    def __init__(self, model: Model) -> None:
        self._model = model
        self.identity = model.source.identity

    def logps(self, examples: Sequence[Example]) -> TokenLogps:
        """Score with the model."""
        return _scored(self, examples)

    def begin(self, examples: Sequence[Example], cut: Cut, progress: Progress) -> None:
        """Do nothing."""

    def moved(self, step: int) -> Mapping[str, float]:
        """Do nothing."""
        return {}

    @contextlib.contextmanager
    def model(self) -> Iterator[Model]:
        """Yield the model."""
        with evaluation_mode(self._model.network):
            yield self._model


class Nothing:
    """No reference, for objectives that ask none; whoever asks it has taken the wrong one."""

    identity = "none"
    dear = model_is_dear = False

    def logps(self, examples: Sequence[Example]) -> NoReturn:
        """Refuse."""
        raise TrainingError("this objective has no reference, and nobody may ask one")

    def begin(self, examples: Sequence[Example], cut: Cut, progress: Progress) -> None:
        """Do nothing."""

    def moved(self, step: int) -> Mapping[str, float]:
        """Do nothing."""
        return {}

    def model(self) -> NoReturn:
        """Refuse."""
        raise TrainingError("this objective has no reference, and nobody may ask one")


def _scored(reference: Reference, examples: Sequence[Example]) -> TokenLogps:
    with reference.model() as model, torch.no_grad():
        return model.score(examples)
