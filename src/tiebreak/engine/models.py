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

import platformdirs
import torch
import transformers

from tiebreak.config import AdapterConfig, DataConfig, ModelConfig, ReferenceConfig
from tiebreak.data.render import Renderer
from tiebreak.engine.adapters import add_twin, with_new_adapter
from tiebreak.engine.attention import use_plain_attention
from tiebreak.engine.bundled import Say
from tiebreak.engine.classifier import Classifier
from tiebreak.engine.compatibility import Choice, choose_scorer
from tiebreak.engine.fused_lora import fuse, unfuse
from tiebreak.engine.loading import (
    check_sequence_classifier,
    load_adapter,
    load_as_a_stranger,
    load_model,
    load_sequence_classifier,
    quietly,
    stored_dtypes,
)
from tiebreak.engine.merging import merged, obstacle
from tiebreak.engine.model import POLICY_ADAPTER, Model
from tiebreak.engine.noise import without_noise
from tiebreak.engine.positions import Context, context_of
from tiebreak.engine.products import speed_up
from tiebreak.engine.reference.kinds import REFERENCE_ADAPTER, AdapterOff, FrozenCopy, OtherAdapter, Reference
from tiebreak.engine.reference.moving import MOVING_ADAPTER, Moving
from tiebreak.engine.reference.store import SCHEMA, LogpStore
from tiebreak.engine.reference.stored import Stored
from tiebreak.engine.scorer import PackedScorer, PlainScorer
from tiebreak.engine.sources import Source, explained, refuse_code, resolve
from tiebreak.engine.tokenizer import eos_ids, load_tokenizer, now_for, suggested_generation
from tiebreak.errors import ModelError, one_line
from tiebreak.fingerprint import derive_seed
from tiebreak.maths.distributions import Statistic


def load(
    config: ModelConfig,
    adapter: AdapterConfig,
    reference: ReferenceConfig,
    *,
    seed: int,
    trained: Path | None = None,
    start: Path | None = None,
    base: str | None = None,
    beside: Statistic | None = None,
    say: Say = lambda _: None,
) -> tuple[Model, Stored, Moving | None]:
    """Return the policy at its start, or as trained in a run folder, its reference, and the one that moves.

    None moves where that is not asked for, and where the policy is one that was trained.

    `trained` holds what `Model.save` wrote. `start` holds the adapter that training started from, where it was one, and
    `base` is where its base model is now. `seed` draws a new adapter. `beside` is stored with what the reference says.
    """
    source = resolve(config if start is None else ModelConfig(name=str(start), base=config.base), say, base=base)
    if trained is not None:
        refuse_code(str(trained))  # a run folder may come from elsewhere, too
    device = _device(config)
    dtype = _dtype(config, device)
    tokenizer = load_tokenizer(config, source, trained)
    # Full fine-tuning keeps fp32 weights: steps of 1e-6 would vanish in bf16. A frozen base may be narrow.
    loading = _Loading(source, trained, dtype if adapter.kind == "lora" else torch.float32, device, say)
    moves = reference.moves if trained is None else None
    network, reference_of, follower_of = (
        _with_adapter(loading, adapter, seed, twin=moves is not None)
        if adapter.kind == "lora"
        else _all_weights(loading)
    )
    policy = _with_tokenizer(network, tokenizer, source, config, device, dtype)
    policy = replace(policy, adapter=POLICY_ADAPTER if adapter.kind == "lora" else None)
    frozen = _remembered(reference_of(policy), reference, policy, beside, say)
    return policy, frozen, Moving(policy, frozen, follower_of(policy), moves) if moves else None


def load_frozen(config: ModelConfig, say: Say = lambda _: None) -> Model:
    """Return a model that is only asked, an adapter that it comes with added into its weights."""
    source = resolve(config, say)
    device = _device(config)
    dtype = _dtype(config, device)
    tokenizer = load_tokenizer(config, source)
    network = _start(_Loading(source, None, dtype, device, say)).requires_grad_(False).to(device).eval()
    return _with_tokenizer(network, tokenizer, source, config, device, dtype)


