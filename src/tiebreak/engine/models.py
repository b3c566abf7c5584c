"""Models, tokenizers and adapters: from a name to a policy and its reference.

Owns device, dtype, attention implementation and what is trainable. Nothing is unpickled and no code from a model
repository runs: weights are safetensors, `trust_remote_code` is off.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import peft
import platformdirs
import torch
import transformers
from torch import nn

from tiebreak.config import AdapterConfig, DataConfig, ModelConfig, ReferenceConfig, build_config
from tiebreak.data.render import Renderer
from tiebreak.data.templates import fault_of
from tiebreak.engine.attention import use_plain_attention
from tiebreak.engine.bundled import Say
from tiebreak.engine.compatibility import Choice, choose_scorer
from tiebreak.engine.fused_lora import fuse, unfuse
from tiebreak.engine.loading import load_adapter, load_as_a_stranger, load_model, quietly
from tiebreak.engine.model import POLICY_ADAPTER, Model
from tiebreak.engine.products import speed_up
from tiebreak.engine.reference.kinds import REFERENCE_ADAPTER, AdapterOff, FrozenCopy, OtherAdapter, Reference
from tiebreak.engine.reference.store import SCHEMA, LogpStore
from tiebreak.engine.reference.stored import Stored
from tiebreak.engine.scorer import PackedScorer, PlainScorer
from tiebreak.engine.sources import Source, explained, refuse_code, resolve
from tiebreak.errors import ModelError, one_line
from tiebreak.fingerprint import derive_seed
from tiebreak.secrecy import masked


def load(
    config: ModelConfig,
    adapter: AdapterConfig,
    store: ReferenceConfig,
    *,
    seed: int,
    trained: Path | None = None,
    start: Path | None = None,
    say: Say = lambda _: None,
) -> tuple[Model, Stored]:
    """Return the policy at its start, or as trained in a run folder, and its reference.

    `trained` holds what `Model.save` wrote. `start` holds the adapter that training started from, where it was one.
    `seed` draws a new adapter.
    """
    source = resolve(config if start is None else ModelConfig(name=str(start)), say)
    if trained is not None:
        refuse_code(str(trained))  # a run folder may come from elsewhere, too
    device = _device(config)
    dtype = _dtype(config, device)
    tokenizer = _tokenizer(config, source, trained)
    pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    # Full fine-tuning keeps fp32 weights: steps of 1e-6 would vanish in bf16. A frozen base may be narrow.
    loading = _Loading(source, trained, dtype if adapter.kind == "lora" else torch.float32, device, say)
    network, reference_of = _with_adapter(loading, adapter, seed) if adapter.kind == "lora" else _all_weights(loading)
    choice = _scorer(network, config, pad_id, device, dtype)
    policy = Model(
        network=network,
        adapter=POLICY_ADAPTER if adapter.kind == "lora" else None,
        tokenizer=tokenizer,
        scorer=choice.scorer,
        plain_because=choice.refusal,
        device=device,
        eos_ids=_eos_ids(tokenizer, network.generation_config),
        pad_id=pad_id,
        source=source,
        dtype=dtype,
    )
    return policy, _remembered(reference_of(policy), store, policy, say)


def load_renderer(model: str, data: DataConfig, say: Say = lambda _: None) -> Renderer:
    """Return what turns pairs into the tokens of a model, without loading its weights."""
    config = build_config({"model": {"name": model}}).model
    source = resolve(config, say)
    tokenizer = _tokenizer(config, source, None)
    return Renderer(tokenizer, _eos_ids(tokenizer, _generation(source)), data)


def save_merged(policy: Model, folder: Path) -> None:
    """Write the weights with the adapter added into them; the policy itself stays as it is."""
    # A copy, since merging and unmerging in place would leave rounding behind in the policy.
    use_plain_attention(policy.network)  # a copy would not know what to switch back to
    twin = copy.deepcopy(policy.network)
    unfuse(twin)
    with quietly():
        twin.merge_and_unload(adapter_names=[POLICY_ADAPTER]).save_pretrained(folder)
        policy.tokenizer.save_pretrained(folder)


def load_artefact(folder: Path, policy: Model) -> Model:
    """Load what was exported as a stranger would, by the plain classes of transformers and peft."""
    network = load_as_a_stranger(folder, next(policy.network.parameters()).dtype).to(policy.device)
    return policy.with_network(network.eval())


# ------------------------------------------------------------------------------------------------------ the three cases

ReferenceOf = Callable[[Model], Reference]


@dataclass(frozen=True)
class _Loading:
    """What both cases need: where weights come from, and the `dtype` they are kept in."""

    source: Source
    trained: Path | None
    dtype: torch.dtype
    device: torch.device
    say: Say


def _with_adapter(loading: _Loading, adapter: AdapterConfig, seed: int) -> tuple[Any, ReferenceOf]:
    source, base = loading.source, _base(loading)
    start = loading.trained or source.adapter
    # fork_rng: the adapter's initialisation is ours alone and leaves the caller's random stream as it was.
    with torch.random.fork_rng(devices=[]), explained(str(start or source.base)), quietly():
        torch.manual_seed(derive_seed(seed, "adapter"))
        if start:
            model = load_adapter(base, str(start), POLICY_ADAPTER, is_trainable=True, say=loading.say)
        else:
            # The adapter remembers the revision of its base, for whoever loads it later.
            model = peft.get_peft_model(base, _lora(adapter), adapter_name=POLICY_ADAPTER, revision=source.revision)
        if source.adapter:
            load_adapter(model, source.adapter, REFERENCE_ADAPTER, is_trainable=False)
            model.set_adapter(POLICY_ADAPTER)
    model = model.to(loading.device)
    fuse(model)
    return model, OtherAdapter if source.adapter else AdapterOff


def _all_weights(loading: _Loading) -> tuple[Any, ReferenceOf]:
    model = _weights(loading, str(loading.trained), None) if loading.trained else _start(loading)
    model = model.requires_grad_(True).to(loading.device)
    again = replace(loading, say=lambda _: None)  # what there is to say about these weights has been said
    return model, lambda policy: FrozenCopy(policy, lambda: _start(again).to(loading.device))


def _start(loading: _Loading) -> Any:
    """Return the weights that full fine-tuning starts from; an adapter that the model came with is merged."""
    base, adapter = _base(loading), loading.source.adapter
    if adapter is None:
        return base
    adapted = load_adapter(base, adapter, POLICY_ADAPTER, is_trainable=False, say=loading.say)
    with explained(adapter):
        return adapted.merge_and_unload()


def _lora(adapter: AdapterConfig) -> peft.LoraConfig:
    targets = adapter.target_modules
    return peft.LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha,
        lora_dropout=adapter.dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        task_type="CAUSAL_LM",
    )


# ----------------------------------------------------------------------------------------------------------- the pieces


def _scorer(network: Any, config: ModelConfig, pad_id: int, device: torch.device, dtype: torch.dtype) -> Choice:
    plain = PlainScorer(network, pad_id=pad_id, device=device, dtype=dtype)
    if config.layout == "plain":
        return Choice(plain, "model.layout says so")
    return choose_scorer(network, plain, PackedScorer(network, device=device, dtype=dtype), dtype)


def _remembered(asked: Reference, config: ReferenceConfig, policy: Model, say: Say) -> Stored:
    folder = platformdirs.user_cache_path("tiebreak") / "reference" if config.store == "auto" else Path(config.store)

    def open_store() -> LogpStore:
        if config.store == "off":
            return LogpStore(None, {})
        with asked.model() as model:
            weights = model.digest()
        return LogpStore(folder, {"weights": weights, "dtype": str(policy.dtype), "schema": SCHEMA}, say)

    return Stored(asked, open_store, device=policy.device, dtype=policy.dtype, spot_checks=config.spot_checks)


def _base(loading: _Loading) -> Any:
    return _weights(loading, loading.source.base, loading.source.revision).requires_grad_(False)


def _weights(loading: _Loading, name: str, revision: str | None) -> Any:
    model = _without_dropout(load_model(name, revision, loading.dtype, loading.say))
    speed_up(model, model.get_output_embeddings())
    return model


def _without_dropout(model: Any) -> Any:
    """Switch off dropout and router noise that a base model brings: they would depend on the micro-batches.

    Some models keep them in modules (GPT-2), others as a number that a layer reads (OPT, Mixtral's router).
    """
    for module in model.modules():
        numbers = [
            key
            for key, value in vars(module).items()
            if ("drop" in key or "jitter" in key) and isinstance(value, float)
        ]
        for key in ["p"] if isinstance(module, nn.Dropout) else numbers:
            setattr(module, key, 0.0)
    return model


def _tokenizer(config: ModelConfig, source: Source, trained: Path | None) -> Any:
    where = trained or (source.adapter if _has_tokenizer(source.adapter) else source.base)
    revision = None if trained else source.revision
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(str(where), revision=revision, trust_remote_code=False)
    except Exception as error:  # noqa: BLE001 - transformers raises a dozen types for a missing tokenizer
        cause = masked(one_line(error, 120))
        raise ModelError(f"{where}: holds no tokenizer that loads; add tokenizer.json ({cause})") from None
    if config.chat_template and trained is None:  # a trained policy was saved with the template it was trained with
        tokenizer.chat_template = _template(config.chat_template)
    if not tokenizer.chat_template:
        raise ModelError(f"{where}: has no chat template; name a Jinja file as model.chat_template")
    if tokenizer.eos_token_id is None:
        raise ModelError(f"{where}: the tokenizer names no EOS token; set eos_token in tokenizer_config.json")
    _try_templates(tokenizer, config.chat_template or f"{where}")
    return tokenizer


def _try_templates(tokenizer: Any, where: str) -> None:
    """Raise ModelError for a chat template that takes more than any chat needs; tools may have one of their own."""
    found = tokenizer.chat_template
    for template in found.values() if isinstance(found, dict) else [found]:
        tokens = {name: token for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)}
        if fault := fault_of(template, tokens):
            raise ModelError(f"{where}: the chat template {fault}; it is not used")


def _has_tokenizer(folder: str | None) -> bool:
    return folder is not None and (Path(folder) / "tokenizer_config.json").exists()


def _template(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"model.chat_template {path}: cannot be read ({error})") from None


def _generation(source: Source) -> Any:
    """Return the generation settings beside the weights, where there are any."""
    with explained(source.base):
        try:
            return transformers.GenerationConfig.from_pretrained(str(source.base), revision=source.revision)
        except OSError:
            return transformers.GenerationConfig()


def _eos_ids(tokenizer: Any, generation: Any) -> tuple[int, ...]:
    """Return every id that ends a turn, the tokenizer's own first."""
    also = generation.eos_token_id
    others = also if isinstance(also, list) else [also]
    if not all(one is None or type(one) is int for one in others):
        raise ModelError(f"generation_config.json: eos_token_id is {str(also)[:60]}, wanted one or several token ids")
    return tuple(dict.fromkeys(i for i in (tokenizer.eos_token_id, *others) if i is not None))


def _device(config: ModelConfig) -> torch.device:
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if config.device == "auto":
        return torch.device(next(name for name, there in available.items() if there))
    if not available[config.device]:
        raise ModelError(f"model.device {config.device}: this machine has none that torch can use; try auto")
    return torch.device(config.device)


def _dtype(config: ModelConfig, device: torch.device) -> torch.dtype:
    named = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    return named.get(config.dtype, torch.float32 if device.type == "cpu" else torch.bfloat16)
