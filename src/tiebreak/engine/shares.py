"""Tensors of which each process holds a share: put together, dealt out, measured as if they were whole.

Owns what is sent of them. Every process calls these functions in the same order; on tensors that are no shares they do
what one process would. One tensor is whole at a time, so what a process needs beside its shares is the largest one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, Shard, distribute_tensor


def full(tensor: Tensor) -> Tensor:
    """Return a tensor whole, without a gradient, in every process."""
    tensor = tensor.detach()
    if not isinstance(tensor, DTensor):
        return tensor
    # Shares that lie in main memory between uses travel as the others do.
    there: Any = tensor.to(tensor.device_mesh.device_type)
    whole: Tensor = there.full_tensor()
    return whole


@torch.no_grad()
def put(into: Tensor, tensor: Tensor | None) -> None:
    """Give a tensor, or the shares of one, the numbers that the first process has; the others hand over None.

    Raises ValueError in every process where what the first has is of another shape.
    """
    device = torch.device(into.device_mesh.device_type) if isinstance(into, DTensor) else into.device
    leads = dist.get_rank() == 0
    fits = torch.tensor(int(not leads or (tensor is not None and tensor.shape == into.shape)), device=device)
    dist.broadcast(fits, src=0)
    if not fits:
        raise ValueError(f"a tensor of shape {list(into.shape)} cannot take the numbers of another shape")
    whole = torch.empty(into.shape, dtype=into.dtype, device=device)
    if leads and tensor is not None:
        whole.copy_(tensor)
    dist.broadcast(whole, src=0)
    if isinstance(into, DTensor):
        # None: each process cuts its share out of what it has, and nothing is sent.
        own = distribute_tensor(whole, into.device_mesh, into.placements, src_data_rank=None)
        local_of(into).copy_(local_of(own))
    else:
        into.copy_(whole)


@torch.no_grad()
def clip(parameters: Iterable[Tensor], most: float) -> Tensor:
    """Scale the gradients of parameters so that their 2-norm is at most `most`; return what it was, fp32."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    found = _norm(gradients)
    factor = (most / (found + 1e-6)).clamp(max=1.0)  # as torch.nn.utils.clip_grad_norm_
    for gradient in gradients:
        local_of(gradient).mul_(factor.to(local_of(gradient).device))
    return found


def _norm(tensors: Sequence[Tensor]) -> Tensor:
    squares: dict[Any, Tensor] = {}
    for tensor in tensors:
        own = local_of(tensor).float().square().sum().double()
        group, device = _sharers(tensor)
        squares[group] = squares.get(group, 0) + own.to(device)
    for group, total in squares.items():
        if group is not None:
            dist.all_reduce(total, group=group)
    return torch.stack([*squares.values()]).sum().sqrt().float() if squares else torch.zeros(())


def _sharers(tensor: Tensor) -> tuple[Any, torch.device]:
    """Return the group of processes that together hold a tensor once, None for this one alone, and where they meet."""
    if not isinstance(tensor, DTensor):
        return None, tensor.device
    mesh = tensor.device_mesh
    [place] = [place for place, placement in enumerate(tensor.placements) if isinstance(placement, Shard)]
    return mesh.get_group(place), torch.device(mesh.device_type)


def local_of(tensor: Tensor) -> Tensor:
    """Return what this process holds of a tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def is_share(tensor: Tensor) -> bool:
    """Whether this process holds a share of a tensor, and not all of it."""
    return isinstance(tensor, DTensor) and any(isinstance(placement, Shard) for placement in tensor.placements)
