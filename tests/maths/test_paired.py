from __future__ import annotations

import random

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

import oracles
from bounds import examples
from tiebreak.maths.paired import holm, mcnemar, resampled, sign_test

SHARE, CHANGE = (0.0, 1.0), (-1.0, 1.0)


def _names(num):
    return [f"prompt{index}" for index in range(num)]


@pytest.mark.parametrize(("ones", "num"), [(0, 64), (1, 64), (4, 64), (19, 20), (20, 20), (50, 100)])
def test_for_zeros_and_ones_the_bounds_are_the_exact_ones(ones, num):
    found = resampled([1.0] * ones + [0.0] * (num - ones), _names(num), SHARE, seed=1, num_resamples=40_000).interval()
    exact = scipy.stats.binomtest(ones, num).proportion_ci(0.95, "exact")
    assert found.mean == ones / num
    # The noise of a 2.5 % quantile of 40,000 draws.
    assert (found.low, found.high) == (pytest.approx(exact.low, abs=0.004), pytest.approx(exact.high, abs=0.004))


def test_differences_that_are_all_the_same_have_the_width_that_their_number_allows():
    found = resampled([0.0] * 72, _names(72), CHANGE, seed=0, num_resamples=40_000).interval()
    bound = 1 - 0.025 ** (1 / 72)
    assert (found.low, found.mean, found.high) == (pytest.approx(-bound, abs=2e-3), 0.0, pytest.approx(bound, abs=2e-3))
    # Without a range nothing is known of what was not seen.
    unbounded = resampled([0.25] * 72, _names(72), None, seed=0).interval()
    assert (unbounded.low, unbounded.high) == (pytest.approx(0.25), pytest.approx(0.25))


def test_swapping_before_and_after_flips_mean_and_bounds():
    draw = np.random.default_rng(2)
    differences, prompts = draw.normal(0.3, 1, 41).tolist(), [str(index % 17) for index in range(41)]
    for ends in (None, (-9.0, 9.0)):
        one = resampled(differences, prompts, ends, seed=4).interval()
        other = resampled([-value for value in differences], prompts, ends, seed=4).interval()
        assert (other.mean, other.low, other.high) == pytest.approx((-one.mean, -one.high, -one.low))


@given(st.lists(st.tuples(st.floats(-1, 1), st.integers(0, 6)), min_size=1, max_size=30), st.randoms())
def test_neither_order_of_items_nor_names_of_clusters_matter(items, shuffle):
    values, clusters = [value for value, _ in items], [str(cluster) for _, cluster in items]
    mixed = list(zip(values, [f"x{9 - int(name)}" for name in clusters], strict=True))
    shuffle.shuffle(mixed)
    one = resampled(values, clusters, CHANGE, 3, 400)
    two = resampled([value for value, _ in mixed], [name for _, name in mixed], CHANGE, 3, 400)
    assert one.interval().low == pytest.approx(two.interval().low, abs=1e-6)
    assert one.interval().high == pytest.approx(two.interval().high, abs=1e-6)
    assert one.standard_error == pytest.approx(two.standard_error, abs=1e-9)


def test_items_of_one_prompt_are_no_new_evidence_and_new_prompts_are():
    values = np.random.default_rng(0).normal(size=40).tolist()
    once = resampled(values, _names(40), None, 1).interval()
    same_prompts = resampled(values * 4, _names(40) * 4, None, 1).interval()
    new_prompts = resampled(values * 4, _names(160), None, 1).interval()
    assert same_prompts.high - same_prompts.low == pytest.approx(once.high - once.low, rel=1e-9)
    assert new_prompts.high - new_prompts.low == pytest.approx((once.high - once.low) / 2, rel=0.25)


@pytest.mark.parametrize("sizes", ["abcdefghij", "aaabbcdddd"])
def test_the_standard_error_is_that_of_clusters(sizes):
    values = [0.3, 0.9, -0.2, 0.1, 0.7, 0.55, -0.6, 0.2, 0.4, 0.0]
    wanted = oracles.clustered_standard_error(values, sizes)
    assert resampled(values, list(sizes), None, 0, 100).standard_error == pytest.approx(wanted)
    assert resampled(values, ["one"] * 10, None, 0, 100).standard_error == pytest.approx(0, abs=1e-12)


