"""The frozen model that the policy is measured against.

Owns what the reference is. The loop cannot tell which form it has:

- the policy with its adapter switched off, where a new adapter is trained on a base model;
- the policy with another, frozen adapter, where training continues an adapter: the reference is then that adapter as
  it was at the start, and not the bare base model;
- a frozen copy of the model, where all weights are trained.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import nn

from tiebreak.engine.attention import causal_model
from tiebreak.engine.scorer import Scorer
from tiebreak.engine.weights import weights_digest
from tiebreak.maths.logps import TokenLogps
from tiebreak.records import TokenizedPair

REFERENCE_ADAPTER = "reference"


class Reference(Protocol):
    """A model that never moves."""

    identity: str
    """What the reference is, in words for manifests and messages."""

    def tokens(self, pairs: Sequence[TokenizedPair]) -> TokenLogps:
        """Return the log-probability of every scored token, without a gradient."""

    def digest(self) -> str:
        """Return the fingerprint of the weights and settings that the values depend on."""

    def model(self) -> contextlib.AbstractContextManager[nn.Module]:
        """Yield the reference as a model in evaluation mode, for generation."""


class AdapterOff:
    """The policy's base model: its adapter switched off."""

    def __init__(self, policy: Any, scorer: Scorer, identity: str) -> None:
        self._policy = policy
        self._scorer = scorer
        self.identity = f"{identity}, adapter switched off"

    def tokens(self, pairs: Sequence[TokenizedPair]) -> TokenLogps:
        """Score with the adapter switched off."""
        with self.model() as model, torch.no_grad():
            return self._scorer.tokens(model, pairs)

    def digest(self) -> str:
        """Return the fingerprint of the base model."""
        return weights_digest(self._policy, causal_model(self._policy).config)

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

    def tokens(self, pairs: Sequence[TokenizedPair]) -> TokenLogps:
        """Score with the starting adapter."""
        with self.model() as model, torch.no_grad():
            return self._scorer.tokens(model, pairs)

    def digest(self) -> str:
        """Return the fingerprint of the base model with the starting adapter."""
        return weights_digest(self._policy, causal_model(self._policy).config, REFERENCE_ADAPTER)

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
    """A second model that no optimizer sees; it is in memory only while it is needed."""

    def __init__(self, load: Callable[[], nn.Module], scorer: Scorer, identity: str) -> None:
        """`load` returns the weights as they were at the start, whenever it is called."""
        self._load = load
        self._copy: nn.Module | None = None
        self._scorer = scorer
        self.identity = f"{identity}, frozen copy"

    def release(self) -> None:
        """Let go of the weights; they are loaded again when they are asked for."""
        self._copy = None

    def tokens(self, pairs: Sequence[TokenizedPair]) -> TokenLogps:
        """Score with the copy."""
        with self.model() as model, torch.no_grad():
            return self._scorer.tokens(model, pairs)

    def digest(self) -> str:
        """Return the fingerprint of the copy."""
        with self.model() as model:
            return weights_digest(model, model.config)

    @contextlib.contextmanager
    def model(self) -> Iterator[nn.Module]:
        """Yield the copy."""
        if self._copy is None:
            self._copy = self._load().requires_grad_(False).eval()
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
