"""Which pairs are held out: a pure hash of prompt or group, so neither is on both sides, in any run or order."""

from __future__ import annotations

from collections.abc import Sequence

from tiebreak.fingerprint import unit_interval
from tiebreak.records import Pair


def is_heldout(pair: Pair, share: float) -> bool:
    """Say whether a pair falls into the held-out share (0..1): by its group where one is stated, else by its prompt."""
    return unit_interval(pair.split_key) < share


def split(pairs: Sequence[Pair], share: float) -> tuple[list[Pair], list[Pair]]:
    """Return (train, heldout), each in the order given."""
    sides: tuple[list[Pair], list[Pair]] = ([], [])
    for pair in pairs:
        sides[is_heldout(pair, share)].append(pair)
    return sides
