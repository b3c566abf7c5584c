"""Whether a judge may be believed: how often it prefers what people preferred.

Owns what counts as agreement, and from when on a judge is better than chance. Pure: preferences in, numbers out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from tiebreak.evaluation.judges.judge import TIE, Preference
from tiebreak.fingerprint import derive_seed
from tiebreak.maths.paired import resampled

CHANCE, LITTLE = 0.5, 0.55
"""A judge that certainly agrees below `LITTLE` of where it decides could hardly show what training changes."""
MIN_PROMPTS = 20
MIN_JUDGED = 0.5
"""Share of pairs that a judge must have judged: those that it chose to judge say nothing about the others."""
_ALIKE = math.log(1.25)


@dataclass(frozen=True)
class Bucket:
    """Agreement on some of the pairs."""

    name: str
    mean: float
    low: float
    high: float
    num: int


@dataclass(frozen=True)
class Agreement:
    """How often a judge prefers what people prefer; a tie is one half. NaN where nothing was judged."""

    mean: float
    low: float
    high: float
    num: int
    """Pairs that were judged."""
    num_prompts: int
    num_not_judged: int
    ties: float
    """Share of the judged pairs that the judge called a tie, flips among them."""
    flip_rate: float
    """Share of the judged pairs where the order of the answers changed what it said."""
    at_first: float | None
    """How often it was for the answer shown first; None where the order cannot matter."""
    decided: Bucket | None
    """On the pairs that it called no tie; None where it called all so."""
    buckets: Sequence[Bucket]
    """On pairs whose preferred side is longer, shorter or about as long, where lengths are known."""
    confidence: float = 0.95

    @property
    def verdict(self) -> Literal["pass", "fail", "inconclusive"]:
        """pass: certainly better than chance. fail: certainly of little use. inconclusive: not known."""
        if self.is_partial or self.num_prompts < MIN_PROMPTS:
            return "inconclusive"
        if self.low > CHANCE:
            return "pass"
        is_of_little_use = self.decided is None or self.decided.high < LITTLE
        return "fail" if is_of_little_use or self.high < CHANCE else "inconclusive"

    @property
    def is_partial(self) -> bool:
        """Whether too few pairs were judged to say anything: calls that failed may bring more the next time."""
        return self.num < MIN_JUDGED * (self.num + self.num_not_judged)

    @property
    def is_usable(self) -> bool:
        """Whether it agrees with people better than chance: nothing may be decided on a judge that does not."""
        return self.verdict == "pass"

    @property
    def says(self) -> str:
        """What was found and what follows, in one sentence."""
        if not self.num:
            return f"none of {self.num_not_judged} pairs was judged"
        found = f"agrees with people on {_percent(self.mean)} of {self.num} pairs ({_percent(self.low)} … "
        found += f"{_percent(self.high)}, {self.num_prompts} prompts)"
        if self.verdict == "pass":
            return f"{found}: better than chance"
        if self.verdict == "fail":
            against = "against what they prefer" if self.high < CHANCE else "no better than chance, or hardly"
            return f"{found}: {against}; it may decide nothing"
        if self.is_partial:
            return f"{found}: {self.num_not_judged} more were not judged, too many to tell"
        if self.num_prompts < MIN_PROMPTS:
            return f"{found}: at least {MIN_PROMPTS} prompts are needed to tell"
        return f"{found}: whether that is better than chance is not known; more pairs would tell"

    def lines(self) -> list[str]:
        """Return it for people."""
        told = [f"  {one.name}: {_percent(one.mean)} of {one.num} ({_percent(one.low)} … {_percent(one.high)})"
                for one in (*([self.decided] if self.decided else []), *self.buckets)]  # fmt: skip
        if self.at_first is not None:
            told.append(f"  for the answer shown first: {_percent(self.at_first)}")
        return [self.says, *told]

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON takes it; what is not known is null."""
        nowhere = [] if self.num else ["mean", "low", "high", "ties", "flip_rate"]
        told = asdict(self) | dict.fromkeys(nowhere)
        return {**told, "verdict": self.verdict, "is_usable": self.is_usable, "says": self.says}


def agreement(
    preferences: Sequence[Preference],
    prompts: Sequence[str],
    lengths: Sequence[tuple[int, int]] = (),
    *,
    seed: int = 0,
    confidence: float = 0.95,
) -> Agreement:
    """Return how a judge agrees with people, from what it said of pairs whose first answer is the one people preferred.

    Pairs of one prompt are not independent: the interval is over prompts. `lengths` are those of both answers, in any
    unit, for the buckets.
    """
    if len(preferences) != len(prompts) or len(lengths) not in (0, len(prompts)):
        raise ValueError("preferences, prompts and lengths are of the same length")
    places = [place for place, one in enumerate(preferences) if one.first is not None]
    judged = [preferences[place] for place in places]

    def interval(some: Sequence[int], name: str) -> tuple[float, float, float, int]:
        if not some:
            return math.nan, math.nan, math.nan, 0
        values = [float(preferences[place].first or 0.0) for place in some]
        found = resampled(values, [prompts[place] for place in some], (0.0, 1.0), derive_seed(seed, "agreement", name))
        bounds = found.interval(confidence)
        return bounds.mean, bounds.low, bounds.high, found.num_clusters

    open_ = [place for place in places if preferences[place].first != TIE]
    buckets = []
    for name, lies_in in _BUCKETS.items() if lengths else ():
        some = [place for place in places if lies_in(_log_ratio(lengths[place]))]
        if some:
            buckets.append(Bucket(name, *interval(some, name)[:3], len(some)))
    mean, low, high, num_prompts = interval(places, "all")
    leaning = [one.at_first for one in judged if one.at_first is not None]
    return Agreement(
        mean,
        low,
        high,
        num=len(judged),
        num_prompts=num_prompts,
        num_not_judged=len(preferences) - len(judged),
        ties=_share([one.first == TIE for one in judged]),
        flip_rate=_share([one.flipped for one in judged]),
        at_first=sum(leaning) / len(leaning) if leaning else None,
        decided=Bucket("where it decides", *interval(open_, "decided")[:3], len(open_)) if open_ else None,
        buckets=buckets,
        confidence=confidence,
    )


_BUCKETS: dict[str, Callable[[float], bool]] = {
    "the preferred one is longer": lambda ratio: ratio > _ALIKE,
    "about as long": lambda ratio: abs(ratio) <= _ALIKE,
    "the preferred one is shorter": lambda ratio: ratio < -_ALIKE,
}


def _log_ratio(lengths: tuple[int, int]) -> float:
    return math.log((lengths[0] + 1) / (lengths[1] + 1))


def _share(flags: Sequence[bool]) -> float:
    return sum(flags) / len(flags) if flags else math.nan


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
