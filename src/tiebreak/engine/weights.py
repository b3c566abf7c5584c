"""Weights by content: what identifies a model whatever its folder, its hub name or the adapters hung on it.

Owns which names belong to the base and which to an adapter, and what of a configuration changes numbers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import peft
import torch
import torch.distributed as dist
from torch import Tensor, nn

from tiebreak.engine.quantization import scales_of
from tiebreak.engine.shares import full
from tiebreak.fingerprint import fingerprint

# Configuration that says how a model came here or is served, and not what it computes.
IRRELEVANT = (
    *("_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version", "use_cache"),
    "quantization_config",  # of weights in four bits, all that they stand for is in their scales
)
# The same of an adapter: where it came from, how it is drawn and trained, and what its own tensors say.
IRRELEVANT_OF_ADAPTERS = (
    *("base_model_name_or_path", "revision", "auto_mapping", "task_type", "peft_version", "inference_mode"),
    *("init_lora_weights", "loftq_config", "eva_config", "corda_config", "lora_ga_config", "lora_dropout"),
    *("target_modules", "exclude_modules", "target_parameters", "layers_to_transform", "layers_pattern"),
    *("fan_in_fan_out", "modules_to_save", "ensure_weight_tying", "megatron_config", "megatron_core"),
)
_WRAPPERS = ("base_layer", "original_module", "token_adapter")
"""Steps in a tensor's name that only say that an adapter hangs on it."""
_BESIDE_LORA = ("modules_to_save", "trainable_tokens_delta")
"""What an adapter holds besides its LoRA factors, all of whose names begin with `lora_`."""


def weights_digest(model: nn.Module, config: Any, adapter: str | None = None) -> str:
    """Return the SHA-256 (64 hex digits) of a base model, with one adapter on it where it is named.

    Of all that a file of weights keeps: parameters, buffers such as the scale of a layer, and what says which numbers
    four bits stand for. Buffers that no file keeps follow from the configuration. Weights in shares have the digest
    that they have whole, and every process has to ask for it. Other adapters do not count, so a base model has one
    digest under any adapter and under none. Cost: one pass over all bytes, about a second per gigabyte.
    """
    adapters = model.peft_config if isinstance(model, peft.PeftModel) else {}
    tensors = sorted((name, _digest(full(tensor))) for name, tensor in _tensors(model, adapters, adapter))
    used = {} if adapter is None else _told(adapters[adapter].to_dict(), IRRELEVANT_OF_ADAPTERS)
    return fingerprint([tensors, repr(used), repr(_told(config.to_dict(), IRRELEVANT))])


def parameters_of(model: nn.Module, adapter: str | None) -> dict[str, nn.Parameter]:
    """Return the parameters of an adapter on a model, or the model's own for None, by paths that name no adapter.

    So the same parameter has the same path in two adapters on one model, and in two models without any.
    """
    adapters = model.peft_config if isinstance(model, peft.PeftModel) else {}
    found = {}
    for path, parameter in model.named_parameters():
        steps = path.split(".")
        place = _place_of_owner(steps, adapters)
        if (steps[place] if place else None) == adapter:
            found[".".join(steps[:place] + steps[place + 1 :]) if place else path] = parameter
    return found


def gathered_from(network: Any, adapter: str | None) -> dict[str, Tensor]:
    """Return what is saved of weights in shares, whole, in main memory of the first process; nothing in the others.

    So the first process needs main memory for all weights, or those of the adapter and the embeddings, once.
    """
    leads = dist.get_rank() == 0
    wanted = None
    if adapter is not None:
        # peft writes embeddings, too, where their size is not the base model's.
        kept = [*parameters_of(network, adapter).values()]
        for layer in (network.get_input_embeddings(), network.get_output_embeddings()):
            kept += [] if layer is None else layer.parameters()
        wanted = {id(parameter) for parameter in kept}
    found, seen = dict[str, Tensor](), dict[int, Tensor]()
    for name, tensor in network.state_dict(keep_vars=True).items():
        if wanted is not None and id(tensor) not in wanted:
            continue
        if id(tensor) not in seen:
            whole = full(tensor)
            seen[id(tensor)] = whole.cpu() if leads else whole[:0]
        found[name] = seen[id(tensor)]
    return found if leads else {}


def _tensors(model: nn.Module, adapters: Mapping[str, Any], adapter: str | None) -> Iterator[tuple[str, Tensor]]:
    kept = model.state_dict().keys()
    yield from (
        (name, tensor)
        for path, tensor in (
            *model.named_parameters(),
            *((p, t) for p, t in model.named_buffers() if p in kept),
            *scales_of(model),
        )
        for name, owner in [_name_and_owner(path, adapters)]
        if owner in (None, adapter)
    )


def _name_and_owner(path: str, adapters: Mapping[str, Any]) -> tuple[str, str | None]:
    """Return what a tensor is called whatever hangs on its model, and the adapter that it belongs to."""
    if not adapters:
        return path, None
    steps = [step for step in path.removeprefix("base_model.model.").split(".") if step not in _WRAPPERS]
    place = _place_of_owner(steps, adapters)
    return (".".join(steps[:place] + steps[place + 1 :]), steps[place]) if place else (".".join(steps), None)


def _place_of_owner(steps: Sequence[str], adapters: Mapping[str, Any]) -> int | None:
    """Return which step of a path names the adapter that a tensor belongs to; None where it is the base model's."""
    pairs = enumerate(pairwise(steps), 1)
    return next(
        (
            place
            for place, (holder, owner) in pairs
            if owner in adapters and (holder.startswith("lora_") or holder in _BESIDE_LORA)
        ),
        None,
    )


def _told(settings: Mapping[str, Any], irrelevant: tuple[str, ...]) -> list[tuple[str, Any]]:
    return sorted((key, value) for key, value in settings.items() if key not in irrelevant)


def _digest(tensor: Tensor) -> list[Any]:
    flat = tensor.data.cpu().contiguous().reshape(-1).view(torch.uint8)
    return [str(tensor.dtype), list(tensor.shape), hashlib.sha256(flat.numpy().data).hexdigest()]
