"""A base model in four bits, under an adapter (QLoRA, Dettmers et al. 2023): loaded so, known again, and spelled out.

Owns which library quantises (docs/decisions/0028), what it is kept from doing, and the file that says beside an adapter
how its base model was quantised. The library is an extra, and is imported where it is needed alone.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from tiebreak.config import QuantizationConfig
from tiebreak.engine.beside import beside, in_words, write_beside
from tiebreak.engine.bundled import Say
from tiebreak.engine.shapes import shape_of
from tiebreak.engine.sources import Source, explained
from tiebreak.errors import ModelError

DEVICES = ("cuda", "cpu")
"""Where the library's kernels are its own; elsewhere it fetches them."""
BLOCK = 64
"""Weights that share a scale."""


def refuse_without_library(settings: QuantizationConfig, device: torch.device) -> None:
    """Raise ModelError where weights cannot be quantised here."""
    if find_spec("bitsandbytes") is None:
        raise ModelError(
            f"quantization {settings.kind}: needs the library bitsandbytes, which is an extra: "
            "pip install 'tiebreak[quantized]'"
        )
    if device.type not in DEVICES:
        raise ModelError(
            f"quantization {settings.kind}: is computed on {' and '.join(DEVICES)}, and model.device is {device.type}; "
            "set model.device, or leave quantization out"
        )


def arguments(
    name: str, revision: str | None, settings: QuantizationConfig | None, dtype: torch.dtype, device: torch.device
) -> dict[str, Any]:
    """Return what transformers has to be told so that the weights of a base model come to lie in four bits on a device.

    Nothing but the device where its files hold them so; raises ModelError where they hold them otherwise.
    """
    if settings is None:
        return {}
    refuse_without_library(settings, device)
    told = shape_of(name, revision).to_dict()
    own, where = told.get("quantization_config"), {"device_map": {"": device}}
    if own is None:
        return where | {"quantization_config": _theirs(settings, dtype, _left_out(name, revision))}
    if in_words(own) != settings:
        method = own.get("quant_method", "another method") if isinstance(own, dict) else "another method"
        raise ModelError(
            f"{name}: is quantised already, by {str(getattr(method, 'value', method))[:40]}, and quantization asks for "
            f"{settings.told}; name the model that is not quantised, or leave quantization out"
        )
    return where


def _left_out(name: str, revision: str | None) -> list[str] | None:
    """Return the layers that stay as they are: the head, and those whose rows are no whole blocks; None: only the head.

    With AVX512 bitsandbytes 0.50 gives blocks that reach over the end of a row the scales of others. Such layers are
    left out on every device, so that a model is one model on all of them.
    """
    with explained(name), torch.device("meta"):
        empty = transformers.AutoModelForCausalLM.from_config(shape_of(name, revision), trust_remote_code=False)
    odd = [path for path, layer in empty.named_modules() if (width := _width(layer)) and width % BLOCK]
    head = empty.get_output_embeddings()
    return odd + [path for path, layer in empty.named_modules() if layer is head] if odd else None


def _width(layer: nn.Module) -> int | None:
    """Return how many numbers a row of a layer's weight [outputs, inputs] has; None where it is no such layer."""
    if isinstance(layer, Conv1D):
        return int(layer.weight.shape[0])
    return layer.in_features if isinstance(layer, nn.Linear) else None


def settle(network: Any, name: str, settings: QuantizationConfig | None, dtype: torch.dtype) -> Any:
    """Return a model whose layers in four bits compute in one dtype, and alike in training and in evaluation.

    On processors with AVX512-BF16 bitsandbytes 0.50 lays weights out anew when it is first asked in evaluation mode: it
    then computes in bfloat16, refuses sizes, and the weights are other bytes. Raises ModelError where nothing came to
    lie in four bits, and where the library does not spell them out as the paper says.
    """
    layers = layers_of(network)
    for layer in layers.values():
        layer.support_avx512bf16_for_cpu = False
        layer.compute_dtype, layer.compute_type_is_set = dtype, True
    for width, kind in {(layer.in_features, layer.weight.quant_type) for layer in layers.values()}:
        device = next(iter(layers.values())).weight.device
        if (apart := _apart(width, kind, dtype, device)) > 4 * torch.finfo(dtype).eps:
            raise ModelError(
                f"{name}: bitsandbytes spells {kind} rows of {width} numbers out wrong here, by {apart:.2g} of their "
                "size; take another device, or the model that is not quantised"
            )
    if settings and not layers:
        raise ModelError(
            f"quantization {settings.kind}: {name} has no linear layer that can lie in four bits; leave it out"
        )
    return network


