from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from bounds import examples
from tiebreak.maths.length_control import pseudo_values
from tiebreak.maths.paired import resampled
from tiebreak.maths.power import (
    LENGTH_CORRELATION,
    clusters_to_decide,
    items_for_change,
    minimum_detectable,
    pairs_for_win_rate,
)


@pytest.mark.parametrize(
    ("gain", "power", "normal"), [(0.02, 0.8, 4904), (0.05, 0.8, 783), (0.01, 0.9, 26265), (0.1, 0.9, 259)]
)
def test_pairs_for_a_win_rate_are_some_more_than_those_of_the_tables(gain, power, normal):
    """The tables are of the normal distribution."""
    assert normal < pairs_for_win_rate(gain, power) < normal + 2 / gain


@pytest.mark.parametrize(("gain", "power"), [(0.5, 0.8), (0.45, 0.9), (0.3, 0.8), (0.1, 0.9), (0.02, 0.8)])
def test_every_number_of_pairs_from_there_on_has_the_power_and_the_one_before_has_not(gain, power):
    def shown(num: int) -> float:
        wins = np.arange(1, num + 1)  # the lower end of Clopper and Pearson 1934, without the binomial distribution
        tells = wins[scipy.stats.beta.ppf(0.025, wins, num - wins + 1) > 0.5]
        return scipy.stats.binom.sf(tells[0] - 1, num, 0.5 + gain) if len(tells) else 0.0

    num = pairs_for_win_rate(gain, power)
    later = [num + more for more in ((0, 1, 2, 5, 11, 50) if num < 1000 else (0,))]
    assert all(shown(one) >= power for one in later)
    assert shown(num - 1) < power


def test_a_rate_that_has_to_hold_twice_needs_some_more_and_the_two_go_together_as_is_assumed():
    assert pairs_for_win_rate(0.1) < pairs_for_win_rate(0.1, twice=True) < 1.1 * pairs_for_win_rate(0.1)
    rng, rates = np.random.default_rng(4), []
    for _ in range(examples(300, 3000)):
        preferred, longer = (rng.random(200) < 0.6).astype(float), rng.normal(0, 40, 200)
        rates.append((preferred.mean(), np.mean(pseudo_values(preferred.tolist(), longer.tolist()))))
    assert np.corrcoef(np.transpose(rates))[0, 1] == pytest.approx(LENGTH_CORRELATION, abs=0.01)


def test_items_for_a_change_are_those_of_mcnemar_s_test():
    assert items_for_change(0.02, 0.10) == 1960
    assert items_for_change(0.02, 0.20) > items_for_change(0.02, 0.10) > items_for_change(0.05, 0.10)


@pytest.mark.parametrize("gain", [0.05, 0.1])
def test_that_many_pairs_show_the_gain_as_often_as_planned(gain):
    num, rng = pairs_for_win_rate(gain), np.random.default_rng(1)
    wins = rng.binomial(num, 0.5 + gain, size=4000)
    shown = [scipy.stats.binomtest(int(won), num).pvalue < 0.05 for won in wins]
    assert np.mean(shown) == pytest.approx(0.8, abs=0.03)


def test_the_least_effect_that_would_be_seen_is_seen_as_often_as_planned():
    rng, num = np.random.default_rng(2), 60
    effect = minimum_detectable(1 / np.sqrt(num))
    assert effect == pytest.approx(2.8016 / np.sqrt(num), rel=1e-4)
    shown = [scipy.stats.ttest_1samp(rng.normal(effect, 1, num), 0).pvalue < 0.05 for _ in range(2000)]
    assert np.mean(shown) == pytest.approx(0.8, abs=0.04)


@pytest.mark.parametrize(("distance", "changed"), [(0.1, 0.1), (0.1, 0.3), (0.15, 0.2)])
def test_the_number_that_would_decide_decides_as_often_as_planned(distance, changed):
    num = clusters_to_decide(distance, np.sqrt(changed), 1.0)
    rng, trials = np.random.default_rng(3), examples(100, 1000)
    names = [str(index) for index in range(num)]
    drawn = rng.choice([-1.0, 0.0, 1.0], p=[changed / 2, 1 - changed, changed / 2], size=(trials, num))
    highs = [resampled(row.tolist(), names, (-1.0, 1.0), trial, 500).interval().high for trial, row in enumerate(drawn)]
    # 80 % less what the normal distribution promises too much, and more than three standard errors of 100 trials.
    assert 0.65 <= np.mean([high < distance for high in highs]) <= 0.95


def test_no_number_decides_about_what_lies_on_its_threshold_and_equal_values_need_the_rule_of_their_number():
    assert clusters_to_decide(0.0, 0.3, 1.0) is None
    assert clusters_to_decide(0.05, 0.0, 1.0) == 72
    assert 0.025 ** (1 / 72) >= 0.95 > 0.025 ** (1 / 71)
    assert clusters_to_decide(0.5, 0.0, 0.1) == 1