DRAWN = {
    "normal values": (lambda rng, n: rng.normal(size=n), 0.0, None, 0.975),
    "rare events": (lambda rng, n: (rng.random(n) < 0.05).astype(float), 0.05, CHANGE, 0.975),
    "wins and losses": (lambda rng, n: (rng.random(n) < 0.6).astype(float), 0.6, SHARE, 0.975),
    "shares near nought": (lambda rng, n: rng.beta(0.5, 5, n), 1 / 11, SHARE, 0.975),
    # The mean of what is far from symmetric and has no known end: the far tail is missed more often than is said.
    "skewed values without an end": (lambda rng, n: rng.lognormal(size=n), np.exp(0.5), None, 0.945),
}


@pytest.mark.parametrize("num", [20, 64])
@pytest.mark.parametrize(("draw", "truth", "ends", "promised"), DRAWN.values(), ids=DRAWN)
def test_each_bound_is_crossed_as_seldom_as_it_says(draw, truth, ends, promised, num):
    rng, trials = np.random.default_rng(5), examples(150, 1000)
    found = [resampled(draw(rng, num).tolist(), _names(num), ends, trial, 500).interval() for trial in range(trials)]
    for kept in (sum(one.low <= truth for one in found), sum(one.high >= truth for one in found)):
        # Below this share lies less than one in a thousand of such series, were the promise kept exactly; 500 draws
        # put half a point of noise on a quantile.
        assert kept >= scipy.stats.binom.ppf(0.001, trials, promised - 0.01)


def test_bounds_of_clustered_values_hold_where_those_of_single_values_do_not():
    rng, held, naive, trials = np.random.default_rng(8), 0, 0, 150
    for trial in range(trials):
        effects, sizes = rng.normal(size=30), rng.integers(1, 6, size=30)
        clusters = [str(i) for i, size in enumerate(sizes) for _ in range(size)]
        values = [effects[int(c)] + 0.5 * rng.normal() for c in clusters]
        found = resampled(values, clusters, None, trial, 500).interval()
        alone = resampled(values, _names(len(values)), None, trial, 500).interval()
        held += found.low <= 0 <= found.high
        naive += alone.low <= 0 <= alone.high
    assert held / trials >= scipy.stats.binom.ppf(0.001, trials, 0.94) / trials
    assert naive / trials < 0.9


@pytest.mark.parametrize("threshold", [0.0, 0.2, 0.3, 0.45])
def test_a_p_value_is_below_alpha_where_the_interval_leaves_the_threshold_out(threshold):
    values = np.random.default_rng(1).beta(2, 5, 60).tolist()
    found = resampled(values, _names(60), SHARE, 2)
    low, high = found.interval(0.95).low, found.interval(0.95).high
    assert (found.p_value(threshold) < 0.05) == (not low <= threshold <= high)
    assert found.p_value(found.mean) > 0.5


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 5))
def test_the_sign_test_is_exact_and_leaves_ties_out(above, below, ties):
    values = [1.0] * above + [-1.0] * below + [0.0] * ties
    if not values:
        return
    wanted = oracles.sign_test(above, below)
    assert sign_test(values, _names(len(values))) == pytest.approx(wanted)
    assert sign_test([value + 0.5 for value in values], _names(len(values)), 0.5) == pytest.approx(wanted)
    # Eight answers of one prompt are one sign.
    assert sign_test(values * 8, _names(len(values)) * 8) == pytest.approx(wanted)
    before, after = [float(v < 0) for v in values], [float(v > 0) for v in values]
    assert mcnemar(before, after) == pytest.approx(wanted)
    assert mcnemar(after, before) == pytest.approx(wanted)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_is_the_slow_definition_and_keeps_the_order(p_values):
    found = holm(p_values)
    assert found == pytest.approx(oracles.holm(p_values))
    assert all(p <= q <= 1 for p, q in zip(p_values, found, strict=True))
    assert holm(p_values[::-1]) == pytest.approx(found[::-1])
    assert holm([]) == []


def test_of_true_nulls_holm_lets_at_most_one_in_twenty_series_through():
    draw = random.Random(3)
    series = [holm([draw.random() for _ in range(5)]) for _ in range(2000)]
    assert sum(min(one) < 0.05 for one in series) <= scipy.stats.binom.ppf(0.999, 2000, 0.05)


def test_nothing_has_no_mean():
    with pytest.raises(ValueError, match="at least one"):
        resampled([], [], None, 0)
    with pytest.raises(ValueError, match="same length"):
        resampled([1.0], ["a", "b"], None, 0)
