"""How processes share the work elsewhere, in ours: ZeRO stages of DeepSpeed, strategies of FSDP, offloading.

Owns what each of their words means here, and the reason for each that has no counterpart. They stand in files of their
own (a ZeRO JSON, an FSDP JSON), which a configuration names, or in a section of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tiebreak.config.foreign.values import Unfit, flag, is_off

SOURCES = ("deepspeed", "deepspeed_config", "deepspeed_config_file", "zero_optimization", "fsdp_config")
"""Settings that hold others, or name a file of them."""
MAX_BYTES, MAX_DEPTH = 2**20, 4
_STAGES: dict[str, tuple[str, bool | None] | None] = {
    "0": ("ddp", None), "1": None, "2": ("fsdp", False), "3": ("fsdp", True)
}  # fmt: skip
_STRATEGIES = {
    "FULL_SHARD": ("fsdp", True), "SHARD_GRAD_OP": ("fsdp", False), "NO_SHARD": ("ddp", None),
    "HYBRID_SHARD": ("hsdp", True), "HYBRID_SHARD_ZERO2": ("hsdp", False),
}  # fmt: skip
_NUMBERED = dict(enumerate(_STRATEGIES, start=1))
"""As torch numbers them, and accelerate writes them down."""
_STAGE_1 = "stage 1 divides the moments alone, which is not done: auto takes ddp where all fits, else fsdp"
_WHY = {
    "a layer is gathered at a time, so that there are no buckets to size": "allgather_bucket_size allgather_partitions "
    "reduce_bucket_size reduce_scatter contiguous_gradients overlap_comm round_robin_gradients sub_group_size "
    "stage3_max_live_parameters stage3_max_reuse_distance stage3_prefetch_bucket_size "
    "stage3_param_persistence_threshold param_persistence_threshold model_persistence_threshold backward_prefetch "
    "backward_prefetch_policy forward_prefetch limit_all_gathers sync_each_batch",
    "each decoder layer is divided on its own": "auto_wrap auto_wrap_policy transformer_layer_cls_to_wrap "
    "transformer_cls_names_to_wrap min_num_params use_orig_params ignored_modules deepspeed_moe_layer_cls_names "
    "leaf_module",
    "weights are read once, and each process is sent its share": "zero3_init_flag sync_module_states "
    "cpu_ram_efficient_loading load_from_fp32_weights",
    "artefacts are whole, and checkpoints in shares that another number of processes takes": "state_dict_type "
    "stage3_gather_16bit_weights_on_model_save stage3_gather_fp16_weights_on_model_save zero3_save_16bit_model "
    "gather_16bit_weights_on_model_save elastic_checkpoint ignore_unused_parameters",
    "hsdp divides within a machine (distributed.strategy)": "zero_hpz_partition_size mics_shard_size "
    "mics_hierarchical_params_gather",
    "weights are gathered in model.dtype, and gradients summed in float32": "mixed_precision_policy "
    "zero_quantized_weights "
    "zero_quantized_gradients zero_quantized_nontrainable_weights fp16 bf16 amp fp32_reduce_scatter "
    "communication_data_type",
    "training.gradient_checkpointing says it": "activation_checkpointing xla_fsdp_grad_ckpt",
    "FSDP2 is what is taken": "version fsdp_version xla xla_fsdp_v2 xla_fsdp_settings",
    "the launcher says it": "deepspeed_hostfile deepspeed_multinode_launcher deepspeed_inclusion_filter "
    "deepspeed_exclusion_filter",
    "the trainer's own settings say it": "optimizer scheduler gradient_clipping gradient_accumulation_steps "
    "train_batch_size train_micro_batch_size_per_gpu zero_allow_untested_optimizer zero_force_ds_cpu_optimizer "
    "wall_clock_breakdown steps_per_print",
}  # fmt: skip
_REASONS = {name: why for why, names in _WHY.items() for name in names.split()}
_UNREAD = "nothing here reads it"
_OFFLOADS = (
    "offload_optimizer", "offload_param", "offload_optimizer_device", "offload_param_device", "cpu_offload",
    "cpu_offload_params", "offload_params",
)  # fmt: skip


@dataclass
class Shared:
    """What becomes of it: settings of ours with their origins, and what is left out with its reason."""

    lines: dict[str, tuple[Any, str]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    inside: dict[str, Any] = field(default_factory=dict)
    """Values of what stands inside of a setting or in another file, by the name it is told by."""
    used: set[str] = field(default_factory=set)

    def take(self, key: str, value: Any, origin: str) -> None:
        """Set one of ours, unless something has that says more."""
        self.lines.setdefault(f"distributed.{key}", (value, origin))

    def follow(self, told: tuple[str, bool | None], origin: str) -> None:
        """Take a strategy, and whether weights are let go after the forward pass."""
        strategy, reshards = told
        self.take("strategy", strategy, origin)
        if reshards is not None:
            self.take("reshard_after_forward", reshards, origin)


def shared(settings: Mapping[str, Any], folder: Path) -> Shared:
    """Return what a configuration says of sharing, in files that it names from `folder`, in sections, or by the way."""
    found = Shared()
    for key, value in settings.items():
        last = key.rsplit(".", 1)[-1]
        if last in SOURCES and value is not None:
            _open(found, key, value, folder)
        elif last.startswith("fsdp_") or last in ("fsdp", "distributed_type", *_OFFLOADS):
            found.used.add(key)
            _take(found, key, value)
    offloads = "distributed.cpu_offload" in found.lines and found.lines["distributed.cpu_offload"][0]
    if offloads and found.lines.get("distributed.strategy", ("fsdp", ""))[0] == "ddp":
        _, origin = found.lines.pop("distributed.cpu_offload")
        found.left_out[origin.removeprefix("from ")] = "ddp keeps all weights where it computes; take fsdp for it"
    elif offloads:
        found.take("strategy", "fsdp", found.lines["distributed.cpu_offload"][1])
    return found


def _open(found: Shared, key: str, value: Any, folder: Path) -> None:
    where = key
    if isinstance(value, str):
        where, value = f"{key} ({value})", _read(folder, value)
        if isinstance(value, str):
            found.left_out[key] = value
            return
    if not isinstance(value, Mapping):
        return
    found.used.add(key)
    for inner, one in _flat(value):
        told = f"{where}.{inner}"
        found.inside[told] = one
        if inner.rsplit(".", 1)[-1] == "deepspeed_config_file" and isinstance(one, str):
            _open(found, told, one, folder)
        else:
            _take(found, told, one)


def _read(folder: Path, name: str) -> dict[str, Any] | str:
    """Return the settings of a file that is named from where the configuration is, or why there are none."""
    tried = [place for place in (folder / name, Path(name)) if place.is_file()]
    if not tried:
        return "no such file here: what it says is not known"
    try:
        if tried[0].stat().st_size > MAX_BYTES:
            return "larger than a configuration"
        read = json.loads(tried[0].read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return "not JSON"
    return read if isinstance(read, dict) else "no settings in it"


def _flat(tree: Mapping[Any, Any], prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        name = f"{prefix}{key}"
        holds = key in ("zero_optimization", "deepspeed_config", "fsdp_config")
        if holds and isinstance(value, Mapping) and depth < MAX_DEPTH:
            yield from _flat(value, f"{name}.", depth + 1)
        else:
            yield name, value


def _take(found: Shared, key: str, value: Any) -> None:
    """Take one of their settings over, or leave it out."""
    found.inside.setdefault(key, value)
    last, origin = key.rsplit(".", 1)[-1], f"from {key}"
    name = last.removeprefix("fsdp_") if last != "fsdp" else last
    text = str(value).strip()
    if name in ("stage", "zero_stage"):
        known = _STAGES.get(text)
        if known:
            found.follow(known, f"{origin}: stage {text}")
        else:
            found.left_out[key] = _STAGE_1 if text == "1" else "wanted a stage from 0 to 3"
    elif name in ("sharding_strategy", "reshard_after_forward", "fsdp"):
        _take_strategy(found, key, name, value)
    elif name in _OFFLOADS:
        _take_offload(found, key, value)
    elif name == "distributed_type":
        if text.upper() == "MULTI_GPU":
            found.follow(("ddp", None), f"{origin}: {text}")
        elif text.upper() not in ("FSDP", "DEEPSPEED", "NO"):
            found.left_out[key] = "wanted several GPUs, FSDP or DeepSpeed"
    else:
        found.left_out[key] = _REASONS.get(name, _UNREAD)


def _take_strategy(found: Shared, key: str, name: str, value: Any) -> None:
    words = str(value).replace(",", " ").split() if not isinstance(value, list | tuple) else [str(one) for one in value]
    named = [_NUMBERED.get(int(word), word) if word.isdigit() else word.upper() for word in words]
    known = next((_STRATEGIES[word] for word in named if word in _STRATEGIES), None)
    if known:
        found.follow(known, f"from {key}: {' '.join(words)}")
    elif name in ("fsdp", "reshard_after_forward"):
        try:
            on = flag(value)
        except Unfit:
            found.left_out[key] = f"wanted one of {', '.join(_STRATEGIES)}, or true or false"
            return
        if name == "reshard_after_forward":
            found.follow(("fsdp", on), f"from {key}")
        elif on:
            found.take("strategy", "fsdp", f"from {key}")
    elif not is_off(value):
        found.left_out[key] = f"wanted one of {', '.join(_STRATEGIES)}"
    if name == "fsdp" and "OFFLOAD" in named:
        found.take("cpu_offload", True, f"from {key}: offload")


def _take_offload(found: Shared, key: str, value: Any) -> None:
    device = str(value.get("device", "cpu") if isinstance(value, Mapping) else value).strip().lower()
    if device in ("cpu", "true", "yes", "1"):
        found.take("cpu_offload", True, f"from {key}: weights, gradients and moments go together here")
    elif device == "nvme":
        found.left_out[key] = "nothing is kept on disks while training; distributed.cpu_offload takes main memory"
    elif device not in ("none", "false", "no", "0", ""):
        found.left_out[key] = "wanted cpu or none"
