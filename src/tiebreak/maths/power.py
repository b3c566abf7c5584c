"""How many items a question needs, and what a number of items can see. Pure formulas, before and after measuring.

Owns sample sizes. By default 80 % power at a two-sided level of 5 %.
"""

from __future__ import annotations

import math
from statistics import NormalDist

POWER, LEVEL = 0.8, 0.05

LENGTH_CORRELATION = 0.99
"""Of a win rate and that at equal length over many samples of the same size, where lengths have no say; tests/maths."""


def _quantile(share: float) -> float:
    return NormalDist().inv_cdf(share)


def pairs_for_win_rate(gain: float, power: float = POWER, level: float = LEVEL, *, twice: bool = False) -> int:
    """Return the judged pairs that tell a win rate of one half plus `gain` (0..0.5) from one half.

    The least number from which on every number has that power by the exact binomial test, without ties; they narrow
    the variance, so that with them fewer are enough. The power of an exact test goes up and down as pairs are added
    (Chernick & Liu 2002), and the normal distribution's n = ((z_a · 1/2 + z_b · sqrt(p (1 − p))) / gain)², p = 1/2 +
    gain (Fleiss, Levin & Paik 2003, ch. 2) promises up to five points too much.

    `twice`: the win rate has to hold with the lengths of answers taken out, too (`maths.length_control`).
    """
    import numpy as np  # noqa: PLC0415  loaded where they are used: `import tiebreak` stays fast
    from scipy.stats import binom  # noqa: PLC0415

    p, wanted = 0.5 + gain, _each_of_two(power) if twice else power
    noise = _quantile(1 - level / 2) * 0.5 + _quantile(wanted) * math.sqrt(p * (1 - p))
    least = math.ceil((noise / gain) ** 2)
    nums = np.arange(max(least // 2, 1), least + math.ceil(6 / gain) + 20)
    beyond = binom.isf(level / 2, nums, 0.5)  # the most wins that do not tell it from one half
    short = np.flatnonzero(binom.sf(beyond, nums, p) < wanted)
    return int(nums[short[-1] + 1]) if len(short) else int(nums[0])


def _each_of_two(power: float) -> float:
    """Return the power that a win rate needs for itself, so that both, it and that at equal length, hold so often."""
    from scipy.optimize import brentq  # noqa: PLC0415  loaded where they are used: `import tiebreak` stays fast
    from scipy.stats import multivariate_normal  # noqa: PLC0415

    both = multivariate_normal([0, 0], [[1, LENGTH_CORRELATION], [LENGTH_CORRELATION, 1]])
    return float(brentq(lambda one: both.cdf([_quantile(one)] * 2) - power, power, 1 - (1 - power) / 10))


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
