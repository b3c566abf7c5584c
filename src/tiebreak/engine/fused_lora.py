"""The forward pass of a LoRA layer without its intermediate results.

peft writes `result + B(A(x)) * scaling` as four operations that each fill a tensor of the layer's output: a fifth of a
step's memory at its peak. Here the product is added where the result lies, and its gradient is written out. Owns
which layers that is right for, and nothing else: weights, names, saving and merging stay peft's. It enters through its
own seam for variants of LoRA.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from peft.tuners.lora.layer import Linear, LoraVariant
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call

from tiebreak.engine.products import BLOCK, FastLinear, ask, times_weight
from tiebreak.errors import one_line

BASES = (nn.Linear, FastLinear)
"""What may lie below a fused adapter, and no subclass of these: one may return a view (Conv1D), or something else."""
TOLERANCE = 1e-5
"""Of a value or a gradient, relative to its size: the rounding of two ways to add the same fp32 numbers."""
AS_EXACT = 2.0
"""In narrow numbers, how much farther than peft's own the result may be from one in float64: what is rounding shows no
fault. Measured: 0.90 to 0.98, of layers of a few rows and columns up to 1.3; a fault of 3 % is ten."""


def fuse(model: nn.Module, say: Callable[[str], None] = lambda _: None) -> None:
    """Give LoRA on plain linear layers the fused forward pass, where it is proven to be peft's, gradients included.

    Each kind of layer is proven on one of the model's own, by random rows and random factors: B is zero at the start,
    and gradients of A would vanish. Weights and random streams stay as they are. Served are layers
    all in fp32 or all in fp64, and on a CPU fp32 factors on a bf16 base. Layers with dropout, of another variant of
    LoRA, on other bases or in other widths keep peft's forward pass; so does a kind that fails, told in one line.
    """
    found: dict[tuple[Any, ...], str | None] = {}
    layers = [layer for layer in _lora_layers(model) if type(layer.base_layer) in BASES]
    for layer in layers:
        for adapter in layer.lora_A:
            if _is_plain(layer, adapter):
                ask(layer.lora_A[adapter].weight)
                ask(layer.lora_B[adapter].weight)
        for adapter in layer.active_adapters:
            if _is_plain(layer, adapter) and _kind(layer, adapter) not in found:
                found[_kind(layer, adapter)] = _flaw(layer, adapter)
    for layer in layers:
        for adapter in layer.lora_A:
            if _is_plain(layer, adapter) and found.get(_kind(layer, adapter), "never at work") is None:
                layer.lora_variant[adapter] = FusedLora()
        # The fused one takes rows as they come, and peft would widen them first, for nobody.
        layer.cast_input_dtype_enabled = not _takes_all(layer)
        if _widens_again not in layer._forward_pre_hooks.values():
            layer.register_forward_pre_hook(_widens_again)
    for (base, *_), flaw in found.items():
        if flaw:
            say(f"LoRA on {base.__name__} keeps peft's own forward pass, with more memory and the same results: {flaw}")


def unfuse(model: nn.Module) -> None:
    """Give peft its own forward pass back; merging needs this."""
    for layer in _lora_layers(model):
        for adapter, variant in list(layer.lora_variant.items()):
            if isinstance(variant, FusedLora):
                del layer.lora_variant[adapter]
        layer.cast_input_dtype_enabled = True


def _lora_layers(model: nn.Module) -> list[Any]:
    return [module for module in model.modules() if type(module) is Linear]


def _widens_again(layer: Any, _: Any) -> None:
    """Let peft widen rows of a layer that got an adapter since it was fused: peft's own forward pass needs it."""
    if not layer.cast_input_dtype_enabled:
        layer.cast_input_dtype_enabled = not _takes_all(layer)


def _takes_all(layer: Any) -> bool:
    return all(isinstance(layer.lora_variant.get(adapter), FusedLora) for adapter in layer.lora_A)


def _is_plain(layer: Any, adapter: str) -> bool:
    """Whether an adapter is LoRA as in the paper, in numbers that are served, and not fused yet."""
    if adapter not in layer.lora_A or adapter in layer.lora_variant:
        return False
    factors = {layer.lora_A[adapter].weight.dtype, layer.lora_B[adapter].weight.dtype}
    wide = factors in ({torch.float32}, {torch.float64}) and {layer.base_layer.weight.dtype} == factors
    return isinstance(layer.lora_dropout[adapter], nn.Identity) and (wide or _is_mixed(layer, factors))


def _is_mixed(layer: Any, factors: set[torch.dtype]) -> bool:
    """Whether factors of fp32 are trained on a base in bf16, on a CPU: there autocast goes by the same products."""
    base = layer.base_layer.weight
    return factors == {torch.float32} and base.dtype == torch.bfloat16 and base.device.type == "cpu"


