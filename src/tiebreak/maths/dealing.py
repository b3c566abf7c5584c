"""How the examples of a step are dealt to processes, so that none waits long for another.

Owns who gets which. Pure: sizes in, places out; every process computes the same.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence


def deal(sizes: Sequence[int], num_hands: int) -> list[list[int]]:
    """Return the places that each of `num_hands` hands gets, in rising order; together they are all, each once.

    The largest first, each to whoever has least (Graham 1969): no hand gets more than 4/3 of what the best deal would
    give the fullest one. The first hand gets the largest example, so it is empty only where there is none.
    """
    hands: list[list[int]] = [[] for _ in range(num_hands)]
    least = [(0, hand) for hand in range(num_hands)]
    for place in sorted(range(len(sizes)), key=lambda place: (-sizes[place], place)):
        size, hand = least[0]
        hands[hand].append(place)
        heapq.heapreplace(least, (size + sizes[place], hand))
    return [sorted(places) for places in hands]


def balance(sizes: Sequence[int], hands: Sequence[Sequence[int]]) -> float:
    """Return the mean of what hands hold by the most that one holds, 0 to 1: the share of the time that all work."""
    held = [sum(sizes[place] for place in places) for places in hands]
    most = max(held, default=0)
    return sum(held) / (len(held) * most) if most else 1.0
