"""The shape of a model: what its config.json says of it, without a weight.

Owns how that file is read, and how a shape becomes one of another depth.
"""

from __future__ import annotations

from typing import Any

import transformers

from tiebreak.engine.sources import explained


def shape_of(name: str, revision: str | None) -> Any:
    """Return the configuration of a base model, a folder or a hub id; raises ModelError where there is none."""
    with explained(name):
        return transformers.AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=False)


def of_depth(shape: Any, depth: int) -> Any:
    """Return the shape of a model of another number of layers; what is said of each layer is said again, or not."""
    told = shape.to_dict()
    text = told["text_config"] if isinstance(told.get("text_config"), dict) else told
    layers = int(shape.get_text_config().num_hidden_layers)
    for key, value in text.items():
        if isinstance(value, list) and len(value) == layers:
            text[key] = (value * depth)[:depth]
    own = type(shape.get_text_config()).attribute_map.get("num_hidden_layers", "num_hidden_layers")
    text[own] = depth
    return type(shape).from_dict(told)
