"""How many of a file's first rows say a thing before the file says it.

Owns these proportions: one odd row neither settles how all the others are read, nor keeps them from being asked about.
It knows no form.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable
from typing import TypeVar

T = TypeVar("T", bound=Hashable)

NEARLY_ALL = 0.9
"""The share of rows that says it for all; the others are refused one by one, or read as these are."""


def nearly_all(told: Iterable[object]) -> bool:
    """Whether a share of `NEARLY_ALL` is true of what is told; not where nothing is told."""
    found = [bool(one) for one in told]
    return bool(found) and sum(found) >= NEARLY_ALL * len(found)


def not_few(told: Iterable[object]) -> bool:
    """Whether so many are true that the others are not nearly all, or just so; not where nothing is told."""
    found = [bool(one) for one in told]
    return any(found) and len(found) - sum(found) <= NEARLY_ALL * len(found)


def commonest(told: Iterable[T]) -> T:
    """Return what is told most often, of several the first; there has to be something."""
    return Counter(told).most_common(1)[0][0]