def _apart(width: int, kind: str, dtype: torch.dtype, device: torch.device) -> float:
    """Return how far rows that the library spells out are from their code times their scale, relative to their size."""
    functional = sys.modules["bitsandbytes"].functional
    draw = torch.Generator().manual_seed(0)
    rows = torch.randn(5, width, generator=draw).mul_(torch.arange(1, 6)[:, None]).to(device, dtype)
    bits, state = functional.quantize_4bit(rows, blocksize=BLOCK, compress_statistics=False, quant_type=kind)
    found = functional.dequantize_4bit(bits, state).double().flatten()
    halves = torch.stack((bits.flatten() >> 4, bits.flatten() & 15), 1).flatten()[: rows.numel()].long()
    wanted = state.code.double()[halves] * state.absmax.double().repeat_interleave(BLOCK)[: rows.numel()]
    return float((found - wanted).abs().max() / wanted.abs().max())


def layers_of(network: nn.Module) -> dict[str, Any]:
    """Return the layers whose weights lie in four bits, by their paths."""
    library = sys.modules.get("bitsandbytes")  # where nobody loaded it, there are none
    if library is None:
        return {}
    return {path: layer for path, layer in network.named_modules() if isinstance(layer, library.nn.Linear4bit)}


def is_in_four_bits(layer: nn.Module) -> bool:
    """Whether the weights of a layer lie in four bits."""
    library = sys.modules.get("bitsandbytes")
    return library is not None and isinstance(layer, library.nn.Linear4bit)


def told(network: Any, settings: QuantizationConfig) -> str:
    """Return what lies in four bits and what it saves, in words."""
    layers, num = layers_of(network), num_parameters(network)
    quantised = sum(layer.in_features * layer.out_features for layer in layers.values())
    width = next(p for p in network.parameters() if p.is_floating_point()).element_size()
    now, before = num_bytes(network), num * width
    return (
        f"quantization {settings.told}: {len(layers)} layers with {quantised / num:.0%} of the base model's parameters "
        f"lie in four bits: {now / 2**20:.1f} MiB, not {before / 2**20:.1f}; the head and the adapter do not"
    )


def num_parameters(network: nn.Module) -> int:
    """Return how many numbers a model has, whatever they lie in; tied ones once."""
    found = {id(one): size_of(module, one) for module in network.modules() for one in module.parameters(recurse=False)}
    return sum(found.values())


def size_of(module: Any, parameter: Tensor) -> int:
    """Return how many numbers a parameter of a module is; two of four bits lie in one byte."""
    is_short = is_in_four_bits(module) and parameter is module.weight
    return module.in_features * module.out_features if is_short else parameter.numel()


def num_bytes(network: nn.Module) -> int:
    """Return the bytes of a model's weights, scales of blocks among them."""
    scales = sum(tensor.nbytes for _, tensor in scales_of(network))
    return scales + sum(one.nbytes for one in network.parameters())


def spelled_bytes(network: nn.Module) -> int:
    """Return the bytes that the largest layer takes while it is multiplied with; 0 where none lies in four bits.

    A forward or backward pass spells weights out one layer after the other, and holds at most two forms of one.
    """
    layers = layers_of(network).values()
    sizes = (layer.in_features * layer.out_features * layer.compute_dtype.itemsize for layer in layers)
    return 2 * max(sizes, default=0)


