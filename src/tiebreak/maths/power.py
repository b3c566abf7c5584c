"""How many items a question needs, and what a number of items can see. Pure formulas, before and after measuring.

Owns sample sizes. By default 80 % power at a two-sided level of 5 %.
"""

from __future__ import annotations

import math
from statistics import NormalDist

POWER, LEVEL = 0.8, 0.05


def _quantile(share: float) -> float:
    return NormalDist().inv_cdf(share)


def pairs_for_win_rate(gain: float, power: float = POWER, level: float = LEVEL) -> int:
    """Return the judged pairs that tell a win rate of one half plus `gain` (0..0.5) from one half.

    n = ((z_a · 1/2 + z_b · sqrt(p (1 − p))) / gain)², p = 1/2 + gain: the test of one proportion (Fleiss, Levin & Paik
    2003, ch. 2), without ties. Ties narrow the variance, so with them fewer are enough.
    """
    p = 0.5 + gain
    noise = _quantile(1 - level / 2) * 0.5 + _quantile(power) * math.sqrt(p * (1 - p))
    return math.ceil((noise / gain) ** 2)


def items_for_change(change: float, discordant: float, power: float = POWER, level: float = LEVEL) -> int:
    """Return the items that show a `change` of a share where `discordant` of them turn from right to wrong or back.

    n = ((z_a · sqrt(d) + z_b · sqrt(d − change²)) / change)²: McNemar's test, Connor 1987.
    """
    noise = _quantile(1 - level / 2) * math.sqrt(discordant)
    noise += _quantile(power) * math.sqrt(max(discordant - change**2, 0.0))
    return math.ceil((noise / change) ** 2)


def minimum_detectable(standard_error: float, power: float = POWER, level: float = LEVEL) -> float:
    """Return the least true distance from a threshold that a mean of this standard error would show so often.

    (z_a + z_b) · SE: Bloom 1995, "Minimum detectable effects".
    """
    return (_quantile(1 - level / 2) + _quantile(power)) * standard_error


def clusters_to_decide(
    distance: float, spread: float, reach: float, power: float = POWER, level: float = LEVEL
) -> int | None:
    """Return the clusters with which a mean at this `distance` from its threshold would be told from it.

    `spread` is the standard deviation of one cluster, `reach` how far the end of the range lies from the mean, on the
    threshold's side (`maths.paired.resampled` puts one more cluster there). None where no number would do.

    The n of distance = (z_a + z_b) · spread / sqrt(n) + reach / n, and at least that at which n equal values leave the
    threshold out: (level / 2)^(1 / n) = 1 − distance / reach.
    """
    if distance <= 0:
        return None
    noise = minimum_detectable(spread, power, level)
    root = (noise + math.sqrt(noise**2 + 4 * distance * reach)) / (2 * distance)
    alike = math.log(level / 2) / math.log1p(-distance / reach) if 0 < distance < reach else 0.0
    return max(math.ceil(root**2), math.ceil(alike), 1)
