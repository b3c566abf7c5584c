"""Values as other trainers spell them, to ours: pure functions of one value.

Owns what a value of theirs becomes here, and why some become nothing (`Unfit`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

Value = Callable[[Any], Any]


class Unfit(Exception):  # noqa: N818 - a finding, not a slip
    """A value that no setting here can have; `str` says why, or what comes closest."""


def same(value: Any) -> Any:
    """Return the value as it is."""
    return value


def text(value: Any) -> str:
    """Return a text that is not empty."""
    if not isinstance(value, str) or not value.strip():
        raise Unfit("no text")
    return value


def one_text(value: Any) -> str:
    """Return a text, also where a list holds one alone."""
    return text(value[0] if isinstance(value, list | tuple) and len(value) == 1 else value)


def number(value: Any) -> float:
    """Return a number, also one that YAML 1.1 took for text, like 5e-6."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise Unfit("no number") from None


def positive(value: Any) -> float:
    """Return a number above zero; zero switches the setting off there."""
    found = number(value)
    if not found > 0:
        raise Unfit("off there, and always on here")
    return found


def whole(value: Any) -> int:
    """Return a whole number of at least one."""
    found = number(value)
    if not 1 <= found < _HUGE or found != int(found):
        raise Unfit("wanted a whole number from 1 on")
    return int(found)


_HUGE = 2**53


def passes(value: Any) -> int:
    """Return whole passes over the pairs: a part of one becomes one."""
    found = number(value)
    return whole(math.ceil(found) if 0 < found < _HUGE else found)


def whole_or_all(value: Any) -> int:
    """Return a whole number of at least one; below, no limit is meant."""
    if number(value) < 1:
        raise Unfit("no limit, as here")
    return whole(value)


def at_least_two(value: Any) -> int:
    """Return how many checkpoints to keep: one alone could be the damaged one."""
    found = whole(value)
    if found < 2:
        raise Unfit("at least 2 are kept: one alone may be the damaged one")
    return found


def flag(value: Any) -> bool:
    """Return whether a setting is on."""
    if isinstance(value, str) and value.lower() in _FLAGS:
        return _FLAGS[value.lower()]
    if not isinstance(value, bool):
        raise Unfit("neither true nor false")
    return value


_FLAGS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def turned(value: Any) -> bool:
    """Return the opposite of a flag."""
    return not flag(value)


def is_off(value: Any) -> bool:
    """Whether a value says that what it sets is not used."""
    if isinstance(value, str):
        return value.strip().lower() in {"", "none", "false", "no", "off", "null"}
    return value is None or value is False or value in ([], {}) or (type(value) in (int, float) and value == 0)


def timeout(value: Any) -> float:
    """Return how many seconds to wait for another process."""
    found = positive(value)
    if not 1 <= found <= _DAY:
        raise Unfit("more than a day, which is never; wanted seconds up to 86400" if found > _DAY else "below a second")
    return found


_DAY = 86_400


def share(value: Any) -> float:
    """Return a share between 0 and 1."""
    found = number(value)
    if not 0 < found < 1:
        raise Unfit("wanted a share between 0 and 1")
    return found


def share_or_all(value: Any) -> float:
    """Return a share above 0, up to 1."""
    return 1.0 if number(value) == 1 else share(value)


def warmup(value: Any) -> float:
    """Return the share of steps over which the rate rises; a number of steps is no share."""
    found = number(value)
    if not 0 <= found < 1:
        raise Unfit("a number of steps; wanted their share of all steps")
    return found


def heldout_share(value: Any) -> float:
    """Return the share of prompts to hold out; a number of rows is no share."""
    found = number(value)
    if not 0 < found < 1:
        raise Unfit("something is held out always" if found == 0 else "a number of rows; wanted their share of prompts")
    return found


def one_of(**spelled: str | None) -> Value:
    """Return a conversion that takes these spellings (a dash or blank is `_`); None is one that has no equal here."""

    def convert(value: Any) -> str:
        key = re.sub(r"[-. ]", "_", str(value).strip().lower())
        found = spelled.get(key)
        if found is None:
            raise Unfit(f"there is none like it here; wanted {', '.join(key for key in spelled if spelled[key])}")
        return found

    return convert


four_bits = one_of(nf4="nf4", fp4="fp4")
schedule = one_of(
    linear="linear", cosine="cosine", constant="constant", constant_with_warmup="constant", warmup_stable_decay=None
)
truncation = one_of(keep_end="prompt_start", left="prompt_start", delete="drop", drop="drop", keep_start=None)
_OBJECTIVES = {
    "sigmoid": "dpo",
    "dpo": "dpo",
    "hinge": "hinge",
    "robust": "robust",
    "exo_pair": "exo",
    "nca_pair": "nca",
    "sppo_hard": "sppo_hard",
    "aot": "aot",
    "aot_unpaired": "aot_unpaired",
    "apo_zero": "apo_zero",
    "apo_down": "apo_down",
}
"""Objectives whose settings are called the same there, beta and label_smoothing, and mean the same."""


