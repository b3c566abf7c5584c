"""Adding an adapter into the weights below it: which one cannot be, and the proof that one was.

Owns what `merged` may mean: the very log-probabilities of the adapted model. peft adds an adapter into a weight whoever
else reads that weight, and cannot add what a layer has no place for.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora.layer import LoraLayer
from torch import Tensor

from tiebreak.errors import ModelError

TOLERANCE = 1e-3
"""Nats by which a token's log-probability may move, on average; in fp32, merging moves it by some 1e-5."""
_TOKENS = 16


def obstacle(adapted: Any, adapter: str) -> str | None:
    """Return why an adapter cannot be added into its base model without changing it, in words; None where it can."""
    base = adapted.get_base_model()
    readers: dict[int, list[str]] = {}
    for path, module in base.named_modules():
        for tensor in module.parameters(recurse=False):
            readers.setdefault(id(tensor), []).append(path.replace(".base_layer", ""))
    for path, layer in base.named_modules():
        if not isinstance(layer, LoraLayer) or adapter not in {*layer.lora_A, *layer.lora_embedding_A}:
            continue
        own, below = path.replace(".base_layer", ""), layer.get_base_layer()
        read = (reader for tensor in below.parameters(recurse=False) for reader in readers[id(tensor)])
        if other := next((reader for reader in read if reader != own and "original_module" not in reader), None):
            return f"it is on {_last(own)} alone, and these weights are also those of {_last(other)} (tied)"
        if adapter in layer.lora_B and layer.lora_B[adapter].bias is not None and below.bias is None:
            return f"it trains a bias (lora_bias) on {_last(own)}, which has none"
    return None


def merged(adapted: Any, adapter: str, folder: str) -> Any:
    """Return the base model with an adapter of a folder added into its weights, proven on a few tokens.

    Raises ModelError where what comes of it is another model.
    """
    if cause := obstacle(adapted, adapter):
        raise ModelError(_refusal(folder, cause))
    wanted = _probed(adapted)
    merged = adapted.merge_and_unload(adapter_names=[adapter])
    found = _probed(merged)
    apart = float(torch.where(found == wanted, 0.0, found - wanted).abs().mean())
    if not apart <= TOLERANCE:
        raise ModelError(_refusal(folder, f"the merged model differs from the adapted one by {apart:.2g} nats a token"))
    return merged


def _last(path: str) -> str:
    return path.rpartition(".")[2]


def _refusal(folder: str, cause: str) -> str:
    return (
        f"{folder}: the adapter cannot be added into its base model for full fine-tuning: {cause}; go on with it as "
        "an adapter (adapter.kind lora), or name a model that it was merged into elsewhere"
    )


@torch.no_grad()
def _probed(model: Any) -> Tensor:
    """Return the log-probabilities of a few tokens, drawn alike for every model."""
    device = next(model.parameters()).device
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(model.get_input_embeddings().weight.shape[0], (1, _TOKENS), generator=draw).to(device)
    was_training = model.training
    logits = model.eval()(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.float()
    model.train(was_training)
    logps: Tensor = logits[0, :-1].log_softmax(-1).gather(-1, ids[0, 1:, None])[:, 0]
    return logps
