"""Models, tokenizers and adapters: from a name to a policy and its reference.

Owns what is trainable, and which form the reference has. Nothing is unpickled and no code from a model
repository runs: weights are safetensors, `trust_remote_code` is off.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import platformdirs
import torch

from tiebreak.config import (
    AdapterConfig,
    DataConfig,
    DistributedConfig,
    ModelConfig,
    QuantizationConfig,
    ReferenceConfig,
)
from tiebreak.data.render import Renderer
from tiebreak.engine.adapters import add_twin, set_dropout, with_new_adapter
from tiebreak.engine.arithmetic import dtype_of
from tiebreak.engine.building import Loading, base_of, device_of, start_of, weights_of, with_tokenizer
from tiebreak.engine.bundled import Say
from tiebreak.engine.fused_lora import fuse
from tiebreak.engine.loading import load_adapter, load_model, quietly
from tiebreak.engine.merging import obstacle
from tiebreak.engine.model import POLICY, POLICY_ADAPTER, Model
from tiebreak.engine.placing import PLACING, begin_placing, empty_of, placed
from tiebreak.engine.positions import Context, context_of
from tiebreak.engine.quantization import expected_bytes, heeded, num_bytes, refuse_without_library
from tiebreak.engine.ranks import Alone, Ranks
from tiebreak.engine.reference.kinds import REFERENCE_ADAPTER, AdapterOff, FrozenCopy, OtherAdapter, Reference
from tiebreak.engine.reference.moving import MOVING_ADAPTER, Moving
from tiebreak.engine.reference.store import SCHEMA, LogpStore
from tiebreak.engine.reference.stored import Stored
from tiebreak.engine.shapes import shape_of
from tiebreak.engine.sources import Source, explained, refuse_code, resolve, same_base, same_files, same_model
from tiebreak.engine.tokenizer import eos_ids, load_tokenizer, now_for, refuse_other_ids, suggested_generation
from tiebreak.errors import ModelError, one_line
from tiebreak.fingerprint import derive_seed
from tiebreak.maths.distributions import Statistic

Bases = tuple[str | None, str | None]
"""Where the base models of policy and reference are, whatever their adapters say; None: where those say."""


def load(
    config: ModelConfig,
    adapter: AdapterConfig,
    reference: ReferenceConfig,
    *,
    seed: int,
    quantization: QuantizationConfig | None = None,
    trained: Path | None = None,
    kept: Path | None = None,
    bases: Bases = (None, None),
    beside: Statistic | None = None,
    say: Say = lambda _: None,
    ranks: Ranks | None = None,
    distributed: DistributedConfig | None = None,
) -> tuple[Model, Stored, Moving | None]:
    """Return the policy at its start, or as trained in a run folder, its reference, and the one that moves.

    None moves where that is not asked for, and where the policy is one that was trained. All `ranks` have them then,
    placed as `distributed` says; they are read by the first.

    `trained` holds what `Model.save` wrote. `kept` holds the adapter that is the reference, where a run kept one.
    `seed` draws a new adapter. `beside` is stored with what the reference says. `quantization` is of the base model
    under an adapter, and of a reference on the same one; what was trained on one in four bits is taken so without it.
    """
    device = device_of(config)
    if quantization:
        refuse_without_library(quantization, device)  # before anything is fetched
    named = config if kept is None else ModelConfig(name=str(kept), base=config.base)
    source = heeded(quantization, resolve(named, say, base=bases[0]), trained, say)
    dtype = dtype_of(config, device, source, say)
    _refuse_training_of_bits(config, adapter, source)
    against = source if kept else _against(config, reference, source, bases[1], say)
    if trained is not None:
        refuse_code(str(trained))  # a run folder may come from elsewhere, too
    tokenizer = load_tokenizer(config, source, trained)
    # Full fine-tuning keeps fp32 weights: steps of 1e-6 would vanish in bf16. A frozen base may be narrow.
    ranks, width = ranks or Alone(), torch.float32 if adapter.trains_all else dtype
    placing = begin_placing(ranks, distributed or DistributedConfig(), device, source, width, adapter)
    loading = Loading(source, trained, width, placing.loads_on, say)
    moves = reference.moves if trained is None else None
    network, reference_of, follower_of = (
        _all_weights(loading, against)
        if adapter.trains_all
        else _with_adapter(loading, adapter, seed, against, twin=moves is not None)
    )
    policy = with_tokenizer(network, tokenizer, source, config, loading.device, dtype)
    policy = placed(replace(policy, adapter=None if adapter.trains_all else POLICY_ADAPTER), ranks, POLICY, placing)
    if trained is None and against is not source:
        _refuse_unlike(policy, config, against)
    frozen = _remembered(reference_of(policy), reference, policy, beside, say)
    return policy, frozen, Moving(policy, frozen, follower_of(policy), moves) if moves else None


def _refuse_training_of_bits(config: ModelConfig, adapter: AdapterConfig, source: Source) -> None:
    """Raise ModelError where weights that lie in four bits would be trained."""
    if adapter.trains_all and source.quantization and not source.adapter:
        raise ModelError(
            f"{config.name}: lies in four bits ({source.quantization.told}), which cannot be trained (adapter.kind "
            "none): take adapter.kind lora, or name the model that is not quantised"
        )


def resolve_reference(
    config: ModelConfig,
    reference: ReferenceConfig,
    policy: Source,
    say: Say = lambda _: None,
    *,
    base: str | None = None,
) -> Source:
    """Return where the model comes from that a policy is compared with; `reference.model` names it.

    One hub id is one model: without a revision of its own it is the one that the policy, or its base model, is of.
    Its base model lies in four bits where it is the policy's and that does, or where its own files say so.
    `base` as for `resolve`. Raises ModelError, as what is said of the reference.
    """
    name, revision = str(reference.model), reference.revision
    same = config.revision if name == config.name else None
    named = ModelConfig(name=name, revision=revision or same, base=reference.base)
    try:
        found = resolve(named, say, base=base or reference.base or config.base)
    except ModelError as error:
        told = str(error).replace("model.base", "reference.base")
        raise ModelError(f"reference.model: {told}") from None
    if found.base == policy.base and found.revision is None:
        found = replace(found, revision=policy.revision)
    if policy.quantization and same_files(found, policy) and found.quantization is None:
        return replace(found, quantization=policy.quantization)
    return found


def load_alone(config: ModelConfig, like: Model, source: Source | None = None) -> Model:
    """Return a model by the plainest path: as a stranger loads it, an adapter on it as it is, scored in padded rows.

    It reads the ids of the model `like`, where it is and in its precision. It is the one that `config` names, its base
    model quantised as that of `like`, or one of another `source`.
    """
    source = source or replace(resolve(config), quantization=like.source.quantization)
    dtype = next(like.network.parameters()).dtype
    network = load_model(source.base, source.revision, dtype, quantization=source.quantization, device=like.device)
    if source.adapter:
        network = load_adapter(network, source.adapter, POLICY_ADAPTER, is_trainable=False)
    network = network.requires_grad_(False).to(like.device).eval()
    plain = config.model_copy(update={"layout": "plain"})
    return with_tokenizer(network, like.tokenizer, source, plain, like.device, like.dtype)


def load_frozen(
    config: ModelConfig, say: Say = lambda _: None, quantization: QuantizationConfig | None = None
) -> Model:
    """Return a model that is only asked, an adapter that it comes with added into its weights.

    On a base model in four bits the adapter stays as it is: so it was trained, and so it takes the least memory.
    """
    device = device_of(config)
    source = heeded(quantization, resolve(config, say), None, say)
    dtype = dtype_of(config, device, source, say)
    tokenizer = load_tokenizer(config, source)
    loading = Loading(source, None, dtype, device, say)
    adapter = POLICY_ADAPTER if source.quantization and source.adapter else None
    if adapter:
        network = load_adapter(base_of(loading), str(source.adapter), adapter, is_trainable=False, say=say)
    else:
        network = start_of(loading)
    network = network.requires_grad_(False).to(device).eval()
    return replace(with_tokenizer(network, tokenizer, source, config, device, dtype), adapter=adapter)


def load_renderer(config: ModelConfig, data: DataConfig, say: Say = lambda _: None) -> tuple[Renderer, Context]:
    """Return what turns pairs into the tokens of a model, and how many of them it can see, without its weights.

    Nothing is dropped or cut for the model's positions.
    """
    source = resolve(config, say)
    # Before the tokenizer, whose own complaint is of itself also where nothing is there.
    settings = shape_of(source.base, source.revision)
    tokenizer = load_tokenizer(config, source)
    eos, now = eos_ids(tokenizer, suggested_generation(source)), now_for(config, tokenizer)
    return Renderer(tokenizer, eos, data, now), context_of(settings, tokenizer)


# ------------------------------------------------------------------------------------------------ policy and reference

ReferenceOf = Callable[[Model], Reference]


def _against(config: ModelConfig, reference: ReferenceConfig, source: Source, base: str | None, say: Say) -> Source:
    """Return where the reference comes from: from what is named, or whence the policy does."""
    if reference.model is None:
        return source
    found = resolve_reference(config, reference, source, say, base=base)
    return source if same_model(found, source) else found


def _with_adapter(
    loading: Loading, adapter: AdapterConfig, seed: int, against: Source, *, twin: bool
) -> tuple[Any, ReferenceOf, ReferenceOf]:
    """Return the network, its reference, and what could follow it: its `twin`, a second adapter that starts alike."""
    source, base = loading.source, base_of(loading)
    start = loading.trained or source.adapter
    # fork_rng: the adapter's initialisation is ours alone and leaves the caller's random stream as it was.
    with torch.random.fork_rng(devices=[]), explained(str(start or source.base)), quietly():
        torch.manual_seed(derive_seed(seed, "adapter"))
        if start:
            model = load_adapter(base, str(start), POLICY_ADAPTER, is_trainable=True, say=loading.say)
            set_dropout(model, POLICY_ADAPTER, adapter.dropout)
        else:
            model = with_new_adapter(base, adapter, source.revision, loading.say)
        if against.adapter and same_base(against, source):
            _load_reference(model, against.adapter)
            model.set_adapter(POLICY_ADAPTER)
        if twin:
            add_twin(model, MOVING_ADAPTER)
    for kind in model.peft_config.values():  # for whoever loads it from another folder
        kind.base_model_name_or_path, kind.revision = source.base, source.revision
    if loading.trained is None and (cause := obstacle(model, POLICY_ADAPTER)):
        loading.say(f"the adapter cannot be merged into its base model when it is exported (--form adapter): {cause}")
    model = model.to(loading.device)
    fuse(model, loading.say)

    def reference(policy: Model) -> Reference:
        if not same_base(against, source):
            return _another(loading, against, policy)
        return OtherAdapter(policy, against) if against.adapter else AdapterOff(policy, against)

    return model, reference, lambda policy: OtherAdapter(policy, against, MOVING_ADAPTER)


def _load_reference(model: Any, adapter: str) -> None:
    try:
        load_adapter(model, adapter, REFERENCE_ADAPTER, is_trainable=False)
        set_dropout(model, REFERENCE_ADAPTER, 0.0)  # it is never trained, and would forbid packing
    except ModelError as error:
        raise ModelError(
            f"{adapter}: this kind of adapter cannot stand beside the policy as the reference; merge it into its base "
            f"model (peft's merge_and_unload) and name that, or take adapter.kind none ({one_line(error, 160)})"
        ) from None


def _all_weights(loading: Loading, against: Source) -> tuple[Any, ReferenceOf, ReferenceOf]:
    model = weights_of(loading, str(loading.trained), None) if loading.trained else start_of(loading)
    model = model.requires_grad_(True).to(loading.device)
    again = replace(loading, say=_unsaid)

    def copied(policy: Model, key: str = "reference") -> Reference:
        def load() -> Model:
            start = start_of(again).to(loading.device).requires_grad_(False).eval()
            return placed(policy.with_network(start), policy.ranks, key, policy.ranks.kept[PLACING])

        return FrozenCopy(against, load, lambda: num_bytes(policy.network), policy.ranks, key)

    def another(policy: Model) -> Reference:
        return _another(loading, against, policy)

    return model, copied if against is loading.source else another, partial(copied, key="moving")


def _unsaid(_: str) -> None:
    """What there is to say about weights was said when they were first loaded."""


def _another(loading: Loading, against: Source, policy: Model) -> FrozenCopy:
    """Return a reference with weights of its own, an adapter on its base as it is, that reads the policy's ids."""
    own = replace(loading, source=against, trained=None, say=_unsaid)

    def load() -> Model:
        network, adapter = base_of(own), None
        if against.adapter:
            network, adapter = (
                load_adapter(network, against.adapter, POLICY_ADAPTER, is_trainable=False),
                POLICY_ADAPTER,
            )
        plain = ModelConfig(layout="auto" if policy.scorer.layout == "packed" else "plain")
        model = with_tokenizer(
            network.to(own.device).requires_grad_(False).eval(),
            policy.tokenizer, against, plain, own.device, policy.dtype,
        )  # fmt: skip
        found, ranks = replace(model, adapter=adapter, now=policy.now), policy.ranks
        return placed(found, ranks, REFERENCE_ADAPTER, ranks.kept[PLACING])

    size = lambda: expected_bytes(empty_of(against), against.quantization, own.dtype)  # noqa: E731
    return FrozenCopy(against, load, size, policy.ranks)


