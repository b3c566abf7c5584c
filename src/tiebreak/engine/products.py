"""Products of rows with a weight, by the faster of the two libraries that torch has for them on a CPU.

torch gives fp32 products to MKL, which keeps its best code for Intel's processors. On AMD's, oneDNN, which torch ships
as well, is a tenth faster (docs/experiments.md). Owns which of the two computes. The choice hangs on the machine and on
the number of rows alone, so that a run that goes on later computes as it did. docs/decisions/0015 says why a private
operator of torch is used, and what happens where it is not there.
"""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear

BLOCK = 64
"""oneDNN gets multiples of this many rows: it keeps code for every number of rows that it ever met, for good."""
DEAREST_FILLING = 0.04
"""Share of a row that may be filled up to reach a multiple; more would eat the gain."""


def filling(num_rows: int, device: torch.device, dtype: torch.dtype) -> int:
    """Return how many rows to add to `num_rows` so that products become faster; 0 where they would not."""
    if not _is_served(device, dtype):
        return 0
    missing = -num_rows % BLOCK
    return missing if missing <= DEAREST_FILLING * num_rows else 0


def times_weight(
    rows: Float[Tensor, "rows inputs"], weight: Float[Tensor, "outputs inputs"], bias: Tensor | None = None
) -> Float[Tensor, "rows outputs"]:
    """Return rows · weightᵀ + bias, as `torch.nn.functional.linear` does; knows no gradient."""
    if not _by_onednn(rows, weight):
        return linear(rows, weight, bias)
    return _onednn(rows, weight, bias)


def speed_up(model: nn.Module, head: nn.Module | None) -> None:
    """Let the linear layers of a model compute by `times_weight`, where that is faster; its `head` stays as it is."""
    if not onednn_is_faster():
        return
    for module in model.modules():
        if type(module) is nn.Linear and module is not head:
            module.__class__ = FastLinear


class FastLinear(nn.Linear):
    """A linear layer, its values and gradients by `times_weight`."""

    def forward(self, input: Tensor) -> Tensor:
        """Return [..., outputs] of [..., inputs]."""
        if not _by_onednn(input, self.weight):
            return super().forward(input)
        found: Tensor = _Product.apply(input, self.weight, self.bias)  # type: ignore[no-untyped-call]
        return found


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        rows = x.flatten(end_dim=-2)
        # Rows are only needed again for the gradient of the weight.
        ctx.save_for_backward(weight, *((rows,) if ctx.needs_input_grad[1] else ()))
        # Resized, no view: LoRA adds to the result in place, which autograd forbids for views that a function returns.
        return times_weight(rows, weight, bias).resize_(*x.shape[:-1], weight.shape[0])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        weight, *rows = ctx.saved_tensors
        by_x, by_weight, by_bias = ctx.needs_input_grad
        flat = gradient.flatten(end_dim=-2)
        return (
            times_weight(flat, weight.T).view(*gradient.shape[:-1], -1) if by_x else None,
            flat.T @ rows[0] if by_weight else None,
            flat.sum(0) if by_bias else None,
        )


def _by_onednn(rows: Tensor, weight: Tensor) -> bool:
    num = rows.numel() // max(1, rows.shape[-1])
    fits = num > 0 and num % BLOCK == 0 and rows.dtype == weight.dtype
    return fits and _is_served(rows.device, rows.dtype) and not torch.is_autocast_enabled("cpu")


def _is_served(device: torch.device, dtype: torch.dtype) -> bool:
    return device.type == "cpu" and dtype == torch.float32 and onednn_is_faster()


@cache
def onednn_is_faster() -> bool:
    """Whether this is a processor of AMD, and a torch whose operator for oneDNN computes what it should."""
    return _is_amd() and _agrees()


def _is_amd() -> bool:
    try:
        return "AuthenticAMD" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:  # not Linux
        return "AuthenticAMD" in platform.processor()


def _agrees() -> bool:
    rows, weight = (torch.linspace(-1, 1, num * 24).view(num, 24) for num in (BLOCK, 40))
    bias = torch.linspace(0, 1, 40)
    try:
        found = (_onednn(rows, weight, bias), _onednn(rows, weight.T.contiguous().T, None))
    except (AttributeError, RuntimeError, TypeError):  # the operator is gone, or takes other arguments
        return False
    return all(map(torch.allclose, found, (linear(rows, weight, bias), linear(rows, weight))))


def _onednn(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    found: Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")
    return found
