"""Which adapters can be taken up again: those that leave the base model as its files hold it, in every row alike.

Owns the fields of an adapter_config.json that are known to do so. Any other that says something is refused by name: an
adapter may change its base model whenever it is loaded (PiSSA), and loaded twice, as policy and as reference, twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_PLAIN = frozenset(
    (
        *("peft_type", "auto_mapping", "base_model_name_or_path", "revision", "task_type", "peft_version"),
        *("inference_mode", "r", "lora_alpha", "lora_dropout", "rank_pattern", "alpha_pattern", "use_rslora"),
        *("use_dora", "bias", "lora_bias", "fan_in_fan_out", "target_modules", "exclude_modules", "target_parameters"),
        *("layers_to_transform", "layers_pattern", "modules_to_save", "trainable_token_indices"),
        *("ensure_weight_tying", "megatron_config", "megatron_core", "runtime_config", "qalora_group_size"),
        # Read by the draw of a new adapter alone, which init_lora_weights names.
        *("loftq_config", "eva_config", "corda_config", "lora_ga_config"),
    )
)
_DRAWN_APART = (None, True, False, "true", "gaussian", "orthogonal", "eva")
"""Draws of a new adapter after which the base model is what it was."""


def changed_by(settings: Mapping[str, Any]) -> str | None:
    """Return what of an adapter's settings makes it more than LoRA, rsLoRA or DoRA on its base model, or None.

    None of adapters that are no LoRA, too: those are refused for what they are.
    """
    if settings.get("peft_type") != "LORA":
        return None
    drawn = settings.get("init_lora_weights")
    if not any(drawn is plain or (isinstance(drawn, str) and drawn == plain) for plain in _DRAWN_APART):
        return (
            f"init_lora_weights {drawn!r} may change the base model each time it is loaded; save it as a plain one "
            "(peft's save_pretrained with path_initial_model_for_weight_conversion)"
        )
    for name, value in settings.items():
        if name not in _PLAIN and name != "init_lora_weights" and value not in (None, False, "", [], {}):
            return f"{name} is set, and only plain LoRA, rsLoRA and DoRA are known here; train such a one"
    return None
