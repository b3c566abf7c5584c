"""Products of rows with a weight, by the faster of the two libraries that torch has for them on a CPU.

torch gives fp32 products to MKL. oneDNN, which torch ships as well, is faster on some processors, for some sizes of
weights: on AMD's by a tenth and more (docs/experiments.md). Owns which of the two computes. The choice hangs on the
machine, which is asked (`engine.probes`), on the size of the weight and on the number of rows, so that a run that goes
on later computes as it did. docs/decisions/0015 says why a private operator of torch is used, and what happens where it
is not there.
"""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear

from tiebreak.engine.probes import Way, are_real, is_faster, known

BLOCK = 64
"""oneDNN gets multiples of this many rows: it keeps code for every number of rows that it ever met, for good."""
DEAREST_FILLING = 0.04
"""Share of a row that may be filled up to reach a multiple; more would eat the gain."""


LEAST_WEIGHT = 2**13
"""Numbers in a weight below which the call costs as much as the product, so that there is nothing to gain."""
LARGE_WEIGHT = 2**22
"""From which on fewer rows are measured: it takes long, and tells as much."""
FASTER_BY = 1.03
"""What oneDNN has to gain: filled rows cost up to 4 %, and 1 to 2 on average."""


def filling(num_rows: int, model: nn.Module, device: torch.device, dtype: torch.dtype) -> int:
    """Return how many rows to add to `num_rows` so that a model's products become faster; 0 where they would not."""
    if device.type != "cpu" or dtype != torch.float32 or not is_sped_up(model):
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
    """Let the linear layers of a model compute by `times_weight` where that is faster; its `head` stays as it is."""
    for module in model.modules():
        if type(module) is nn.Linear and ask(module.weight) and module is not head:
            module.__class__ = FastLinear


def ask(weight: Tensor) -> bool:
    """Ask the machine how products with a weight are fastest, before there are any; whether it is by oneDNN.

    Products that asked while a run trains would be answered after it has kept what it goes by.
    """
    if weight.dtype != torch.float32 or weight.device.type != "cpu" or weight.numel() < LEAST_WEIGHT:
        return False
    if _serves():
        is_faster(_question(*weight.shape), partial(_ways, *weight.shape), FASTER_BY)
    return onednn_is_faster(*weight.shape)


def is_sped_up(model: nn.Module) -> bool:
    """Whether some layer of a model computes by `times_weight`."""
    return any(type(module) is FastLinear for module in model.modules())


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
    fits = num > 0 and num % BLOCK == 0 and rows.dtype == weight.dtype == torch.float32
    if not fits or rows.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
        return False
    return onednn_is_faster(*(weight.shape if weight.is_contiguous() else weight.shape[::-1]))


def onednn_is_faster(outputs: int, inputs: int) -> bool:
    """Whether products with a weight of a size, and with it turned, are faster by oneDNN; no, where nobody asked."""
    return bool(known(_question(outputs, inputs))) and _serves()


def _serves() -> bool:
    return are_real() and _agrees()  # in this order: what is found without numbers would be remembered


def _question(outputs: int, inputs: int) -> str:
    return f"oneDNN, fp32, a weight of {outputs} x {inputs}"


def _ways(outputs: int, inputs: int) -> tuple[Way, Way]:
    """Return a product of rows with a weight, and one with it turned, as in a backward pass, by oneDNN and as usual."""
    num_rows = BLOCK * (8 if outputs * inputs < LARGE_WEIGHT else 2)
    shapes = (outputs, inputs), (num_rows, inputs), (num_rows, outputs)
    weight, rows, slopes = (torch.randn(shape, dtype=torch.float32, device="cpu") for shape in shapes)
    return (
        lambda: (_onednn(rows, weight, None), _onednn(slopes, weight.T, None)),
        lambda: (linear(rows, weight), linear(slopes, weight.T)),
    )


@cache
def _agrees() -> bool:
    """Whether this torch has an operator for oneDNN, and it computes what it should."""
    kind: dict[str, Any] = {"dtype": torch.float32, "device": "cpu"}
    rows, weight = (torch.linspace(-1, 1, num * 24, **kind).view(num, 24) for num in (BLOCK, 40))
    bias = torch.linspace(0, 1, 40, **kind)
    try:
        found = (_onednn(rows, weight, bias), _onednn(rows, weight.T.contiguous().T, None))
    except (AttributeError, RuntimeError, TypeError):  # the operator is gone, or takes other arguments
        return False
    return all(map(torch.allclose, found, (linear(rows, weight, bias), linear(rows, weight))))


def _onednn(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    found: Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")
    return found
