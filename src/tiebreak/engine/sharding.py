"""Weights over several processes: a share of them in each (FSDP2), or all of them, read once by the first process.

Owns which weights are gathered together and for how long, and how they come from the first process, which alone reads
files, proves and decides: the others get its model without the numbers, and then the numbers, one tensor after the
other. Every process calls these functions in the same order. docs/decisions/0027 says why it is so.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor

from tiebreak.engine.attention import causal_model, layers_of, use_plain_attention
from tiebreak.engine.lockstep import Root, lockstep
from tiebreak.engine.model import Model
from tiebreak.engine.scorer import Scorer, Whole
from tiebreak.engine.shares import is_share, local_of, put
from tiebreak.errors import TrainingError
from tiebreak.maths.distributions import Statistic
from tiebreak.maths.logps import TokenLogps
from tiebreak.records import Example

E = TypeVar("E", bound=Example)
TORCH = (2, 13)
"""The first version that lets ranks use different experts, and forgets passes that no backward pass follows."""


def mesh_of(device: torch.device, copies: int = 1) -> DeviceMesh:
    """Return all processes as so many copies of the weights, neighbours sharing one; one copy is fsdp, more are hsdp.

    Raises TrainingError where they cannot be divided so, or torch is too old.
    """
    size = dist.get_world_size()
    if tuple(map(int, torch.__version__.split(".")[:2])) < TORCH:
        raise TrainingError(
            f"distributed.strategy: weights in shares need torch {'.'.join(map(str, TORCH))}, and this is "
            f"{torch.__version__}; update torch, or take ddp"
        )
    if size % copies or size // copies < 2:
        raise TrainingError(
            f"distributed.strategy: {size} processes cannot hold {copies} copies of the weights, each in 2 shares or "
            "more; start as many on every machine, or take ddp"
        )
    if copies == 1:
        return init_device_mesh(device.type, (size,), mesh_dim_names=("shares",))
    return init_device_mesh(device.type, (copies, size // copies), mesh_dim_names=("copies", "shares"))


def shard(model: Model | None, mesh: DeviceMesh, *, reshard_after_forward: bool, cpu_offload: bool) -> Model:
    """Return the first process's model with a share of its weights here; the others hand over None.

    The first lets go of each tensor as it is sent, so it needs memory for all of them once, where they were loaded, and
    every process needs room for the largest on its device, beside its shares. A layer is gathered while it computes;
    what is outside the layers (embedding, last norm, head), for the whole of a pass. Gradients come out summed over
    processes, not averaged. fp32 weights of a model that computes in bf16 are gathered as bf16 in the layers, and their
    gradients added up in fp32. Raises TrainingError where weights cannot be shared.
    """
    found, weights = _told(model, keep=False)
    network, device = found.network, torch.device(mesh.device_type)
    root = Root(network, device, reshard_after_forward=reshard_after_forward)
    offload = CPUOffloadPolicy(pin_memory=device.type == "cuda") if cpu_offload else OffloadPolicy()
    shared: dict[str, Any] = {"mesh": mesh, "reshard_after_forward": reshard_after_forward, "offload_policy": offload}
    # The backward pass would keep each of autocast's own casts, and so all weights, whole.
    narrow = MixedPrecisionPolicy(param_dtype=found.dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for layer in _layers(network):
        is_wide = found.dtype != torch.float32 and all(p.dtype == torch.float32 for p in layer.parameters())
        fully_shard(layer, mp_policy=narrow if is_wide else MixedPrecisionPolicy(), **shared)
    fully_shard(root, **shared)
    _fill(network, weights, device, rest=torch.device("cpu") if cpu_offload else device)
    root.begin()
    scorer = Sharded(found.scorer.of(network, device), root)
    return replace(found, device=device, scorer=scorer, asked=partial(lockstep, root), in_shares=True)


def replicate(model: Model | None, device: torch.device) -> Model:
    """Return the first process's model with all of its weights here; the others hand over None.

    Those of the first stay where they are, on `device`; every process needs room for the largest beside them.
    """
    leads = model is not None
    found, weights = _told(model, keep=True)
    _fill(found.network, weights, device) if not leads else _send(found.network)
    return replace(found, device=device, scorer=found.scorer.of(found.network, device))


def require_sharded(model: Model) -> None:
    """Raise TrainingError unless every parameter lies in shares, and this process holds its part of the bytes alone."""
    parameters = [*model.network.named_parameters()]
    if whole := [name for name, parameter in parameters if not is_share(parameter)]:
        raise TrainingError(
            f"distributed.strategy: {len(whole)} of {len(parameters)} parameters are not in shares (the first: "
            f"{whole[0]}); nothing was trained"
        )
    held = sum(local_of(p).untyped_storage().nbytes() for _, p in parameters)
    most = sum(_largest_share(p) for _, p in parameters)
    if held > most:
        raise TrainingError(
            f"distributed.strategy: this process holds {held:,} bytes of weights, and its shares are at most {most:,}; "
            "nothing was trained"
        )


class Sharded:
    """A scorer of a network in shares: what it asks of the weights, it asks while those outside the layers are whole.

    A pass without gradient lets go of all weights of other processes.
    """

    def __init__(self, scorer: Scorer, root: Root) -> None:
        self._scorer = scorer
        self._root = root
        self.layout = scorer.layout

    def micro_batches(self, examples: Sequence[E], token_budget: int) -> list[list[E]]:
        """Group as the scorer does."""
        return self._scorer.micro_batches(examples, token_budget)

    def num_tokens(self, examples: Sequence[Example]) -> int:
        """Return what the scorer says."""
        return self._scorer.num_tokens(examples)

    def tokens(
        self, examples: Sequence[Example], beside: Statistic | None = None, against: Whole | None = None
    ) -> TokenLogps:
        """Return what the scorer says."""
        if not torch.is_grad_enabled():
            with self._root.open():
                return self._scorer.tokens(examples, beside, against)
        said: list[TokenLogps] = []

        def work() -> tuple[Tensor, Tensor | None]:
            said.append(self._scorer.tokens(examples, beside, against))
            return said[0].values, said[0].divergences

        # Through the root's own hooks: they gather its weights again for the backward pass of these tensors.
        values, apart = self._root(work)
        return replace(said[0], values=values, divergences=apart)

    def whole(self, examples: Sequence[Example]) -> Whole:
        """Return what the scorer says; the head stays whole after it, for whoever asks for distributions."""
        with self._root.open(keep=True):
            return self._scorer.whole(examples)

    def read(self, examples: Sequence[Example]) -> tuple[TokenLogps, Tensor]:
        """Return what the scorer says."""
        with self._root.open():
            return self._scorer.read(examples)

    def of(self, network: Any, device: torch.device | None = None) -> Scorer:
        """Return the scorer for another network, which is in no shares."""
        return self._scorer.of(network, device)


# ----------------------------------------------------------------------------------------------- from the first process


def _told(model: Model | None, *, keep: bool) -> tuple[Model, dict[str, Tensor]]:
    """Return the first process's model everywhere, and in the first what its parameters were.

    The parameters are empty (on the meta device); those of the first process stay where `keep` says so.
    """
    sent: list[Any] = [None]
    if model is not None:
        use_plain_attention(model.network)  # the others would not know what to switch back to
        if odd := [name for name, p in model.network.named_parameters() if type(p) is not nn.Parameter]:
            raise TrainingError(
                f"distributed.strategy: weights such as {odd[0]} are of a kind of their own (quantised) and cannot be "
                "sent to other processes; take a base model of floats"
            )
        empty = {id(p): _empty(p) for p in model.network.parameters()}
        buffers = {id(b): b.detach().cpu().clone() for b in model.network.buffers()}
        # Everything but numbers: layers that were exchanged, noise that was switched off, the layout that was proven.
        sent = [copy.deepcopy(model, {**empty, **buffers})]
    dist.broadcast_object_list(sent, src=0)
    if model is None:
        return sent[0], {}
    weights = {name: parameter.detach() for name, parameter in model.network.named_parameters()}
    if not keep:
        _exchange(model.network, empty)
    return model, weights


def _empty(parameter: nn.Parameter) -> nn.Parameter:
    held = torch.empty(parameter.shape, dtype=parameter.dtype, device="meta")
    return nn.Parameter(held, requires_grad=parameter.requires_grad)


def _exchange(network: nn.Module, by: Mapping[int, nn.Parameter]) -> None:
    """Put other parameters in the place of a network's, tied ones in all of their places."""
    for module in network.modules():
        for name, parameter in [*module.named_parameters(recurse=False, remove_duplicate=False)]:
            if id(parameter) in by:
                setattr(module, name, by[id(parameter)])


