"""Which pairs are held out: a pure hash of prompt or group, so neither is on both sides, in any run or order."""

from __future__ import annotations

from collections.abc import Sequence

from tiebreak.fingerprint import fingerprint, unit_interval
from tiebreak.records import Asked, Judgement


def is_heldout(pair: Judgement | Asked, share: float) -> bool:
    """Say whether a pair or a prompt falls into the held-out share (0..1): by its group where one is stated."""
    return unit_interval(pair.split_key) < share


def is_set_aside(pair: Judgement, share: float) -> bool:
    """Say whether a held-out pair falls into the share that runs do not look at: by another hash than that of sides."""
    return unit_interval(fingerprint(["aside", pair.split_key])) < share


def split(pairs: Sequence[Judgement], share: float) -> tuple[list[Judgement], list[Judgement]]:
    """Return (train, heldout), each in the order given."""
    sides: tuple[list[Judgement], list[Judgement]] = ([], [])
    for pair in pairs:
        sides[is_heldout(pair, share)].append(pair)
    return sides
