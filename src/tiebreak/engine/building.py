"""From where weights lie to a model: what every way to load one shares.

Owns the device, and what is switched off or speeded up in whatever is loaded to be trained or asked.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tiebreak.config import ModelConfig, QuantizationConfig
from tiebreak.engine.bundled import Say
from tiebreak.engine.compatibility import Choice, choose_scorer
from tiebreak.engine.loading import load_adapter, load_model
from tiebreak.engine.merging import merged
from tiebreak.engine.model import POLICY_ADAPTER, Model
from tiebreak.engine.noise import without_noise
from tiebreak.engine.products import speed_up
from tiebreak.engine.quantization import spelled_out, told
from tiebreak.engine.scorer import PackedScorer, PlainScorer
from tiebreak.engine.sources import Source, explained
from tiebreak.engine.tokenizer import eos_ids, now_for
from tiebreak.errors import ModelError


@dataclass(frozen=True)
class Loading:
    """Where weights come from, the `dtype` they are kept in, and where they are computed with."""

    source: Source
    trained: Path | None
    dtype: torch.dtype
    device: torch.device
    say: Say


def start_of(loading: Loading) -> Any:
    """Return the weights that full fine-tuning starts from; an adapter that the model came with is merged.

    One that was trained on a base model in four bits is merged into the numbers that these stand for.
    """
    base, adapter = base_of(loading), loading.source.adapter
    if adapter is None:
        return base
    base = spelled_out(base)
    adapted = load_adapter(base, adapter, POLICY_ADAPTER, is_trainable=False, say=loading.say)
    with explained(adapter):
        return merged(adapted, POLICY_ADAPTER, adapter)


def with_tokenizer(
    network: Any, tokenizer: Any, source: Source, config: ModelConfig, device: torch.device, dtype: torch.dtype
) -> Model:
    """Return the model of a network, packed where that is proven and wanted; `dtype` is that of the arithmetic."""
    pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    plain = PlainScorer(network, pad_id=pad_id, device=device, dtype=dtype)
    choice = Choice(plain, "model.layout says so")
    if config.layout != "plain":
        choice = choose_scorer(network, plain, PackedScorer(network, device=device, dtype=dtype), dtype)
    return Model(
        network=network,
        adapter=None,
        tokenizer=tokenizer,
        scorer=choice.scorer,
        plain_because=choice.refusal,
        device=device,
        eos_ids=eos_ids(tokenizer, network.generation_config),
        pad_id=pad_id,
        source=source,
        dtype=dtype,
        now=now_for(config, tokenizer),
    )


def base_of(loading: Loading) -> Any:
    """Return the base model, frozen, in four bits where it is to lie so."""
    source = loading.source
    network = weights_of(loading, source.base, source.revision, source.quantization).requires_grad_(False)
    if source.quantization:
        loading.say(told(network, source.quantization))
    return network


def weights_of(
    loading: Loading, name: str, revision: str | None, quantization: QuantizationConfig | None = None
) -> Any:
    """Return a model whose dropout is off, with our products."""
    network = load_model(name, revision, loading.dtype, loading.say, quantization, loading.device)
    if network.config.get_text_config().to_dict().get("output_router_logits"):
        loading.say(
            "config.json asks for its experts' own loss (output_router_logits): a preference has none to add to"
        )
    with explained(name):
        network = without_noise(network, loading.say)
    speed_up(network, network.get_output_embeddings())
    return network


def device_of(config: ModelConfig) -> torch.device:
    """Return where to compute; raises ModelError where this machine has no such device."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if config.device == "auto":
        return torch.device(next(name for name, there in available.items() if there))
    if not available[config.device]:
        raise ModelError(f"model.device {config.device}: this machine has none that torch can use; try auto")
    return torch.device(config.device)
