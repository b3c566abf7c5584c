"""Positions that stretch: models whose RoPE depends on the longest row of a forward pass, and on what came before it.

Owns which rows may share a forward pass, so that each gets the numbers that it gets alone from a model just loaded.
`longrope` has one set of frequencies up to a length and another beyond; `dynamic` has one for each length beyond, and
keeps the longest it met.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from tiebreak.engine.attention import causal_model


@dataclass(frozen=True)
class Stretching:
    """The lengths (tokens) at which frequencies change; none of either kind where positions never stretch."""

    switches: tuple[int, ...]
    """Longer rows than this have other frequencies, whatever their length."""
    grows: tuple[int, ...]
    """Longer rows than this have frequencies of their length alone."""

    def company(self, num_tokens: int) -> tuple[int, ...]:
        """Return what rows must have in common to share a forward pass."""
        return (*(int(num_tokens > most) for most in self.switches), *(max(num_tokens, most) for most in self.grows))

    def parties(self, lengths: Iterable[int]) -> list[list[int]]:
        """Return the places of rows that may share a forward pass, in their order."""
        found: dict[tuple[int, ...], list[int]] = {}
        for place, length in enumerate(lengths):
            found.setdefault(self.company(length), []).append(place)
        return list(found.values())

    def is_settled(self, num_tokens: int) -> bool:
        """Whether rows up to this length have the same frequencies however long they are."""
        return self.company(num_tokens) == self.company(1)


def rope_settings(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the settings of RoPE in a configuration: one for all layers, or one for each kind of layer."""
    rope = config.get("rope_parameters") or {}
    yield rope
    yield from (value for value in rope.values() if isinstance(value, Mapping))


def stretching_of(model: Any) -> Stretching:
    """Return at which lengths the frequencies of a transformers model change."""
    config = causal_model(model).config.get_text_config().to_dict()
    switches, grows = set(), set()
    for setting in rope_settings(config):
        kind = str(setting.get("rope_type"))
        most = int(config.get("max_position_embeddings") or 0)
        if "dynamic" in kind:
            grows.add(most)
        elif kind == "longrope":
            switches.add(int(setting.get("original_max_position_embeddings") or most))
    return Stretching(tuple(sorted(switches)), tuple(sorted(grows)))


def forget_lengths(model: nn.Module) -> None:
    """Give dynamic RoPE the frequencies back that it was loaded with, by showing it a row of one token."""
    for module in model.modules():
        kind = vars(module).get("rope_type")
        position = torch.zeros(1, 1, dtype=torch.long, device=next(model.parameters()).device)
        if isinstance(kind, str) and "dynamic" in kind:
            module(position.float(), position)
        elif isinstance(kind, Mapping):
            for layers in (layers for layers, own in kind.items() if "dynamic" in str(own)):
                module(position.float(), position, layers)
