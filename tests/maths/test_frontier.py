"""Win rates at the same KL, the Pareto front, and the difference of two means."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiebreak.maths.frontier import matched_kl, pareto, win_rate_of_one
from tiebreak.maths.stats import Estimate, clustered_mean, difference

POINTS = st.lists(st.tuples(st.floats(0, 50), st.floats(0, 1)), min_size=1, max_size=12)


def test_the_same_kl_is_the_least_that_a_trial_reached_unless_it_hardly_moved():
    assert matched_kl([4.0, 8.0, 6.0]) == 4.0
    assert matched_kl([0.1, 8.0, 6.0]) == 6.0  # the first hardly moved: where it is, none of them is anything
    assert matched_kl([-0.2, 3.0]) == 3.0
    assert matched_kl([-0.2, 0.0]) is None
    assert matched_kl([]) is None


def test_the_interval_shrinks_as_the_way_back_to_the_start_does():
    found = win_rate_of_one(2.0, Estimate(4.0, 4.0, 4.0, 10, 10), Estimate(0.9, 0.7, 1.0, 10, 10))
    assert (found.mean, found.low, found.high) == pytest.approx((0.7, 0.6, 0.75))


def test_the_interval_of_a_win_rate_at_a_kl_takes_that_of_the_kl_in():
    found = win_rate_of_one(2.0, Estimate(4.0, 2.0, 8.0, 10, 10), Estimate(0.7, 0.4, 0.8, 10, 10))
    assert (found.mean, found.low, found.high) == pytest.approx((0.6, 0.4, 0.8))
    with pytest.raises(ValueError, match="may be none"):
        win_rate_of_one(2.0, Estimate(0.4, -0.15, 1.01, 10, 10), Estimate(0.7, 0.4, 0.8, 10, 10))


@given(POINTS)
def test_the_front_is_what_nobody_beats(points):
    def beaten(one):
        return any(o[0] <= one[0] and o[1] >= one[1] and o != one for o in [*points, (0.0, 0.5)])

    assert pareto(points) == [not beaten(one) for one in points]


def test_a_trial_that_wins_less_than_half_is_never_on_the_front():
    assert pareto([(3.0, 0.4), (5.0, 0.8), (6.0, 0.8), (9.0, 0.9)]) == [False, True, False, True]


def test_the_difference_of_independent_means_covers_the_truth_nineteen_times_in_twenty():
    draw, hits = random.Random(3), 0
    for trial in range(100):
        sides = [[draw.gauss(mean, 1) for _ in range(60)] for mean in (0.7, 0.4)]
        one, other = (clustered_mean(side, [str(at) for at in range(60)], trial) for side in sides)
        found = difference(one, other)
        assert found.mean == pytest.approx(one.mean - other.mean)
        hits += found.low <= 0.3 <= found.high
    assert 89 <= hits <= 100
