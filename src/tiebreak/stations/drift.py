"""Whether a judge still says what it said: how two of its words on the same answers agree.

Owns what agreement of two words is. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from tiebreak.stations.rows import Verdict


def agreement(first: Sequence[Verdict], second: Sequence[Verdict]) -> float | None:
    """Return the share of couples of answers that two words order alike; where one of them ties, a couple is one half.

    Couples that both tie, as equal texts do, order nothing and do not count, nor does what either left open. Both words
    are on the same answers in the same order. None where nothing is left.
    """
    alike, num = 0.0, 0
    for one, two in zip(first, second, strict=True):
        if one.prompt_id != two.prompt_id or len(one.scores) != len(two.scores):
            raise ValueError(f"verdicts on other answers: prompts {one.prompt_id[:12]} and {two.prompt_id[:12]}")
        both = [(a, b) for a, b in zip(one.scores, two.scores, strict=True) if a is not None and b is not None]
        for (a, b), (other_a, other_b) in combinations(both, 2):
            signs = (a > other_a) - (a < other_a), (b > other_b) - (b < other_b)
            if any(signs):
                alike += 1 - abs(signs[0] - signs[1]) / 2
                num += 1
    return alike / num if num else None
