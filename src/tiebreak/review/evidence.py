"""What is known of a review: each number by its name, and when the win rate is no evidence.

Owns both. How the numbers come about is that of `results`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from tiebreak.maths.intervals import wilson

FAST = "fast"
"""What votes that were too fast are called, where names of people stand."""
MIN_ITEMS, MIN_SHARED, MIN_ALPHA = 30, 10, 0.2
"""On fewer items, fewer that two voted on, or with less agreement, a win rate is no evidence."""
MOST_MISSING = 0.1
"""Nor is it where a larger share of the comparisons that were asked is not made. People leave a few out; but whoever
looks after each vote and stops once the number pleases finds `b` better in 12 of 100 reviews of 200 items where nothing
differs, and so may whoever puts votes away. Within the last tenth alone it is 4 of 100, and 3 without a look before the
end (600 reviews drawn by chance)."""


@dataclass(frozen=True)
class Share:
    """A share of cases with its 95 % interval."""

    value: float
    low: float
    high: float
    num: int

    @staticmethod
    def of(count: int, num: int, confidence: float = 0.95) -> Share | None:
        """Return a share with Wilson's interval; None where there is no case."""
        if not num:
            return None
        low, high = wilson(count / num, num, confidence)
        return Share(count / num, float(low), float(high), num)

    @property
    def excludes_half(self) -> bool:
        """Whether chance alone hardly gives it."""
        return self.beside_half != 0

    @property
    def beside_half(self) -> int:
        """1 where its interval lies above one half, -1 where it lies below, 0 where it holds that."""
        return (self.low > 0.5) - (self.high < 0.5)


@dataclass(frozen=True)
class Person:
    """What one annotator did."""

    name: str
    num_done: int
    num_showings: int
    num_votes: int
    """Votes that count: first showings that were not skipped, nor excluded."""
    num_skipped: int
    num_fast: int
    """Votes in less time than reading takes."""
    seconds: float | None
    """The median time of a vote; None where the page could not tell."""
    win_rate: Share | None
    """How often `b` wins by this person alone, prompts resampled."""
    left: Share | None
    """How often the left one, of first showings where one was better."""
    self_agreement: Share | None
    """How often the same again, of what was shown a second time the other way round."""
    excluded: bool = False


@dataclass(frozen=True)
class Unhurried:
    """What the votes that count come to without those that were too fast."""

    num_fast: int
    """Of `num_votes`, how many were too fast."""
    num_judged_items: int
    win_rate: Share | None


@dataclass(frozen=True)
class Results:
    """All that is known of a review so far. What nothing is known of is None, and no verdict stands on it."""

    sides: Mapping[str, str]
    """What `a` and `b` are called: the wins of `b` are counted."""
    num_items: int
    num_judged_items: int
    num_prompts: int
    """Prompts of the items that were judged."""
    num_votes: int
    win_rate: Share | None
    """How often `b` wins: each item counts once, by the mean of its votes, ties and both bad one half; prompts
    resampled."""
    ties: Share | None
    both_bad: Share | None
    alpha: Share | None
    """Krippendorff's alpha, nominal, over a, b and tie; None: `alpha_lacks` says what for."""
    alpha_lacks: str
    self_agreement: Share | None
    position_bias: Share | None
    """How often the left one, of first votes for either."""
    biased: tuple[str, ...]
    """Who chose a side rather than an answer, everybody together among them."""
    num_fast: int
    unhurried: Unhurried | None
    """What is left where votes that were too fast are put away; None where none of those that count was."""
    more_items: int | None
    """How many more items would narrow the interval to ±5 points, were they like these; None where nothing is known."""
    people: tuple[Person, ...]
    excluded: tuple[str, ...]
    """Whose votes do not count, by whoever asked for it: names, or fast."""
    num_excluded: int
    left_out: Mapping[str, int]
    """What of the source was not asked, by reason."""
    chosen_actively: bool
    doubts: tuple[str, ...]
    """Why the win rate is no evidence; none: it is."""
    values: Mapping[str, tuple[str, float]]
    """Prompt and value of each item that was judged: what the win rate is the mean of."""

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON, without the value of each item."""
        told = asdict(self)
        del told["values"]
        return told | {"biased": list(self.biased), "excluded": list(self.excluded), "doubts": list(self.doubts)}


def with_doubts(found: Results) -> Results:
    """Return the results with why they are no evidence."""
    doubts = []
    if found.chosen_actively:
        doubts.append("items were chosen by how close they are, and say nothing of the rest")
    if found.num_judged_items < MIN_ITEMS:
        doubts.append(f"{found.num_judged_items} items were judged, and at least {MIN_ITEMS} are needed")
    done, asked = sum(one.num_done for one in found.people), sum(one.num_showings for one in found.people)
    if asked - done > MOST_MISSING * asked:
        doubts.append(
            f"{done} of {asked} comparisons that were asked are made: whoever stops when the number pleases is no "
            "evidence"
        )
    if found.biased and found.position_bias:
        share = f"the left one in {found.position_bias.value:.0%} of {found.position_bias.num} choices"
        doubts.append(f"position bias ({', '.join(found.biased)}; {share})")
    if named := [name for name in found.excluded if name != FAST]:
        doubts.append(f"votes of {', '.join(named)} were taken out when they could be seen")
    if found.alpha is None and sum(one.num_votes > 0 and not one.excluded for one in found.people) > 1:
        doubts.append(f"agreement is not known: {found.alpha_lacks}")
    if found.alpha and found.alpha.num < MIN_SHARED:
        doubts.append(f"agreement is not known: two voted on {found.alpha.num} items, and {MIN_SHARED} are needed")
    if found.alpha and found.alpha.value < MIN_ALPHA:
        doubts.append(f"people do not agree: alpha is {found.alpha.value:.2f}, and {MIN_ALPHA:g} is needed")
    return replace(found, doubts=(*doubts, *_of_fast_votes(found)))


def _of_fast_votes(found: Results) -> Iterator[str]:
    """Yield why votes that were too fast are the ground of a win rate; none where the others say the same."""
    if (rest := found.unhurried) is None or found.win_rate is None:
        return
    most = 2 * rest.num_fast > found.num_votes
    few = rest.num_judged_items < MIN_ITEMS <= found.num_judged_items
    other = rest.win_rate is None or found.win_rate.beside_half != rest.win_rate.beside_half
    if most or few or other:
        left = "no vote is left" if rest.win_rate is None else (
            f"{rest.num_judged_items} items are left, with a win rate of {rest.win_rate.value:.0%} "
            f"({rest.win_rate.low:.0%} … {rest.win_rate.high:.0%})"
        )  # fmt: skip
        yield (
            f"{rest.num_fast} of {found.num_votes} votes came in less time than reading takes, and the win rate rests "
            f"on them: without them {left}; --exclude {FAST} leaves them out"
        )
