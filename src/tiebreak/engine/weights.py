"""Weights by content: what identifies a model whatever its folder, its hub name or the adapters hung on it.

Owns which names belong to the base and which to an adapter, and what of a configuration changes numbers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from tiebreak.fingerprint import fingerprint

# Configuration that says how a model came here or is served, and not what it computes.
IRRELEVANT = ("_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version", "use_cache")


def weights_digest(model: Any, config: Any, adapter: str | None = None) -> str:
    """Return the SHA-256 (64 hex digits) of a base model, with one adapter on it where it is named.

    Other adapters do not count, so a base model has one digest under any adapter and under none. Cost: one pass over
    all bytes, about a second per gigabyte.
    """
    tensors = sorted((name, _digest(tensor)) for name, tensor in _tensors(model, adapter))
    lora = {} if adapter is None else model.peft_config[adapter].to_dict()
    scale = [lora.get(key) for key in ("r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern")]
    settings = {key: value for key, value in config.to_dict().items() if key not in IRRELEVANT}
    return fingerprint([tensors, scale, repr(sorted(settings.items()))])


def _tensors(model: nn.Module, adapter: str | None) -> Iterator[tuple[str, Tensor]]:
    for name, tensor in model.named_parameters():
        if ".lora_" not in name:
            yield name.removeprefix("base_model.model.").replace(".base_layer.", "."), tensor
        elif adapter is not None and f".{adapter}." in name:
            yield name.replace(f".{adapter}.", "."), tensor


def _digest(tensor: Tensor) -> list[Any]:
    flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return [str(tensor.dtype), list(tensor.shape), hashlib.sha256(flat.numpy().data).hexdigest()]
