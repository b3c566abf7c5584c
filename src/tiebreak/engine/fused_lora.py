"""The forward pass of a LoRA layer without its intermediate results.

peft writes `result + B(A(x)) * scaling` as four operations that each fill a tensor of the layer's output: a fifth of a
step's memory at its peak. Here the product is added where the result lies, and its gradient is written out. Owns
nothing else: weights, names, saving and merging stay peft's. It enters through its own seam for variants of LoRA.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora.layer import Linear, LoraVariant
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def fuse(model: nn.Module) -> None:
    """Give every plain LoRA layer the fused forward pass; layers with dropout or another variant stay as they are."""
    for layer in _lora_layers(model):
        for adapter, dropout in layer.lora_dropout.items():
            if adapter not in layer.lora_variant and isinstance(dropout, nn.Identity):
                layer.lora_variant[adapter] = FusedLora()


def unfuse(model: nn.Module) -> None:
    """Give peft its own forward pass back; merging needs this."""
    for layer in _lora_layers(model):
        for adapter, variant in list(layer.lora_variant.items()):
            if isinstance(variant, FusedLora):
                del layer.lora_variant[adapter]


def _lora_layers(model: nn.Module) -> list[Any]:
    return [module for module in model.modules() if type(module) is Linear]


class FusedLora(LoraVariant):  # type: ignore[misc]
    """LoRA, Hu et al. 2021, Eq. 3: result + scaling · B A x."""

    @staticmethod
    def forward(module: Any, active_adapter: str, x: Tensor, result: Tensor, **_: Any) -> Tensor:
        """Return the layer's result with the update of one adapter added."""
        down, up = module.lora_A[active_adapter], module.lora_B[active_adapter]
        scaling = module.scaling[active_adapter]
        plain = down.bias is None and up.bias is None and x.dtype == result.dtype == down.weight.dtype
        if not plain:  # arithmetic in another dtype than the weights': the casts are autocast's business
            return result + scaling * up(down(x))  # type: ignore[no-any-return]
        added: Tensor = _AddedInPlace.apply(x, result, down.weight, up.weight, scaling)  # type: ignore[no-untyped-call]
        return added


class _AddedInPlace(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, result: Tensor, down: Tensor, up: Tensor, scaling: float) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        narrow = rows @ down.T
        result.view(-1, result.shape[-1]).addmm_(narrow, up.T, alpha=scaling)
        ctx.mark_dirty(result)
        ctx.save_for_backward(rows, narrow, down, up)
        ctx.scaling = scaling
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        rows, narrow, down, up = ctx.saved_tensors
        by_result = gradient.reshape(-1, gradient.shape[-1])
        by_narrow = (by_result @ up).mul_(ctx.scaling)
        by_x = (by_narrow @ down).view(*gradient.shape[:-1], -1) if ctx.needs_input_grad[0] else None
        by_up = (by_result.T @ narrow).mul_(ctx.scaling)
        return by_x, gradient, by_narrow.T @ rows, by_up, None
