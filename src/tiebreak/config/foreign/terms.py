"""Several objectives at once, there a list of names with weights, here terms of a sum: what each reads, and its weight.

Owns what of the settings a term is given. Pure: names, weights and settings in, terms out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tiebreak.config.losses import SECTIONS, meant_by
from tiebreak.config.losses.loss import VIEWS

UNSAID = {"loss.beta": 0.1}
"""What all trainers take unsaid, by our dotted key; objectives here have defaults of their own."""
_FROM = {"ipo": {"tau": "loss.beta"}}
"""Settings of an objective that are called otherwise there, by our dotted key of that name."""
_OF_ALL = ("loss.confidence_weights",)
"""What weighs each pair in every term there."""
LIKELIHOOD = "sft is the mean over completions of the mean over their tokens, there the mean over all tokens of a batch"


@dataclass(frozen=True)
class Several:
    """Terms, and what became of the settings that stood beside them."""

    terms: list[dict[str, Any]]
    read: frozenset[str]
    """Settings that a term has, by dotted key."""
    unread: Mapping[str, str]
    """Those that none has, each with the reason."""


def several(
    told: Sequence[tuple[str, float]], settings: Mapping[str, Any], ignored: Mapping[str, Mapping[str, str]]
) -> Several:
    """Return a term for each name and weight, with what it reads of settings by dotted key.

    `ignored` are those that an objective does not read there, though it does here, each with the reason.
    """
    meanings = [(*meant_by(name), weight) for name, weight in told]
    unread: dict[str, str] = {}
    for key in settings:
        own = key.removeprefix("loss.")
        without = [name for name, _, _ in meanings if key not in _read_by(name, ignored)]
        if own in VIEWS:
            unread[key] = f"terms of a sum see the same tokens, and none has {key}"
        elif len(without) == len(meanings) or (without and key in _OF_ALL):
            unread[key] = ignored.get(without[0], {}).get(key, f"{without[0]} does not read {key}")
    terms: list[dict[str, Any]] = []
    read: set[str] = set()
    for name, fixed, weight in meanings:
        keys = {key: own for key, own in _read_by(name, ignored).items() if key not in unread}
        values = {own: settings.get(key, UNSAID.get(key)) for key, own in keys.items()}
        kept = {setting: value for setting, value in values.items() if value is not None}
        terms.append({"name": name, **fixed, **kept, **({"weight": weight} if weight != 1 else {})})
        read |= keys.keys() & settings.keys()
    return Several(terms, frozenset(read), unread)


def _read_by(name: str, ignored: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Return our dotted keys with the settings of an objective that are taken from them."""
    renamed = _FROM.get(name, {})
    found = {renamed.get(own, f"loss.{own}"): own for own in SECTIONS[name].model_fields if own != "name"}
    return {key: own for key, own in found.items() if key not in ignored.get(name, {})}
