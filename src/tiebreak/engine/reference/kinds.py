"""The frozen model that the policy is measured against.

Owns what the reference is. Nobody else can tell which form it has:

- the policy with its adapter switched off, where the reference is the base model;
- the policy with another, frozen adapter, where it is an adapter on that: the one that training continues, as it was at
  the start, or the one that is named;
- a frozen copy, where all weights are trained, or of a model on another base;
- another model, where a policy is measured against one;
- a copy of all of these that follows the policy, where that is asked for (see `moving`);
- nothing, where the objective asks none.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Protocol

import torch

from tiebreak.engine.model import Model
from tiebreak.engine.noise import evaluation_mode
from tiebreak.engine.ranks import Alone, Ranks
from tiebreak.engine.scorer import Cut
from tiebreak.engine.sources import Source
from tiebreak.maths.distributions import Statistic
from tiebreak.maths.logps import TokenLogps
from tiebreak.progress import Progress
from tiebreak.records import Example

REFERENCE_ADAPTER = "reference"


class Asked(Protocol):
    """What a step asks of a reference."""

    def logps(self, examples: Sequence[Example], beside: Statistic | None = None) -> TokenLogps:
        """Return the log-probability of every scored token, and what a statistic says of its distribution, without a
        gradient.
        """

    def model(self) -> AbstractContextManager[Model]:
        """Yield the reference as a model, in evaluation mode: to be asked afresh, to answer, to be told by content."""


class Reference(Asked, Protocol):
    """What the policy is measured against; it never moves unless asked."""

    identity: str
    """What the reference is, in words for manifests and messages."""
    dear: bool
    """Whether asking it holds weights in memory that nothing else needs."""
    model_is_dear: bool
    """The same of `model`: one that remembers may answer without its weights, and has to load them to speak."""

    @property
    def source(self) -> Source:
        """Where its weights come from."""

    @property
    def num_bytes(self) -> int:
        """Bytes of weights that asking its `model` brings into memory, beside the policy's."""

    @property
    def is_kept(self) -> bool:
        """Whether a run keeps a copy of it: an adapter, which is small."""

    def begin(self, examples: Sequence[Example], cut: Cut, progress: Progress) -> None:
        """Get ready for a run on these examples: what is dear to ask is asked now, and its weights let go."""

    def moved(self, step: int) -> Mapping[str, float]:
        """Take notice that the policy took a step: a reference that follows it does so now; return what to record."""


class AdapterOff:
    """The policy's base model: its adapter switched off."""

    dear = model_is_dear = is_kept = False
    num_bytes = 0

    def __init__(self, policy: Model, source: Source) -> None:
        """`source` is that of the base model."""
        self._policy = policy
        self.source = source
        self.identity = f"{source.told}, adapter switched off"

    def logps(self, examples: Sequence[Example], beside: Statistic | None = None) -> TokenLogps:
        """Score with the adapter switched off."""
        return asked_now(self, examples, beside)

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
            yield replace(self._policy, adapter=None, source=self.source)


class OtherAdapter:
    """The policy's base model with another adapter: the one that training started from, or one that is named."""

    dear = model_is_dear = False
    is_kept = True
    num_bytes = 0

    def __init__(self, policy: Model, source: Source, adapter: str = REFERENCE_ADAPTER) -> None:
        """`source` is that of the other adapter."""
        self._policy = policy
        self._adapter = adapter
        self.source = source
        is_start = source is policy.source
        self.identity = f"{source.told}, {'adapter as it was at the start' if is_start else 'another adapter'}"

    def logps(self, examples: Sequence[Example], beside: Statistic | None = None) -> TokenLogps:
        """Score with the other adapter."""
        return asked_now(self, examples, beside)

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
                yield replace(self._policy, adapter=self._adapter, source=self.source)
            finally:
                network.set_adapter(active)


class FrozenCopy:
    """A second model that no optimizer sees; it is in memory only while it is needed."""

    dear = model_is_dear = True
    is_kept = False

    def __init__(
        self,
        source: Source,
        load: Callable[[], Model],
        size: Callable[[], int],
        ranks: Ranks | None = None,
        key: str = "reference",
    ) -> None:
        """`load` returns the model whenever it is called, `size` its bytes; the ranks keep it under a key."""
        self.source = source
        self._load = load
        self._size = size
        self._ranks, self._key = ranks or Alone(), key
        on = f" on {source.base_identity}" if source.adapter else ""
        self.identity = f"{source.told}{on}, frozen copy"

    @property
    def num_bytes(self) -> int:
        """Bytes of its weights."""
        return self._size()

    def logps(self, examples: Sequence[Example], beside: Statistic | None = None) -> TokenLogps:
        """Score with the copy."""
        return asked_now(self, examples, beside)

    def begin(self, examples: Sequence[Example], cut: Cut, progress: Progress) -> None:
        """Let go of the weights; they are loaded again when they are asked for."""
        self._ranks.run(_let_go, self._key)

    def moved(self, step: int) -> Mapping[str, float]:
        """Do nothing."""
        return {}

    @contextlib.contextmanager
    def model(self) -> Iterator[Model]:
        """Yield the copy."""
        if self._key not in self._ranks.kept:
            found = self._load()
            found.network.requires_grad_(False).eval()
            self._ranks.kept[self._key] = found
        yield self._ranks.kept[self._key]


def _let_go(ranks: Ranks, key: str) -> None:
    ranks.kept.pop(key, None)


class Another:
    """Another model, which stands for itself."""

    dear = model_is_dear = is_kept = False
    num_bytes = 0

    def __init__(self, model: Model) -> None:
        self._model = model
        self.source = model.source
        self.identity = model.source.identity

    def logps(self, examples: Sequence[Example], beside: Statistic | None = None) -> TokenLogps:
        """Score with the model."""
        return asked_now(self, examples, beside)

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


def asked_now(reference: Asked, examples: Sequence[Example], beside: Statistic | None = None) -> TokenLogps:
    """Return what a reference says as the model that it is, whatever it has stored."""
    with reference.model() as model, torch.no_grad():
        return model.score(examples, beside)
