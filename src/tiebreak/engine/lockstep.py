"""Passes of a network in shares: all processes make as many, since each pass gathers weights from all of them.

Owns how long weights outside the layers stay whole, and what a process does that has nothing more to ask while others
have.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import FSDPModule

from tiebreak.engine.attention import causal_model, use_plain_attention
from tiebreak.engine.compatibility import probe_pairs
from tiebreak.engine.model import Model
from tiebreak.maths.logps import TokenLogps
from tiebreak.records import Example

T = TypeVar("T")


class Root(nn.Module):
    """A network whose forward pass is whatever is done with its weights: scoring in one layout or another, answering.

    So no use of them passes by the hooks that gather the weights outside the layers, whichever module it begins at.
    """

    def __init__(self, network: Any, device: torch.device, *, reshard_after_forward: bool) -> None:
        super().__init__()
        self.network = network
        self.device = device
        self._reshards = reshard_after_forward
        self._depth, self._keeps = 0, False
        self.holds = False
        """Whether weights outside the layers stay whole although nothing is open."""

    def forward(self, work: Callable[[], T]) -> T:
        """Return what some work with the weights returns; gradients flow through tensors, alone or in a tuple."""
        return work()

    def begin(self) -> None:
        """Get ready, once the weights are there."""
        self._fsdp.set_reduce_scatter_unused_params(True)  # an expert may get no token here, and some elsewhere
        for module in self._shards():
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
        self(lambda: None)  # the first module to pass is the root
        # What weights are gathered into is made now: made within inference_mode, it could never have a gradient.
        for module in self._shards():
            module.unshard()
            module.reshard()

    @contextlib.contextmanager
    def open(self, *, keep: bool = False) -> Iterator[None]:
        """Hold the weights outside the layers for uses without gradient; afterwards nothing is held.

        `keep` holds those outside the layers until the next pass is over.
        """
        if self._depth == 0:
            self._fsdp.set_reshard_after_forward(False, recurse=False)
            if self.holds:  # alone, while the others gather
                self._fsdp.reshard()
                self.holds = False
            self._fsdp.unshard()
        self._depth += 1
        self._keeps = self._keeps or keep
        try:
            yield
        finally:
            self._depth -= 1
            if self._depth == 0:
                self._fsdp.set_reshard_after_forward(self._reshards, recurse=False)
                # Adapters may have been switched meanwhile, which the shares have to know.
                trained = [parameter.requires_grad for parameter in self.network.parameters()]
                self.holds, self._keeps = self._keeps, False
                for module in self._shards():
                    if not (self.holds and module is self._fsdp):
                        module.reshard()
                for parameter, trains in zip(self.network.parameters(), trained, strict=True):
                    parameter.requires_grad_(trains)

    @property
    def is_open(self) -> bool:
        """Whether weights outside the layers are held."""
        return self._depth > 0

    @property
    def _fsdp(self) -> FSDPModule:
        return cast(FSDPModule, self)

    def _shards(self) -> list[FSDPModule]:
        return [module for module in self.modules() if isinstance(module, FSDPModule)]


@contextlib.contextmanager
def lockstep(root: Root) -> Iterator[None]:
    """Within it, each process makes as many passes without gradient as it likes, from whichever module.

    Before each pass it is counted who is still at work; who is not makes a pass of one token, until nobody is. An error
    in one process is raised there at once: the others wait for it until the group's time is over.
    """
    if root.is_open:
        yield
        return
    network = root.network
    backbone = causal_model(network).base_model

    def num_at_work(mine: int) -> int:
        num = torch.tensor(mine, device=root.device)
        dist.all_reduce(num)
        return int(num)

    def before(*_: Any) -> None:
        num_at_work(1)

    with root.open():
        hook = backbone.register_forward_pre_hook(before)
        try:
            yield
        finally:
            hook.remove()
        use_plain_attention(network)
        token = torch.zeros(1, 1, dtype=torch.long, device=root.device)
        while num_at_work(0):
            with torch.no_grad():
                backbone(input_ids=token, use_cache=False)
    if not root.holds:  # or it would let go of that, too
        cast(FSDPModule, root).reset_iter_state()  # what is noted of every pass, for a backward pass that never comes


def idle(policy: Model, said: Callable[[Sequence[Example]], tuple[TokenLogps, Any]] | None = None) -> None:
    """Make the passes of a micro-batch that weighs nothing, in a process that has none left where others have.

    `said` asks what the others ask of theirs, in their order, where that is more than the policy alone.
    """
    probe = probe_pairs(policy.network)[-1:]
    tokens = policy.scorer.tokens(probe) if said is None else said(probe)[0]
    (tokens.values.sum() * 0).backward()  # type: ignore[no-untyped-call]