def _kind(layer: Any, adapter: str) -> tuple[Any, ...]:
    """Return what the fused forward pass may depend on, but for shapes."""
    base, up = layer.base_layer, layer.lora_B[adapter]
    return type(base), base.weight.dtype, base.weight.device, base.bias is None, up.bias is None


def _flaw(layer: Any, adapter: str) -> str | None:
    """Return how the fused forward pass differs from peft's on an adapter that is at work, in words; None where not."""
    draw = torch.Generator().manual_seed(0)
    weight = layer.base_layer.weight

    def drawn(*shape: int, like: Tensor) -> Tensor:
        return torch.randn(shape, generator=draw).to(like).requires_grad_()

    factors = {name: drawn(*one.shape, like=one) for name, one in layer.named_parameters() if f".{adapter}." in name}
    # Rows as a batch, as a list of tokens, and not one after the other in memory.
    inputs = [drawn(2, BLOCK // 2, layer.in_features, like=weight), drawn(5, layer.in_features, like=weight)]
    inputs.append(drawn(3, 2, layer.in_features, like=weight).transpose(0, 1))
    slopes = [drawn(*rows.shape[:-1], layer.out_features, like=weight) for rows in inputs]
    narrow = weight.dtype == torch.bfloat16

    def computed(*, exactly: bool = False) -> list[Tensor]:
        asked = [one.detach().to(torch.float64 if exactly else one.dtype) for one in (*inputs, *factors.values())]
        for one in asked:
            one.requires_grad_()
        rows, named = asked[: len(inputs)], dict(zip(factors, asked[len(inputs) :], strict=True))
        rest = {name: one.double() for name, one in layer.named_parameters() if exactly and name not in named}
        with torch.autocast(weight.device.type, torch.bfloat16, enabled=narrow and not exactly):
            results = [functional_call(layer, rest | named, (one,)) for one in rows]
        gradients = torch.autograd.grad(results, asked, [slope.to(results[0].dtype) for slope in slopes])
        return [*(result.detach() for result in results), *gradients]

    try:
        with torch.enable_grad():
            theirs, exact = computed(), computed(exactly=True) if narrow else None
            layer.lora_variant[adapter], layer.cast_input_dtype_enabled = FusedLora(), not narrow
            fused = computed()
    except RuntimeError as error:
        return one_line(error, 160)
    finally:
        layer.lora_variant.pop(adapter, None)
        layer.cast_input_dtype_enabled = True
    if exact is None:
        apart = torch.stack([*map(_apart, fused, theirs)]).max()  # NaN, where one is
        return None if apart <= TOLERANCE else f"the fused one differs by {apart:.2g} of its size"
    ways = [torch.stack([*map(_apart, way, exact)]) for way in (fused, theirs)]
    farther = (ways[0] / ways[1]).max()
    return None if farther <= AS_EXACT else f"the fused one is {farther:.2g} times as far from the exact result"


def _apart(one: Tensor, other: Tensor) -> Tensor:
    found: Tensor = (one.to(other.dtype) - other).norm() / other.norm()
    return found


class FusedLora(LoraVariant):  # type: ignore[misc]
    """LoRA, Hu et al. 2021, Eq. 3: result + scaling · B A x."""

    @staticmethod
    def forward(module: Any, active_adapter: str, x: Tensor, result: Tensor, **_: Any) -> Tensor:
        """Return the layer's result with the update of one adapter added."""
        down, up = module.lora_A[active_adapter], module.lora_B[active_adapter]
        scaling, base = module.scaling[active_adapter], module.get_base_layer()
        plain = down.bias is None and up.bias is None and x.dtype == result.dtype == base.weight.dtype and x.dim() > 1
        # What the layer itself passes back is written out below, and only for a frozen one with no other adapter.
        alone = len(module.active_adapters) == 1 and not any(p.requires_grad for p in base.parameters())
        if not plain or not alone:
            update = up(down(x.to(down.weight.dtype)))
            return result + scaling * update.to(result.dtype)  # type: ignore[no-any-return]
        added: Tensor = _AddedInPlace.apply(x, result.detach(), base.weight, down.weight, up.weight, scaling)  # type: ignore[no-untyped-call]
        return added


class _AddedInPlace(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, result: Tensor, base: Tensor, down: Tensor, up: Tensor, scaling: float) -> Tensor:
        rows = x.flatten(end_dim=-2)
        ctx.trained = down.dtype
        down, up = down.to(x.dtype), up.to(x.dtype)
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
            by_x = times_weight(by_result, base.T).addmm_(by_narrow, down)
            by_x = by_x.view(*gradient.shape[:-1], down.shape[1])  # not -1: an expert may get no token
        by_up = (by_result.T @ narrow).to(ctx.trained).mul_(ctx.scaling)
        return by_x, None, None, (by_narrow.T @ rows).to(ctx.trained), by_up, None
