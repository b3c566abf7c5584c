"""How far policies went for what they won: which of several are best at the same KL, and which nobody beats.

Owns comparison at matched KL and the Pareto front. Pure: points in, points out. A policy that has not moved is at KL 0
and wins half of the time, which every curve begins with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import median

from tiebreak.maths.stats import Estimate

START = (0.0, 0.5)
REACHES = 0.5
"""A KL counts as reached in vain below this share of the median: all others would be compared where none of them is."""
FURTHEST = 4.0
"""A policy at more than so many times a KL is not compared at it: nobody knows that its curve was straight so far."""


def matched_kl(kls: Sequence[float]) -> float | None:
    """Return the greatest KL (nats) that all policies reach, but those that hardly moved beside the others.

    Hardly is less than half of the median; None where no policy is at a KL above 0.
    """
    moved = [kl for kl in kls if kl > 0]
    if not moved:
        return None
    return min(kl for kl in moved if kl >= REACHES * median(moved))


def win_rate_of_one(kl: float, reached: Estimate, win_rate: Estimate) -> Estimate:
    """Return the win rate at a KL of a policy that is known where it ended, on a line from one half at KL 0.

    Its interval holds what any KL and any win rate within theirs would give, and so at least as much as either's.
    Raises ValueError where the KL that was reached may be 0: such a line has no slope that is known.
    """
    if reached.low <= 0:
        raise ValueError(f"a KL of {reached.low:g} to {reached.high:g} may be none")
    shares = (kl / reached.low, kl / reached.high)
    ends = [0.5 + share * (end - 0.5) for share in shares for end in (win_rate.low, win_rate.high)]
    mean = 0.5 + kl / reached.mean * (win_rate.mean - 0.5)
    low, high = max(0.0, min(ends)), min(1.0, max(ends))
    return replace(win_rate, mean=mean, low=min(low, mean), high=max(high, mean))


def pareto(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Say of each (KL, win rate) whether no other, nor the start, wins as often for less KL, or more often for as much.

    Of equal points all are on the front.
    """
    rivals = [*points, START]
    return [
        not any(other != (kl, win) and other[0] <= kl and other[1] >= win for other in rivals) for kl, win in points
    ]
