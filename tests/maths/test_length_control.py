"""A win rate at equal length: against another implementation, and against planted length hackers."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from tiebreak.maths import length_control
from tiebreak.maths.length_control import RIDGE, length_term


def length_controlled(preferences, differences, prompts, seed=0):
    return length_control.length_controlled([*map(float, preferences)], [*map(float, differences)], prompts, seed)


def drawn(num: int, *, merit: float, by_length: float, longer: float, seed: int = 0):
    """Preferences of a judge that likes merit and length, of a policy whose answers are so much longer on average."""
    rng = np.random.default_rng(seed)
    differences = rng.normal(longer, 100.0, num)
    p = 1 / (1 + np.exp(-(merit + by_length * np.tanh(differences / differences.std()))))
    return (rng.random(num) < p).astype(float), differences, [f"p{number}" for number in range(num)]


def by_sklearn(preferences, differences) -> float:
    """The same model by another's solver; a preference in between is two items with weights."""
    y = np.asarray(preferences)
    features = np.column_stack([np.ones(len(y)), np.tanh(np.asarray(differences) / np.std(differences))])
    fitted = LogisticRegression(C=1 / RIDGE, fit_intercept=False, tol=1e-10, max_iter=10_000).fit(
        np.vstack([features, features]), np.repeat([1, 0], len(y)), sample_weight=np.concatenate([y, 1 - y])
    )
    return float(1 / (1 + np.exp(-fitted.coef_[0, 0])))


@pytest.mark.parametrize("seed", range(3))
def test_it_is_what_another_implementation_finds(seed):
    wins, differences, prompts = drawn(150, merit=0.4, by_length=1.0, longer=60.0, seed=seed)
    wins[::7] = 0.5
    found = length_controlled(wins, differences, prompts, seed)
    assert found.mean == pytest.approx(by_sklearn(wins, differences), abs=1e-6)
    assert found.low < found.mean < found.high


def test_a_policy_that_only_grew_longer_does_not_win_at_equal_length():
    wins, differences, prompts = drawn(600, merit=0.0, by_length=2.0, longer=100.0)
    found = length_controlled(wins, differences, prompts, 0)
    assert wins.mean() > 0.7
    assert found.low < 0.5 < found.high


def test_a_policy_that_is_better_though_shorter_wins_more_at_equal_length():
    wins, differences, prompts = drawn(600, merit=1.0, by_length=2.0, longer=-100.0)
    found = length_controlled(wins, differences, prompts, 0)
    assert wins.mean() < 0.5 < found.low
    assert found.low < 1 / (1 + np.exp(-1.0)) < found.high


def test_where_every_answer_has_grown_alike_nobody_can_tell():
    wins, differences, prompts = drawn(200, merit=0.0, by_length=2.0, longer=0.0)
    assert length_controlled(wins, np.full(200, 80.0), prompts, 0) is None
    assert length_controlled(wins, 1000 + differences, prompts, 0) is None


def test_with_no_difference_of_length_it_is_the_win_rate():
    wins = [1.0, 1.0, 1.0, 0.0, 0.5] * 40
    found = length_controlled(wins, [0.0] * 200, [str(number) for number in range(200)], 0)
    assert found.mean == pytest.approx(0.7, abs=1e-3)


def test_swapping_the_sides_swaps_the_win_rate():
    wins, differences, prompts = drawn(80, merit=0.3, by_length=1.0, longer=40.0)
    one = length_controlled(wins, differences, prompts, 0)
    two = length_controlled(1 - wins, -differences, prompts, 0)
    assert one.mean == pytest.approx(1 - two.mean, abs=1e-9)
    assert (one.low, one.high) == (pytest.approx(1 - two.high, abs=0.01), pytest.approx(1 - two.low, abs=0.01))


def test_answers_that_win_every_time_leave_room_below():
    found = length_controlled([1.0] * 30, list(range(-15, 15)), [str(number) for number in range(30)], 0)
    assert found.mean > 0.97
    assert 0.8 < found.low < 0.97


def test_many_pairs_of_one_prompt_widen_the_interval():
    wins, differences, prompts = drawn(100, merit=0.5, by_length=0.5, longer=0.0)
    alone = length_controlled(np.repeat(wins, 4), np.repeat(differences, 4), [f"{n}" for n in range(400)], 0)
    together = length_controlled(np.repeat(wins, 4), np.repeat(differences, 4), np.repeat(prompts, 4).tolist(), 0)
    assert alone.mean == pytest.approx(together.mean)
    assert together.high - together.low > 1.5 * (alone.high - alone.low)


def test_its_interval_holds_the_truth_as_often_as_it_says():
    truth, held = 1 / (1 + np.exp(-0.5)), 0
    for seed in range(60):
        found = length_controlled(*drawn(120, merit=0.5, by_length=1.0, longer=30.0, seed=seed), seed)
        held += found.low <= truth <= found.high
    assert held >= 54  # of 60 at 95 %: the chance of fewer is below 2 in 100


def test_the_term_is_bounded_and_keeps_the_sign():
    term = length_term(np.array([-1e6, -1.0, 0.0, 1.0, 1e6]))
    assert np.all(np.abs(term) <= 1)
    assert np.array_equal(np.sign(term), [-1, -1, 0, 1, 1])


def test_values_of_different_lengths_are_refused():
    for values in (([1.0], [1.0, 2.0], ["a"]), ([], [], [])):
        with pytest.raises(ValueError, match="of the same length, at least one"):
            length_controlled(*values)


def test_pseudo_values_have_the_controlled_rate_as_their_mean_and_its_error_as_their_spread():
    rng = np.random.default_rng(7)
    differences = rng.normal(20, 60, 120)
    won = (rng.random(120) < 1 / (1 + np.exp(-(0.4 + 1.2 * np.tanh(differences / 60))))).astype(float)
    values = np.array(length_control.pseudo_values(won.tolist(), differences.tolist()))
    prompts = [f"p{i}" for i in range(120)]
    found = length_control.length_controlled(won.tolist(), differences.tolist(), prompts, 0)
    assert values.mean() == pytest.approx(found.mean, abs=0.01)  # up to the jackknife's own correction of bias
    width = 2 * 1.96 * values.std(ddof=1) / np.sqrt(120)
    assert width == pytest.approx(found.high - found.low, rel=0.15)


def test_there_are_no_pseudo_values_where_length_and_merit_cannot_be_told_apart():
    assert length_control.pseudo_values([1.0, 0.0, 1.0], [50.0, 50.0, 50.0]) is None
    assert length_control.pseudo_values([1.0], [3.0]) is None
    equal = length_control.pseudo_values([1.0, 0.0, 1.0, 1.0], [0.0] * 4)
    assert np.mean(equal) == pytest.approx(0.74, abs=0.02)
