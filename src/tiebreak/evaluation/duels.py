"""Held-out completions that were judged one at a time, set against each other: good against bad.

Owns which meets which. How often the policy puts the good one first is its accuracy on them, as on pairs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle

from tiebreak.engine.baseline import mismatched
from tiebreak.records import TokenizedThumb


@dataclass(frozen=True)
class Duel:
    """A good completion and a bad one; duels of one cluster are not independent of each other."""

    good: TokenizedThumb
    bad: TokenizedThumb
    cluster: str


def mismatches(thumbs: Sequence[TokenizedThumb]) -> list[Duel]:
    """Return a duel for each completion: against that of another prompt, which answers this one by chance alone.

    For demonstrations, of which none is bad. Empty where all have one prompt.
    """
    ordered = sorted(thumbs, key=lambda thumb: (thumb.prompt_id, thumb.example_id))
    # With several prompts every completion meets one; with one prompt none does.
    return [Duel(one, other, one.prompt_id) for one, other in zip(ordered, mismatched(ordered), strict=False)]


def duels(thumbs: Sequence[TokenizedThumb]) -> list[Duel]:
    """Return duels in which every completion takes part, in an order set by hashes; none without both verdicts.

    Good and bad completions of one prompt meet one to one. What is left of a prompt has one verdict; it meets what is
    left of a prompt of the other verdict, and the shorter of both comes as often as it is needed. Where prompts of one
    verdict run out, those that were met are met again: each prompt hangs on one other at most, so clusters stay small.
    """
    by_prompt: dict[str, dict[bool, list[TokenizedThumb]]] = defaultdict(lambda: {True: [], False: []})
    for thumb in sorted(thumbs, key=lambda thumb: thumb.example_id):
        by_prompt[thumb.prompt_id][thumb.liked].append(thumb)
    met = [couple for _, sides in sorted(by_prompt.items()) for couple in zip(sides[True], sides[False], strict=False)]
    left: dict[bool, dict[str, list[TokenizedThumb]]] = {True: {}, False: {}}
    for prompt, sides in sorted(by_prompt.items()):
        shared = min(map(len, sides.values()))
        for verdict, own in sides.items():
            left[verdict] |= {prompt: own[shared:]} if own[shared:] else {}
    many = len(left[True]) >= len(left[False])
    # With none left of one verdict, those that have met their own are met again, by their own prompt's first.
    hubs = left[not many] or {prompt: sides[not many] for prompt, sides in by_prompt.items() if sides[not many]}
    hung, turn = dict[str, str](), cycle(sorted(hubs))
    for prompt, more in left[many].items() if hubs else ():
        hung[prompt] = prompt if prompt in hubs else next(turn)
        fewer = hubs[hung[prompt]]
        for at in range(max(len(more), len(fewer))):
            one, other = more[at % len(more)], fewer[at % len(fewer)]
            met.append((one, other) if many else (other, one))
    found = []
    for good, bad in met:  # of two prompts one hangs on the other, and takes the meetings of its own along
        prompt = bad.prompt_id if bad.prompt_id in hung else good.prompt_id
        found.append(Duel(good, bad, hung.get(prompt, prompt)))
    return sorted(found, key=lambda duel: (duel.cluster, duel.good.example_id, duel.bad.example_id))