def expected_bytes(empty: Any, settings: QuantizationConfig | None, dtype: torch.dtype) -> int:
    """Return the bytes of the weights of a model that is not loaded; `empty` has its shapes."""
    total = sum(int(one.numel()) for one in empty.parameters()) * dtype.itemsize
    if settings is None:
        return total
    head = empty.get_output_embeddings()
    layers = ((layer, _width(layer)) for layer in empty.modules() if layer is not head)
    inner = [int(layer.weight.numel()) for layer, width in layers if width and width % BLOCK == 0]
    scale = 1 + 4 / 256 if settings.double else 4
    return total - sum(inner) * dtype.itemsize + int(sum(inner) * (0.5 + scale / BLOCK))


def scales_of(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield what is needed beside the four bits of each weight to know it, by name: scales, code, shape and dtype."""
    for path, layer in layers_of(network).items():
        for key, tensor in layer.weight.quant_state.as_dict(packed=True).items():
            yield f"{path}.weight.{key}", tensor


def spelled_out(network: Any) -> Any:
    """Return a base model, changed in place, whose layers hold the numbers that their four bits stand for."""
    for path, layer in layers_of(network).items():
        network.set_submodule(path, _plain(layer))
    if (quantizer := getattr(network, "hf_quantizer", None)) is not None:
        quantizer.remove_quantization_config(network)
        network.is_loaded_in_4bit = False  # peft reads it
    return network


def _plain(layer: Any) -> nn.Module:
    weight = weight_of(layer)
    turned = issubclass(getattr(layer, "source_cls", nn.Linear), Conv1D)
    with torch.device("meta"):
        made = (
            Conv1D(layer.out_features, layer.in_features)
            if turned
            else nn.Linear(layer.in_features, layer.out_features)
        )
    made.weight = nn.Parameter(weight.T.contiguous() if turned else weight, requires_grad=False)
    made.bias = None if layer.bias is None else nn.Parameter(layer.bias.detach().clone(), requires_grad=False)
    return made


def weight_of(layer: Any) -> Tensor:
    """Return the weight [outputs, inputs] that a layer multiplies with."""
    functional = sys.modules["bitsandbytes"].functional
    found: Tensor = functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)
    return found.to(layer.compute_dtype)


# ------------------------------------------------------------------------------------------------ what is written down


def facts(settings: QuantizationConfig | None) -> dict[str, Any] | None:
    """Return how a base model was quantised, and by what, for manifests; None where it was not."""
    if settings is None:
        return None
    return settings.model_dump() | {"library": f"bitsandbytes {metadata.version('bitsandbytes')}"}


def say_beside(folder: Path, network: Any) -> None:
    """Write beside an adapter how its base model lies in four bits, where it does."""
    if layers_of(network):
        write_beside(folder, network.get_base_model().config.quantization_config.to_dict())


def heeded(settings: QuantizationConfig | None, source: Source, trained: Path | None, say: Say) -> Source:
    """Return where a policy comes from with how its base model is loaded: as settings say, or as what it starts from
    was trained.

    Raises ModelError where these are two things.
    """
    before, name = (beside(trained) if trained else None) or source.quantization, source.adapter or source.base
    if settings and before and settings != before:
        lies = f"was trained on a base model in {before.told}" if source.adapter else f"lies in {before.told} already"
        raise ModelError(
            f"{name}: {lies}, and quantization asks for {settings.told}: it would be another model; leave quantization "
            "out, and it is taken as it is"
        )
    if trained is None and settings is None and before:
        say(f"{name}: {'was trained on' if source.adapter else 'is'} a base model in {before.told}, and is taken so")
    if trained is None and settings and source.adapter and not before:
        say(
            f"{name}: nothing says that its base model was quantised when it was trained; it goes on upon one in "
            f"{settings.told}, where it says other things"
        )
    return replace(source, quantization=settings or before)


def _theirs(settings: QuantizationConfig, dtype: torch.dtype, left_out: list[str] | None) -> Any:
    return transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        llm_int8_skip_modules=left_out,
        bnb_4bit_quant_type=settings.kind,
        bnb_4bit_use_double_quant=settings.double,
        bnb_4bit_compute_dtype=dtype,
    )