def load_classifier(config: ModelConfig, say: Say = lambda _: None) -> Classifier:
    """Return a sequence classifier of one label, with the chat template that conversations are shown to it in."""
    source, tokenizer = look_at_classifier(config, say)
    device = _device(config)
    network = load_sequence_classifier(source.base, source.revision, _dtype(config, device), say)
    network = network.requires_grad_(False).to(device).eval()
    return Classifier(network, tokenizer, source, now_for(config, tokenizer))


def look_at_classifier(config: ModelConfig, say: Say = lambda _: None) -> tuple[Source, Any]:
    """Return where a sequence classifier comes from, and its tokenizer, without its weights.

    Raises ModelError where it is none of one label, or has no chat template.
    """
    source = resolve(config, say)
    if source.adapter:
        raise ModelError(
            f"{config.name}: is an adapter; merge it into its base model (peft's merge_and_unload) and name that"
        )
    check_sequence_classifier(source.base, source.revision)
    return source, load_tokenizer(config, source, template_advice="save its tokenizer again with one")


def load_renderer(config: ModelConfig, data: DataConfig, say: Say = lambda _: None) -> tuple[Renderer, Context]:
    """Return what turns pairs into the tokens of a model, and how many of them it can see, without its weights.

    Nothing is dropped or cut for the model's positions.
    """
    source = resolve(config, say)
    with explained(source.base):  # before the tokenizer, whose own complaint is of itself also where nothing is there
        settings = transformers.AutoConfig.from_pretrained(
            source.base, revision=source.revision, trust_remote_code=False
        )
    tokenizer = load_tokenizer(config, source)
    eos, now = eos_ids(tokenizer, suggested_generation(source)), now_for(config, tokenizer)
    return Renderer(tokenizer, eos, data, now), context_of(settings, tokenizer)


@dataclass(frozen=True)
class Written:
    """The dtype that most weights were written in, and that of the base model's own files."""

    dtype: torch.dtype
    base: torch.dtype


def save_whole(policy: Model, folder: Path, *, as_base: bool = True) -> Written:
    """Write all weights, an adapter added into them; the policy itself stays as it is.

    Those that the base model's files keep narrower are narrowed to that, tensor by tensor, unless `as_base` is False.
    """
    ours = next(policy.network.parameters()).dtype
    stored = stored_dtypes(policy.source.base, policy.source.revision)
    base = next(iter(stored.values()), ours)
    if not policy.is_adapter and not (as_base and base.itemsize < ours.itemsize):
        policy.save(folder)
        return Written(ours, base)
    # A copy, since merging and unmerging in place would leave rounding behind in the policy.
    use_plain_attention(policy.network)  # a copy would not know what to switch back to
    twin = copy.deepcopy(policy.network)
    unfuse(twin)
    with quietly():
        if policy.is_adapter:
            twin = twin.merge_and_unload(adapter_names=[POLICY_ADAPTER])
        kept = twin.state_dict().keys()
        for name, tensor in (*twin.named_parameters(), *twin.named_buffers()):
            dtype = stored.get(name, base)
            if as_base and name in kept and tensor.is_floating_point() and dtype.itemsize < tensor.dtype.itemsize:
                tensor.data = tensor.data.to(dtype)
        twin.save_pretrained(folder)
        policy.tokenizer.save_pretrained(folder)
    return Written(next(twin.parameters()).dtype, base)


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


