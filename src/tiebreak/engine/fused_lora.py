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

from tiebreak.engine.products import FastLinear, times_weight


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
        base = _frozen_weight(module, x)
        if base is not None:
            result = result.detach()  # what the layer itself passes back is written out below, too
        added: Tensor = _AddedInPlace.apply(x, result, base, down.weight, up.weight, scaling)  # type: ignore[no-untyped-call]
        return added


def _frozen_weight(module: Any, x: Tensor) -> Tensor | None:
    """Return the weight below the adapter, where that is a plain matrix, frozen, and no other adapter is at work."""
    base = module.get_base_layer()
    if type(base) not in (nn.Linear, FastLinear) or len(module.active_adapters) > 1:
        return None
    trained = any(parameter.requires_grad for parameter in base.parameters())
    return None if trained or base.weight.dtype != x.dtype else base.weight


class _AddedInPlace(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, result: Tensor, base: Tensor | None, down: Tensor, up: Tensor, scaling: float
    ) -> Tensor:
        rows = x.flatten(end_dim=-2)
        narrow = times_weight(rows, down)
        result.view(-1, result.shape[-1]).addmm_(narrow, up.T, alpha=scaling)
        ctx.mark_dirty(result)
        ctx.save_for_backward(rows, narrow, base, down, up)
        ctx.scaling = scaling
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        rows, narrow, base, down, up = ctx.saved_tensors
        by_result = gradient.flatten(end_dim=-2)
        by_narrow = times_weight(by_result, up.T).mul_(ctx.scaling)
        by_x = None
        if ctx.needs_input_grad[0]:
            by_x = by_narrow @ down if base is None else times_weight(by_result, base.T).addmm_(by_narrow, down)
            by_x = by_x.view(*gradient.shape[:-1], -1)
        by_up = (by_result.T @ narrow).mul_(ctx.scaling)
        return by_x, None if base is not None else gradient, None, by_narrow.T @ rows, by_up, None