def _fill(
    network: nn.Module, weights: dict[str, Tensor], device: torch.device, rest: torch.device | None = None
) -> None:
    """Give empty parameters, whole or in shares, room and what the first process has in `weights`.

    They `rest` on a device between uses, that of the arithmetic unless given; buffers are always there.
    """
    for module in network.modules():
        for name, buffer in [*module.named_buffers(recurse=False)]:
            setattr(module, name, buffer.to(device))
    for name, parameter in [*network.named_parameters()]:
        room = torch.empty_like(local_of(parameter), device=rest or device)
        if isinstance(parameter, DTensor):
            mesh, placements = parameter.device_mesh, parameter.placements
            shape, stride = parameter.shape, parameter.stride()
            room = DTensor.from_local(room, mesh, placements, run_check=False, shape=shape, stride=stride)
        filled = nn.Parameter(room, requires_grad=parameter.requires_grad)
        _exchange(network, {id(parameter): filled})
        put(filled, weights.pop(name, None))


def _send(network: nn.Module) -> None:
    for _, parameter in network.named_parameters():
        put(parameter, parameter)


def _layers(network: Any) -> list[nn.Module]:
    """Return the decoder layers, each of which is gathered on its own; raises TrainingError where there are none."""
    if (found := layers_of(network)) is None:
        causal = causal_model(network)
        raise TrainingError(
            f"distributed.strategy: {type(causal).__name__} has no list of its "
            f"{causal.config.get_text_config().num_hidden_layers} layers, by which weights are shared; take ddp"
        )
    return found


def _largest_share(parameter: Tensor) -> int:
    """Return the bytes of a tensor that a process may hold, the rows that make all shares equally long included."""
    assert isinstance(parameter, DTensor)  # noqa: S101 - `require_sharded` has looked
    [size] = [parameter.device_mesh.size(place) for place, one in enumerate(parameter.placements) if one.is_shard()]
    rows = -(-parameter.shape[0] // size)
    return rows * (parameter.numel() // parameter.shape[0]) * parameter.element_size()
