"""The frozen model that the policy is measured against.

Owns what the reference is. The loop cannot tell which form it has:

- the policy with its adapter switched off, where a new adapter is trained on a base model;
- the policy with another, frozen adapter, where training continues an adapter: the reference is then that adapter as
  it was at the start, and not the bare base model;
- a frozen copy of the model, where all weights are trained.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import nn

from tiebreak.engine.scorer import Scorer
from tiebreak.maths.losses import PairLogps
from tiebreak.records import TokenizedPair

REFERENCE_ADAPTER = "reference"


class Reference(Protocol):
    """A model that never moves."""

    identity: str
    """What the reference is, in words for manifests and messages."""

    def logps(self, pairs: Sequence[TokenizedPair]) -> PairLogps:
        """Return the reference's log-probabilities, without a gradient."""

    def model(self) -> contextlib.AbstractContextManager[nn.Module]:
        """Yield the reference as a model in evaluation mode, for generation."""


class AdapterOff:
    """The policy's base model: its adapter switched off."""

    def __init__(self, policy: Any, scorer: Scorer, identity: str) -> None:
        self._policy = policy
        self._scorer = scorer
        self.identity = f"{identity}, adapter switched off"

    def logps(self, pairs: Sequence[TokenizedPair]) -> PairLogps:
        """Score with the adapter switched off."""
        with self.model() as model, torch.no_grad():
            return self._scorer(model, pairs)

    @contextlib.contextmanager
    def model(self) -> Iterator[nn.Module]:
        """Yield the policy without its adapter; afterwards it is as before."""
        with evaluation_mode(self._policy), self._policy.disable_adapter():
            yield self._policy


class OtherAdapter:
    """The policy's base model with the adapter that training started from."""

    def __init__(self, policy: Any, scorer: Scorer, identity: str) -> None:
        self._policy = policy
        self._scorer = scorer
        self.identity = f"{identity}, adapter as it was at the start"

    def logps(self, pairs: Sequence[TokenizedPair]) -> PairLogps:
        """Score with the starting adapter."""
        with self.model() as model, torch.no_grad():
            return self._scorer(model, pairs)

    @contextlib.contextmanager
    def model(self) -> Iterator[nn.Module]:
        """Yield the policy with the starting adapter active; afterwards it is as before.

        peft lets only the active adapter require gradients, so this must not surround a policy's backward pass.
        """
        active = self._policy.active_adapter
        with evaluation_mode(self._policy):
            self._policy.set_adapter(REFERENCE_ADAPTER)
            try:
                yield self._policy
            finally:
                self._policy.set_adapter(active)


class FrozenCopy:
    """A second model that no optimizer sees."""

    def __init__(self, copy: nn.Module, scorer: Scorer, identity: str) -> None:
        self._copy = copy.requires_grad_(False).eval()
        self._scorer = scorer
        self.identity = f"{identity}, frozen copy"

    def logps(self, pairs: Sequence[TokenizedPair]) -> PairLogps:
        """Score with the copy."""
        with torch.no_grad():
            return self._scorer(self._copy, pairs)

    @contextlib.contextmanager
    def model(self) -> Iterator[nn.Module]:
        """Yield the copy."""
        yield self._copy


@contextlib.contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Switch dropout off for a while."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
