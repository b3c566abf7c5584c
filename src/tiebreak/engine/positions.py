"""How many tokens a model can see at once, from its configuration and tokenizer alone: no weights are read.

Owns what ends a model's positions. A table of positions, learned or computed beforehand, ends in an index error;
positions that are turned into angles (RoPE) never end, but those beyond the training were never seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# Recurrent, without positions, or with a table that grows.
_ENDLESS = {"jamba", "kimi_linear", "nemotron_h", "rwkv", "xglm", "zamba"}
# Their first position is the one after the padding id, so that this many of the table are never used.
_BEHIND_PADDING = {
    "camembert",
    "data2vec-text",
    "roberta",
    "roberta-prelayernorm",
    "xlm-roberta",
    "xlm-roberta-xl",
    "xmod",
}
_NO_LIMIT = 10**12
"""transformers' tokenizers say 1e30 where nobody has stated a limit."""


@dataclass(frozen=True)
class Context:
    """Tokens of prompt plus completion that a model can see; None where nothing ends it."""

    most: int | None = None
    """More of them fail: the model has no further positions."""
    made_for: int | None = None
    """More of them work, and mean positions that training has never shown to the model; at most `most`."""

    def limit(self, max_length: int) -> int:
        """Return the most tokens that may be scored, where the settings allow `max_length`."""
        return max_length if self.most is None else min(max_length, self.most)


def context_of(config: Any, tokenizer: Any) -> Context:
    """Return the context that transformers' configuration of a model, and the tokenizer beside it, speak of."""
    text = config.get_text_config()
    settings = text.to_dict()
    stated = getattr(text, "max_position_embeddings", None)  # under this name for most, whatever config.json calls it
    stated = settings.get("max_seq_len") if stated is None else stated
    stated = stated if isinstance(stated, int) and stated > 0 and not settings.get("alibi") else None
    ropes = _ropes(settings.get("rope_parameters"))
    named = tokenizer.model_max_length
    named = int(named) if 0 < named < _NO_LIMIT else None
    if stated is None:
        return Context(None, named)
    if ropes or text.model_type in _ENDLESS:
        return Context(None, min(max([stated, *(_extended(stated, rope) for rope in ropes)]), named or _NO_LIMIT))
    most = stated - (text.pad_token_id + 1 if text.model_type in _BEHIND_PADDING else 0)
    return Context(most, min(most, named or most))


def _ropes(parameters: Any) -> list[Mapping[str, Any]]:
    """Return the settings of every RoPE of a model; some have one for each kind of layer."""
    if not isinstance(parameters, Mapping):
        return []
    nested = [value for value in parameters.values() if isinstance(value, Mapping)]
    return nested or [parameters]


def _extended(stated: int, rope: Mapping[str, Any]) -> int:
    """Return the length that a scaling stretches RoPE to; other scalings are part of the stated length already."""
    if rope.get("rope_type") not in ("linear", "dynamic", "yarn"):
        return stated
    return int((rope.get("original_max_position_embeddings") or stated) * (rope.get("factor") or 1))
