"""Who compares what, in which order, and on which side each completion stands.

Owns all of it as a function of names and a seed: pure, and the same for ever. Knows nothing of texts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from tiebreak.fingerprint import derive_seed, fingerprint

Side = Literal["a", "b"]
OTHER: Mapping[Side, Side] = {"a": "b", "b": "a"}
REPEATED = 0.08
"""Of a person's items, as many come again with sides swapped: how people agree with themselves."""
APART = 20
"""So many others stand between an item and its repetition, or as many as there are."""


@dataclass(frozen=True)
class Turn:
    """One showing to one person."""

    item: str
    left: Side
    """Which completion stands on the left."""
    again: bool = False
    """Whether the person has compared them before, the other way round."""

    @property
    def shown(self) -> dict[str, Side]:
        """What stands where."""
        return {"left": self.left, "right": OTHER[self.left]}


def turns(items: Sequence[str], annotators: Sequence[str], per_item: int, seed: int) -> dict[str, tuple[Turn, ...]]:
    """Return what each annotator is shown, in order.

    Each item goes to `per_item` people, each of whom has as many items as any other, or one more. Of the people of an
    item half see `a` on the left, and so it is of the items of a person, to within one where their number is odd; two
    people of one item see it the other way round. A share of `REPEATED` of a person's items comes again with sides
    swapped, `APART` showings later or more, as far as there are so many.
    """
    shares = assigned(items, annotators, per_item, seed)
    left = sides(shares, seed)
    found = {}
    for name, own in shares.items():
        sequence = sorted(own, key=lambda item: _key(seed, "sequence", item, name))
        first = [Turn(item, left[item, name]) for item in sequence]
        found[name] = tuple(_with_repetitions(first, name, seed))
    return found


def assigned(items: Sequence[str], annotators: Sequence[str], per_item: int, seed: int) -> dict[str, list[str]]:
    """Return the items of each annotator: `per_item` people an item, those with the fewest so far."""
    if len({*items}) != len(items) or len({*annotators}) != len(annotators) or not annotators:
        raise ValueError("items and annotators are named once, and there is at least one annotator")
    if not 1 <= per_item <= len(annotators):
        raise ValueError(f"an item goes to 1 to {len(annotators)} people; found {per_item}")
    found: dict[str, list[str]] = {name: [] for name in annotators}
    for item in sorted(items, key=lambda item: _key(seed, "share", item)):
        by_load = sorted(annotators, key=lambda name: (len(found[name]), _key(seed, "share", item, name)))
        for name in by_load[:per_item]:
            found[name].append(item)
    return found


def sides(shares: Mapping[str, Sequence[str]], seed: int) -> dict[tuple[str, str], Side]:
    """Return which completion stands on the left, by item and annotator; halves wherever there are halves.

    Items and people are the two sides of a graph. Where every corner has an even number of edges, it falls into closed
    trails of even length, whose edges take turns: as many `a` as `b` at each corner. A corner with an odd number first
    gets an edge to nobody, so its numbers differ by one. Where a trail begins is drawn by hash, and what stands there.
    """
    edges = [(item, name) for name, items in shares.items() for item in items]
    edges.sort(key=lambda edge: _key(seed, "edge", *edge))
    ends: list[tuple[_Corner, _Corner]] = [(("item", item), ("person", name)) for item, name in edges]
    ends += _to_nobody(ends)
    at: defaultdict[_Corner, list[int]] = defaultdict(list)
    for number, (one, other) in enumerate(ends):
        at[one].append(number)
        at[other].append(number)
    used = [False] * len(ends)
    found: dict[tuple[str, str], Side] = {}
    for begin, edge in enumerate(edges):
        if used[begin]:
            continue
        side: Side = "a" if int(_key(seed, "side", *edge), 16) % 2 else "b"
        number, corner = begin, ends[begin][0]
        while True:
            used[number] = True
            if number < len(edges):
                found[edges[number]] = side
            one, other = ends[number]
            corner, side = other if corner == one else one, OTHER[side]
            while at[corner] and used[at[corner][-1]]:
                at[corner].pop()
            if not at[corner]:
                break
            number = at[corner].pop()
    return found


_Corner = tuple[str, str]


def _to_nobody(ends: Iterable[tuple[_Corner, _Corner]]) -> list[tuple[_Corner, _Corner]]:
    """Return the edges that make every corner's number even."""
    degree: defaultdict[_Corner, int] = defaultdict(int)
    for one, other in ends:
        degree[one] += 1
        degree[other] += 1
    odd = [corner for corner, num in degree.items() if num % 2]
    items = [corner for corner in odd if corner[0] == "item"]
    people = [corner for corner in odd if corner[0] == "person"]
    nobody, nothing = ("nobody", "person"), ("nobody", "item")
    # Both sides have the same number of edges, so both numbers of odd corners are odd, or both are even.
    between = [(nothing, nobody)] * (len(items) % 2)
    return [(item, nobody) for item in items] + [(nothing, person) for person in people] + between


def _with_repetitions(first: Sequence[Turn], name: str, seed: int) -> list[Turn]:
    """Return a person's showings with those that come again among them: half of them with `a` on the left."""
    num = round(REPEATED * len(first)) if len(first) > 1 else 0
    apart = min(APART, len(first) - num)
    places = sorted(range(len(first) - apart), key=lambda place: _key(seed, "again", first[place].item, name))
    lefts = [place for place in places if first[place].left == "a"]
    others = [place for place in places if first[place].left == "b"]
    by_turns = [place for both in zip(lefts, others, strict=False) for place in both]
    by_turns += lefts[len(others) :] + others[len(lefts) :]
    behind: defaultdict[int, list[Turn]] = defaultdict(list)
    for place in by_turns[:num]:
        turn, least = first[place], place + apart
        slot = least + derive_seed(seed, "slot", turn.item, name) % (len(first) - least)
        behind[slot].append(Turn(turn.item, OTHER[turn.left], again=True))
    return [one for place, turn in enumerate(first) for one in (turn, *behind[place])]


def _key(seed: int, *names: str) -> str:
    return fingerprint([seed, *names])