def _refuse_unlike(policy: Model, config: ModelConfig, against: Source) -> None:
    """Raise ModelError where a reference cannot read what the policy is trained on."""
    try:
        refuse_other_ids(policy.tokenizer, config, against)
        most = context_of(shape_of(against.base, against.revision), policy.tokenizer).most
        if most is not None and (policy.context.most is None or most < policy.context.most):
            raise ModelError(
                f"{against.identity}: sees {most} tokens, and the policy {policy.context.most or 'any number'}; name a "
                "model that sees as many"
            )
    except ModelError as error:
        raise ModelError(f"reference.model: {error}") from None


def _remembered(asked: Reference, config: ReferenceConfig, policy: Model, beside: Statistic | None, say: Say) -> Stored:
    folder = platformdirs.user_cache_path("tiebreak") / "reference" if config.store == "auto" else Path(config.store)

    def open_store() -> LogpStore:
        if config.store == "off":
            return LogpStore(None, {})
        of = {"weights": stored.weights, "dtype": str(policy.dtype), "schema": SCHEMA}
        return LogpStore(folder, of if beside is None else of | {"beside": beside.__name__}, say)

    stored = Stored(
        asked, open_store, device=policy.device, dtype=policy.dtype, spot_checks=config.spot_checks, beside=beside
    )
    return stored
