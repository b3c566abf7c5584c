"""The sources that a configuration of another trainer names, as ours: a list, and which of their columns is what.

Owns where a mapping of columns stands here: once where all sources agree, else with each. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tiebreak.config.foreign.entries import Data


@dataclass
class Placed:
    """Settings of ours, each with its value and origin, and what of theirs has no place, with its value and why."""

    lines: dict[str, tuple[Any, str]] = field(default_factory=dict)
    left_out: dict[str, tuple[Any, str]] = field(default_factory=dict)


def placed(found: Data, held: Data) -> Placed:
    """Say which column is what, once where all sources agree, else of each source; held-out pairs have their own.

    A source without a mapping would be read by that of the held-out pairs.
    """
    taken = Placed()
    mappings = {one.columns for one in found.sources}
    heldout = held.sources[0].columns if len(held.sources) == 1 else None
    agreed = len(mappings) == 1 and heldout in (None, *mappings)
    if agreed and (columns := dict(found.sources[0].columns)):
        taken.lines["data.columns"] = (columns, origin_of(found))
    elif heldout and not agreed and () in (mappings or {()}):
        why = "data.columns would be those of data.train, too"
        taken.left_out[f"{held.sources[0].key}.columns"] = (dict(heldout), why)
    elif heldout and not agreed:
        taken.lines["data.columns"] = (dict(heldout), origin_of(held))
    if not found.sources:
        return taken
    sources: list[Any] = []
    for one in found.sources:
        more = ({"weight": one.weight} if one.weight != 1 else {}) | (
            {} if agreed or not one.columns else {"columns": dict(one.columns)}
        )
        sources.append({"path": one.path, **more} if more else one.path)
    is_one = len(sources) == 1 and isinstance(sources[0], str)
    taken.lines["data.train"] = (sources[0] if is_one else sources, origin_of(found))
    return taken


def origin_of(data: Data) -> str:
    """Return which of their settings the sources are taken from, with what is to be known of each."""
    named = [f"from {one.key}" + (f": {one.note}" if one.note else "") for one in data.sources]
    beside = sorted(data.used - {one.key for one in data.sources})
    return "; ".join(dict.fromkeys([*named, *(f"from {key}" for key in beside)]))