_TERMS = frozenset(_OBJECTIVES) - {"dpo"} | {"ipo", "bco_pair", "discopop", "sft", "sigmoid_norm"}
"""Objectives that TRL takes several of; as terms they have their own settings."""


def objective(value: Any) -> str | list[str]:
    """Return what an objective is called here, where its settings can be taken over by their names.

    Of several, their names there.
    """
    if isinstance(value, list | tuple) and len(value) > 1:
        names = [str(one).strip().lower() for one in value]
        if other := [name for name in names if name not in _TERMS]:
            raise Unfit(f"terms are made of {', '.join(sorted(_TERMS))}, and {other[0]} is none of them")
        return names
    found = _OBJECTIVES.get(str(value).strip().lower())
    if found is None:
        raise Unfit(
            f"taken over are {', '.join(_OBJECTIVES)}; for another one leave it out and set loss yourself, 'tiebreak "
            "losses' lists all with their settings"
        )
    return found


def beside(value: Any) -> float:
    """Return the weight of likelihood beside an objective."""
    if is_off(value) or not number(value) > 0:
        raise Unfit("off there, as here")
    return number(value)


def weighting(value: Any) -> str:
    """Return how pairs are weighed where they are."""
    if not flag(value):
        raise Unfit("off there, as here")
    return "raw"


def divergence(value: Any) -> str:
    """Return what a divergence is called here; the reverse KL divergence is what stands where none is named."""
    if str(value).strip().lower() == "reverse_kl":
        raise Unfit("the usual one, as here")
    return str(_divergence(value))


_divergence = one_of(forward_kl="forward_kl", js_divergence="js", alpha_divergence="alpha")


def divergence_alpha(value: Any) -> float:
    """Return the paper's α of TRL's coefficient, which is 1 − α."""
    found = 1 - number(value)
    if not 0 < found < 1:
        raise Unfit("wanted one between 0 (the forward KL divergence) and 1 (the reverse)")
    return found


adapter = one_of(
    lora="lora", qlora="lora", full="none", none="none", false="none", true="lora", full_finetune="none", fft="none"
)


def dtype(value: Any) -> str:
    """Return the arithmetic that a dtype, or a flag of bf16, asks for."""
    if value is True or str(value).lower() == "full":
        return "bfloat16"
    name = str(value).lower().removeprefix("torch.")
    found = {"bfloat16": "bfloat16", "bf16": "bfloat16", "float32": "float32", "fp32": "float32", "auto": "auto"}
    if name not in found:
        raise Unfit("wanted bfloat16 or float32; auto takes what the device is good at")
    return found[name]


def bf16(value: Any) -> str:
    """Return the arithmetic that a flag of bf16, or DeepSpeed's section of one, asks for; off says nothing."""
    if isinstance(value, dict):
        value = value.get("enabled")
    if is_off(value) or value == "auto":
        raise Unfit("off there; auto takes what the device is good at")
    return dtype(value)


def modules(value: Any) -> Any:
    """Return layer names as a list, or all-linear."""
    names = re.split(r"[,\s]+", value.strip()) if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not names or not all(isinstance(name, str) for name in names):
        raise Unfit("wanted names of layers")
    if names[0] in ("all", "all-linear", "all_linear"):
        return "all-linear"
    if not all(re.fullmatch(r"[\w.]+", name) for name in names):
        raise Unfit("a pattern; wanted names of layers")
    return list(names)


def all_linear(value: Any) -> str:
    """Return all-linear where the flag is on."""
    if not flag(value):
        raise Unfit("off there")
    return "all-linear"


def trackers(value: Any) -> list[str]:
    """Return the trackers to log to as a list."""
    names = [value] if isinstance(value, str) else value
    if is_off(value) or names == ["none"]:
        return []
    if not isinstance(names, list | tuple) or "all" in names:
        raise Unfit("wanted names of trackers")
    return [str(name) for name in names]


def tracker(name: str) -> Value:
    """Return a conversion of a flag that asks for one tracker."""
    return lambda value: [name] if flag(value) else []


def cpu(value: Any) -> str:
    """Return the device where a flag forbids all others."""
    return "cpu" if flag(value) else "auto"


def checkpointing(value: Any) -> bool:
    """Return whether activations are computed twice; kinds of it are one here."""
    return True if isinstance(value, str) and value not in _FLAGS else flag(value)


def store(value: Any) -> str:
    """Return where what the reference says is kept."""
    if not flag(value):
        raise Unfit("off there; here it costs little and is on")
    return "auto"


NOT_TAKEN = "not taken over"


def nothing(_value: Any) -> Any:
    """Refuse any value: what the setting says cannot be said by ours alone."""
    raise Unfit(NOT_TAKEN)


def listed(value: Any) -> list[Any]:
    """Return the items of a list or of text with commas; none of anything else."""
    if isinstance(value, str):
        return [name.strip() for name in value.split(",") if name.strip()]
    return list(value) if isinstance(value, list | tuple) else []