def _with_adapter(
    loading: _Loading, adapter: AdapterConfig, seed: int, *, twin: bool
) -> tuple[Any, ReferenceOf, ReferenceOf]:
    """Return the network, its reference, and what could follow it: its `twin`, a second adapter that starts alike."""
    source, base = loading.source, _base(loading)
    start = loading.trained or source.adapter
    # fork_rng: the adapter's initialisation is ours alone and leaves the caller's random stream as it was.
    with torch.random.fork_rng(devices=[]), explained(str(start or source.base)), quietly():
        torch.manual_seed(derive_seed(seed, "adapter"))
        if start:
            model = load_adapter(base, str(start), POLICY_ADAPTER, is_trainable=True, say=loading.say)
        else:
            model = with_new_adapter(base, adapter, source.revision, loading.say)
        if source.adapter:
            _load_reference(model, source.adapter)
            model.set_adapter(POLICY_ADAPTER)
        if twin:
            add_twin(model, MOVING_ADAPTER)
    for kind in model.peft_config.values():  # for whoever loads it from another folder
        kind.base_model_name_or_path, kind.revision = source.base, source.revision
    if loading.trained is None and (cause := obstacle(model, POLICY_ADAPTER)):
        loading.say(f"the adapter cannot be merged into its base model when it is exported (--form adapter): {cause}")
    model = model.to(loading.device)
    fuse(model, loading.say)
    return model, OtherAdapter if source.adapter else AdapterOff, lambda policy: OtherAdapter(policy, MOVING_ADAPTER)


def _load_reference(model: Any, adapter: str) -> None:
    try:
        load_adapter(model, adapter, REFERENCE_ADAPTER, is_trainable=False)
    except ModelError as error:
        raise ModelError(
            f"{adapter}: this kind of adapter cannot stand beside itself as the reference; merge it into its base "
            f"model (peft's merge_and_unload) and name that, or take adapter.kind none ({one_line(error, 160)})"
        ) from None


def _all_weights(loading: _Loading) -> tuple[Any, ReferenceOf, ReferenceOf]:
    model = _weights(loading, str(loading.trained), None) if loading.trained else _start(loading)
    model = model.requires_grad_(True).to(loading.device)
    again = replace(loading, say=lambda _: None)  # what there is to say about these weights has been said

    def copied(policy: Model) -> Reference:
        return FrozenCopy(policy, lambda: _start(again).to(loading.device))

    return model, copied, copied


def _start(loading: _Loading) -> Any:
    """Return the weights that full fine-tuning starts from; an adapter that the model came with is merged."""
    base, adapter = _base(loading), loading.source.adapter
    if adapter is None:
        return base
    adapted = load_adapter(base, adapter, POLICY_ADAPTER, is_trainable=False, say=loading.say)
    with explained(adapter):
        return merged(adapted, POLICY_ADAPTER, adapter)


# ----------------------------------------------------------------------------------------------------------- the pieces


def _with_tokenizer(
    network: Any, tokenizer: Any, source: Source, config: ModelConfig, device: torch.device, dtype: torch.dtype
) -> Model:
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


def _remembered(asked: Reference, config: ReferenceConfig, policy: Model, beside: Statistic | None, say: Say) -> Stored:
    folder = platformdirs.user_cache_path("tiebreak") / "reference" if config.store == "auto" else Path(config.store)

    def open_store() -> LogpStore:
        if config.store == "off":
            return LogpStore(None, {})
        with asked.model() as model:
            weights = model.digest()
        of = {"weights": weights, "dtype": str(policy.dtype), "schema": SCHEMA}
        return LogpStore(folder, of if beside is None else of | {"beside": beside.__name__}, say)

    return Stored(
        asked, open_store, device=policy.device, dtype=policy.dtype, spot_checks=config.spot_checks, beside=beside
    )


def _base(loading: _Loading) -> Any:
    return _weights(loading, loading.source.base, loading.source.revision).requires_grad_(False)


def _weights(loading: _Loading, name: str, revision: str | None) -> Any:
    network = load_model(name, revision, loading.dtype, loading.say)
    if network.config.get_text_config().to_dict().get("output_router_logits"):
        loading.say(
            "config.json asks for its experts' own loss (output_router_logits): a preference has none to add to"
        )
    with explained(name):
        network = without_noise(network, loading.say)
    speed_up(network, network.get_output_embeddings())
    return network


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
