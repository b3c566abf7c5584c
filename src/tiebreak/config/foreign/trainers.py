"""The trainers whose configurations are known: how each is recognised, what it does, and what it takes unsaid.

Owns these rows. Defaults are theirs, for what changes what is learned, as of TRL 1, LLaMA-Factory 0.9, Axolotl 0.12 and
ms-swift 3.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tiebreak.config.commands import quoted
from tiebreak.config.foreign.found import Foreign
from tiebreak.config.foreign.names import name_of
from tiebreak.config.foreign.values import is_off
from tiebreak.config.settings import Config
from tiebreak.errors import ConfigError


@dataclass(frozen=True)
class Trainer:
    """One trainer: its signs and what holds where its configuration says nothing."""

    name: str
    title: str
    signs: frozenset[str]
    """Settings and words that it alone has."""
    task: tuple[str, ...]
    """Settings that say what is done; the first that is given counts."""
    tasks: frozenset[str]
    """Values of these by which it learns from preference pairs, by DPO."""
    untold: str | None
    """What it does where none of these is given; None: DPO."""
    defaults: Mapping[str, Any]
    """By our dotted key."""
    micro_batch: int
    full: Mapping[str, Any] = field(default_factory=dict)
    """Where all weights are trained, these in place of the defaults."""
    notes: Mapping[str, str] = field(default_factory=dict)
    """What is to be known of a default, by our dotted key."""
    apart: Mapping[str, str] = field(default_factory=dict)
    """What it takes unsaid that no setting here says, by its name there."""
    step_pairs: int = 0
    """Pairs of a step, of all processes, that it accumulates to unless told; 0: it does not accumulate."""
    step_total: str | None = None
    """The setting of all pairs of a step on one process."""
    against_base: bool = False
    """Whether an adapter that is trained on is compared with its base model, where no reference is named."""
    limits_each: bool = False
    """Whether a number of rows is of each data set, and not of all together."""
    unlimited: str | None = None
    """The setting of a length that null lifts."""
    unread: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """By our name of an objective, what it does not read there though it does here: our dotted key, and the reason."""
    four_bits: tuple[str, Any] | None = None
    """The switch of four bits with its value, where it is on unless told."""
    learns: bool = True
    """Whether it says what is learned, and not alone how processes share the work."""


def _trainer(name: str, title: str, signs: str, *, micro_batch: int = 8, **more: Any) -> Trainer:
    return Trainer(name, title, frozenset(signs.split()), micro_batch=micro_batch, **more)


TRAINERS = {
    trainer.name: trainer
    for trainer in (
        _trainer(
            "trl", "TRL",
            "dataset_name dataset_train_split dataset_test_split dataset_config use_peft lora_target_modules DPOConfig "
            "DPOTrainer LoraConfig get_peft_model trl loss_type model_init_kwargs precompute_ref_log_probs "
            "sync_ref_model dataset_mixer dataset_splits dataset_configs dataset_mixture",
            task=(), tasks=frozenset(), untold=None,
            defaults={"adapter.kind": "none", "adapter.rank": 16, "adapter.alpha": 32.0, "adapter.dropout": 0.05,
                      "adapter.target_modules": "all-linear",
                      "training.epochs": 3, "training.learning_rate": 1e-6, "training.warmup_share": 0.0},
            notes={"adapter.target_modules": "all-linear here, and there PEFT's list for the kind of model where "
                                             "nothing is said (often q_proj, v_proj)"},
            unread={"dpo": {"loss.label_smoothing": "TRL 1 does not read it with sigmoid; older versions do, and "
                                                    "here it is the assumed share of flipped labels: set it if meant"}},
            unlimited="max_length",
        ),
        _trainer(
            "llama-factory", "LLaMA-Factory",
            "stage finetuning_type pref_beta pref_loss pref_ftx cutoff_len dataset_dir lora_rank lora_target val_size "
            "overwrite_cache quantization_bit llamafactory-cli plot_loss",
            task=("stage",), tasks=frozenset({"dpo"}), untold="sft",
            defaults={"adapter.kind": "lora", "adapter.rank": 8, "training.epochs": 3, "training.learning_rate": 5e-5,
                      "data.max_length": 2048,
                      "training.warmup_share": 0.0},
            against_base=True, limits_each=True,
        ),
        _trainer(
            "axolotl", "Axolotl",
            "base_model rl micro_batch_size sequence_len val_set_size num_epochs dataset_prepared_path sample_packing "
            "lora_target_linear lr_scheduler optimizer special_tokens flash_attention adapter rl_beta axolotl",
            task=("rl",), tasks=frozenset({"dpo"}), untold="supervised fine-tuning",
            defaults={"adapter.kind": "none", "training.epochs": 1, "data.max_length": 512,
                      "adapter.target_modules": "all-linear",
                      "training.warmup_share": 0.03, "training.schedule": "cosine"},
            notes={"training.warmup_share": "its default, there of at most 100 steps",
                   "adapter.target_modules": "all-linear here, and there PEFT's list for the kind of model, or none"},
            step_total="batch_size", micro_batch=1,
        ),
        _trainer(
            "ms-swift", "ms-swift",
            "rlhf_type train_type tuner_type split_dataset_ratio swift rlhf target_modules quant_bits "
            "attn_impl model_author val_dataset add_version load_from_cache_file",
            task=("rlhf_type",), tasks=frozenset({"dpo"}), untold=None,
            defaults={"adapter.kind": "lora", "adapter.rank": 8, "adapter.alpha": 32.0, "adapter.dropout": 0.05,
                      "training.epochs": 3, "training.learning_rate": 1e-4, "training.warmup_share": 0.0,
                      "training.schedule": "cosine", "training.weight_decay": 0.1},
            apart={"adam_beta2": "not set there, which is 0.95; the optimizer is AdamW, betas 0.9 and 0.999",
                   "rpo_alpha": "not set there, which is 1.0 before ms-swift 3.8 (here a term {name: sft, weight: "
                                "1.0}), and none since"},
            step_pairs=16, against_base=True,
            full={"training.learning_rate": 1e-5},
            unlimited="max_length",
            micro_batch=1,
        ),
        _trainer(
            "deepspeed", "DeepSpeed",
            "zero_optimization train_micro_batch_size_per_gpu train_batch_size wall_clock_breakdown steps_per_print "
            "zero_allow_untested_optimizer bf16 fp16",
            task=(), tasks=frozenset(), untold=None, defaults={}, learns=False,
        ),
        _trainer(
            "accelerate", "accelerate",
            "compute_environment distributed_type mixed_precision machine_rank main_training_function rdzv_backend "
            "same_network downcast_bf16 tpu_use_cluster num_machines num_processes fsdp_config deepspeed_config",
            task=(), tasks=frozenset(), untold=None, defaults={}, learns=False,
        ),
    )
}  # fmt: skip
_LORA_CONFIG = {
    "adapter.kind": "lora",
    "adapter.rank": 8,
    "adapter.alpha": 8.0,
    "adapter.dropout": 0.0,
    "adapter.target_modules": "all-linear",
}
"""What PEFT takes where LoraConfig(…) says nothing."""


_UNSLOTH = {
    "adapter.kind": "lora",
    "adapter.rank": 16,
    "adapter.alpha": 16.0,
    "adapter.dropout": 0.0,
    "adapter.target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
}
"""What Unsloth takes where get_peft_model(…) says nothing."""
_UNSLOTH_NAMES = frozenset(["FastLanguageModel", "FastModel", "FastVisionModel"])
_OTHERS = {
    "OpenRLHF": re.compile(r"openrlhf.*|micro_train_batch_size|ref_pretrain"),
    "torchtune": re.compile(r"torchtune.*|_component_"),
    "verl": re.compile(r"verl(\..*)?|actor_rollout_ref"),
}
"""Trainers that are known and not taken over, by what they alone have."""
_LEARNED = re.compile(r"(loss|adapter)\..*|data\.(train|max_length)|training\.(learning_rate|epochs)|model\.name")
"""Settings of ours that say what is learned: who has them does not say alone how work is shared."""


def four_bits_of(trainer: Trainer, found: Foreign) -> Mapping[str, Any]:
    """Return what four bits are where the configuration switches them on and says no more.

    BitsAndBytesConfig(load_in_4bit=True) has defaults of its own.
    """
    is_raw = "BitsAndBytesConfig" in found.words
    double = (trainer.name != "trl" or bool(_UNSLOTH_NAMES & found.words)) and not is_raw
    return {"quantization.kind": "fp4" if is_raw else "nf4", "quantization.double": double}


def recognised(found: Foreign, named: str | None, path: Path) -> Trainer:
    """Return the trainer whose it is; raises ConfigError where that cannot be told, or it is none for pairs."""
    _refuse_other_classes(found, path)
    sections = {key.partition(".")[0] for key in found.settings}
    if named is None and sections and sections <= Config.model_fields.keys():
        raise ConfigError(f"{path}: is a configuration of tiebreak already: 'tiebreak train {quoted(str(path))}'")
    if named is not None and named not in TRAINERS:
        raise ConfigError(f"--trainer {named}: wanted one of {', '.join(TRAINERS)}")
    if named is None:
        keys = {key.rsplit(".", 1)[-1] for key in found.settings} | found.words
        _refuse_other_trainers(keys | sections, path)
        names = [name_of(key) for key in found.settings]
        is_learned = any(name is not None and name.ours and _LEARNED.fullmatch(name.ours) for name in names)
        asked = {name: trainer for name, trainer in TRAINERS.items() if trainer.learns or not is_learned}
        counts = {name: len(keys & trainer.signs) for name, trainer in asked.items()}
        best = [name for name, count in counts.items() if count == max(counts.values())]
        if len(best) > 1:
            raise ConfigError(
                f"{path}: whose configuration it is cannot be told; name it: --trainer {'|'.join(TRAINERS)}"
            )
        named = best[0]
    trainer = TRAINERS[named]
    _refuse_other_tasks(trainer, found, path)
    return _as_called(trainer, found)


def _as_called(trainer: Trainer, found: Foreign) -> Trainer:
    """Return a trainer with what holds unsaid where a file calls these libraries beside it."""
    defaults, notes, four_bits = dict(trainer.defaults), dict(trainer.notes), trainer.four_bits
    if "TrainingArguments" in found.words and "DPOConfig" not in found.words:
        defaults["training.learning_rate"] = 5e-5
        notes["training.learning_rate"] = "the default of TrainingArguments"
    if _UNSLOTH_NAMES & found.words:
        others = [found.settings.get(key) for key in ("load_in_8bit", "load_in_16bit", "full_finetuning")]
        four_bits = ("load_in_4bit", True) if all(map(is_off, others)) else None
        if "get_peft_model" in found.words:
            defaults |= _UNSLOTH
            notes |= dict.fromkeys(_UNSLOTH, "the default of Unsloth")
    elif {"LoraConfig", "get_peft_model"} & found.words:
        defaults |= _LORA_CONFIG
    elif any(re.fullmatch(r"(Auto)?PeftModel\w*", word) for word in found.words):
        defaults = {key: value for key, value in defaults.items() if not key.startswith("adapter.")}
        defaults["adapter.kind"] = "lora"
        notes["adapter.kind"] = "the adapter that PeftModel loads is trained on, as it is"
    return replace(trainer, defaults=defaults, notes=notes, four_bits=four_bits)


def _refuse_other_trainers(words: set[str] | frozenset[str], path: Path) -> None:
    for title, signs in _OTHERS.items():
        if any(map(signs.fullmatch, words)):
            names = ", ".join(trainer.title for trainer in TRAINERS.values() if trainer.learns)
            raise ConfigError(f"{path}: is a configuration of {title}; taken over are those of {names}")


_WANTED = "tiebreak learns from preference pairs, by DPO"


def _refuse_other_classes(found: Foreign, path: Path) -> None:
    """Refuse the settings of TRL's other trainers, such as SFTConfig(…)."""
    classes = {word for word in found.words if re.fullmatch(r"[A-Z]{3,5}Config|RewardConfig|OnlineDPOConfig", word)}
    if classes and "DPOConfig" not in classes:
        raise ConfigError(f"{path}: is a configuration of {', '.join(sorted(classes))}; {_WANTED}")


def _refuse_other_tasks(trainer: Trainer, found: Foreign, path: Path) -> None:
    if not trainer.task:
        return
    told = next((found.settings[key] for key in trainer.task if found.settings.get(key) is not None), trainer.untold)
    if told is not None and str(told).lower() not in trainer.tasks:
        given = next((f"{key}: {told}" for key in trainer.task if key in found.settings), None)
        said = given or f"without {trainer.task[0]}, which means {told}"
        raise ConfigError(f"{path}: is a configuration of {trainer.title} for another task ({said}); {_WANTED}")
