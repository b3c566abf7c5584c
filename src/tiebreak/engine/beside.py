"""How files say that weights lie, or lay, in four bits: a model's own configuration, and what stands beside an adapter.

Owns the file beside adapters and its words, which are those of transformers' BitsAndBytesConfig: whoever has an adapter
alone learns there on what it was trained. peft's adapter_config.json has no place for it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tiebreak.config import QuantizationConfig
from tiebreak.errors import ModelError, one_line

FILE = "quantization_config.json"


def in_words(told: Any) -> QuantizationConfig | None:
    """Return what a quantization_config says; None where it says anything but four bits of bitsandbytes."""
    if not isinstance(told, Mapping) or not (told.get("load_in_4bit") or told.get("_load_in_4bit")):
        return None
    kind, double = told.get("bnb_4bit_quant_type", "fp4"), told.get("bnb_4bit_use_double_quant", False)
    known = kind in ("nf4", "fp4") and isinstance(double, bool)
    return QuantizationConfig(kind=kind, double=double) if known else None


def beside(folder: Path) -> QuantizationConfig | None:
    """Return on what the adapter of a folder was trained; None where nothing says that its base model was quantised.

    Raises ModelError where what is said cannot be read, or is of no kind that is known here.
    """
    file = folder / FILE
    if not file.is_file():
        return None
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{file}: cannot be read ({one_line(error, 80)}); bring it back from a copy") from None
    if found := in_words(told):
        return found
    raise ModelError(f"{file}: names no quantization that is known here; wanted one of bitsandbytes, nf4 or fp4")


def write_beside(folder: Path, told: Mapping[str, Any]) -> None:
    """Write on what the adapter of a folder was trained, as a configuration of transformers says it."""
    plain = {key: value for key, value in told.items() if isinstance(value, str | int | float | bool | list | None)}
    text = json.dumps(plain | {"quant_method": "bitsandbytes"}, indent=2)
    (folder / FILE).write_text(text + "\n", encoding="utf-8")
