"""Which candidates become pairs: ties, choices, rejection sampling, win rates, and the table of rules."""

from __future__ import annotations

import math
import random
from collections import Counter
from itertools import pairwise
from typing import get_args

import numpy as np
import pytest

import oracles
from tiebreak.config import DataConfig, PairingConfig
from tiebreak.maths.pairing import (
    CHOICES,
    MATCHES,
    PAIRINGS,
    accepted,
    chance,
    comparisons,
    first_round,
    is_decided,
    mean_of,
    rates_of_scores,
    rates_of_wins,
    tournament,
)

NAN = math.nan
NOTHING = (None, NAN, math.inf, -math.inf)


def drawn(draw, num, *, with_nothing=True):
    """Scores of which some are equal, and some are none."""
    kinds = [*map(float, range(-3, 4)), *(NOTHING if with_nothing else ())]
    return [draw.choice(kinds) for _ in range(num)]


def is_number(value):
    return value is not None and math.isfinite(value)


def stream(seed):
    return np.random.default_rng(seed).random


def pairs(values, rule="best_worst", seed=0, **settings):
    found = PAIRINGS[rule].pairs(values, PairingConfig(rule=rule, **settings), stream(seed))
    return [(won.winner, won.loser) for won in found]


def test_equal_scores_and_closer_ones_are_ties_as_people_count():
    assert not is_decided(0.0, 0.0)
    assert is_decided(1e-300, 0.0)
    assert is_decided(0.3 - 0.1, 0.2)
    assert not is_decided(0.3 - 0.1, 0.2001)
    assert [(won.winner, won.loser) for won in comparisons([0.3, 0.1, 0.0], 0.2)] == [(0, 1), (0, 2)]


def test_every_comparison_that_somebody_won_is_found_once():
    draw = random.Random(1)
    for _ in range(300):
        scores, least = drawn(draw, draw.randrange(7)), draw.choice([0.0, 1.0, 2.5])
        wanted = []
        for i, one in enumerate(scores):
            for j, other in enumerate(scores):
                if is_number(one) and is_number(other) and one > other and one - other >= least:
                    wanted.append((i, j, one - other))
        assert [(won.winner, won.loser, won.margin) for won in comparisons(scores, least)] == wanted


def test_the_choices_take_what_their_names_say():
    draw = random.Random(2)
    for _ in range(100):
        scores, least = drawn(draw, draw.randrange(2, 8)), draw.choice([0.0, 2.0])
        known = {place: score for place, score in enumerate(scores) if is_number(score)}
        gaps = [known[one] - known[other] for one in known for other in known]
        if not any(gap > 0 and gap >= least for gap in gaps):
            assert all(pairs(scores, rule, min_margin=least) == [] for rule in CHOICES)
            continue
        best = min(place for place in known if known[place] == max(known.values()))
        beaten = [place for place in known if known[best] - known[place] >= max(least, 1.0)]
        worst = min(place for place in beaten if known[place] == min(known.values()))
        second = min(place for place in beaten if known[place] == max(known[other] for other in beaten))
        assert pairs(scores, "best_worst", min_margin=least) == [(best, worst)]
        assert pairs(scores, "best_second", min_margin=least) == [(best, second)]
        taken = {pairs(scores, "best_random", seed, min_margin=least)[0] for seed in range(50)}
        assert taken == {(best, other) for other in beaten}
        assert len(pairs(scores, "all", min_margin=least)) == sum(gap > 0 and gap >= least for gap in gaps)


def test_one_of_the_beaten_is_as_likely_as_another():
    num = 6000
    taken = Counter(pairs([4.0, 1.0, 2.0, 3.0], "best_random", seed)[0][1] for seed in range(num))
    spread = 3 * math.sqrt(num / 3 * 2 / 3)
    assert all(abs(taken[place] - num / 3) < spread for place in (1, 2, 3))


@pytest.mark.parametrize(("beta", "num"), [(0.2, 20_000), (0.5, 100_000), (2.0, 20_000)])
def test_rejection_sampling_accepts_in_its_first_pass_as_often_as_the_paper_says(beta, num):
    """The best one is certain in the first pass and stands last: who is accepted before it, was in the first pass."""
    rewards = [0.4, -0.3, 0.9, 0.0, 1.0]
    uniform, first = stream(7), Counter[int]()
    for _ in range(num):
        order = accepted(rewards, beta, len(rewards), uniform)
        first.update(order[: order.index(4)])
    for place, reward in enumerate(rewards[:4]):
        wanted = math.exp((reward - 1.0) / beta)
        assert abs(first[place] / num - wanted) < 3 * math.sqrt(wanted * (1 - wanted) / num), place


def test_rejection_sampling_is_the_published_algorithm_on_the_same_draws():
    draw = random.Random(3)
    for seed in range(400):
        rewards = [draw.gauss(0, 1) for _ in range(draw.randrange(1, 9))]
        beta, num = draw.choice([0.1, 0.5, 3.0]), draw.randrange(1, 11)
        drawn_alike = iter(np.random.default_rng(seed).random(10_000).tolist())
        wanted = oracles.rejection_sampled(rewards, beta, num, drawn_alike)
        assert accepted(rewards, beta, num, stream(seed)) == wanted
        assert len(wanted) == min(num, len(rewards))


@pytest.mark.parametrize("far", [1e3, 1e300])
def test_rejection_sampling_ends_when_candidates_run_out_however_far_they_are_from_the_best(far):
    num_drawn, uniform = 0, stream(0)

    def counted():
        nonlocal num_drawn
        num_drawn += 1
        return uniform()

    rewards = [-far, 0.0, far, NAN, -far, None]
    order = accepted(rewards, 1e-6, 100, counted)
    assert order[:2] == [2, 1]
    assert sorted(order) == [0, 1, 2, 4]
    assert num_drawn <= 4 * 5 / 2 + 1
    assert accepted([], 1.0, 4, uniform) == accepted([None, NAN], 1.0, 4, uniform) == []


def test_beta_says_how_much_rewards_are_believed():
    rewards = [0.1, 0.5, 0.2, 0.9, 0.4]
    assert all(accepted(rewards, 1e9, 3, stream(seed)) == [0, 1, 2] for seed in range(50))
    assert all(accepted(rewards, 1e-4, 3, stream(seed)) == [3, 1, 4] for seed in range(50))


def test_candidates_of_equal_reward_stay_apart_in_rejection_sampling():
    assert sorted(accepted([1.0, 1.0, 1.0], 0.5, 3, stream(0))) == [0, 1, 2]


def test_a_first_round_holds_neighbours_against_each_other():
    scores = [1.0, 2.0, 5.0, 5.0, 0.0]
    assert [(won.winner, won.loser) for won in first_round([0, 1, 2, 3, 4], scores)] == [(1, 0)]
    assert [(won.winner, won.loser) for won in first_round([4, 2, 0, 3, 1], scores)] == [(2, 4), (3, 0)]
    assert first_round([], scores) == first_round([1], scores) == []


def test_a_tournament_puts_all_but_one_out_and_holds_winners_against_winners():
    draw = random.Random(4)
    for _ in range(300):
        scores = [float(draw.randrange(1000)) for _ in range(draw.randrange(1, 12))]
        scores = [score + place / 100 for place, score in enumerate(scores)]  # no ties
        order = draw.sample(range(len(scores)), len(scores))
        found = tournament(order, scores)
        assert len(found) == len(scores) - 1
        lost = [won.loser for won in found]
        assert sorted(lost) == sorted(set(range(len(scores))) - {scores.index(max(scores))})
        for place, won in enumerate(found):
            assert won.margin == scores[won.winner] - scores[won.loser] > 0
            assert not {won.winner, won.loser} & set(lost[:place])  # who is out stays out
        assert found[: len(order) // 2] == first_round(order, scores)


def test_a_tie_in_a_tournament_is_no_pair_and_somebody_goes_on():
    scores = [1.0, 1.0, 0.5, 0.0]
    assert [(won.winner, won.loser) for won in tournament([0, 1, 2, 3], scores)] == [(2, 3), (0, 2)]
    assert [(won.winner, won.loser) for won in tournament([2, 0, 3, 1], scores, 0.75)] == [(1, 3)]
    assert tournament([0, 1], scores) == []


def test_win_rates_are_the_means_of_a_slow_loop():
    draw = random.Random(5)
    for _ in range(300):
        num = draw.randrange(1, 8)
        wins = [
            [draw.choice([None, NAN, 0.0, 0.25, 0.5, 1.0]) if i != j else 0.5 for j in range(num)] for i in range(num)
        ]
        for i in range(num):
            for j in range(i):
                wins[i][j] = 1 - wins[j][i] if is_number(wins[j][i]) else wins[j][i]
        assert rates_of_wins(wins) == pytest.approx(oracles.win_rates(wins), abs=1e-15)
        upper = [[one if j > i else None for j, one in enumerate(row)] for i, row in enumerate(wins)]
        assert rates_of_wins(upper) == rates_of_wins(wins)


def test_the_comparison_with_itself_is_left_out():
    wins = [[0.5, 1.0, 1.0], [0.0, 0.5, 1.0], [0.0, 0.0, 0.5]]
    assert rates_of_wins(wins) == [1.0, 0.5, 0.0]
    assert rates_of_wins([[None, *row[1:]] if row[0] == 0.5 else row for row in wins]) == [1.0, 0.5, 0.0]
    assert rates_of_wins([[0.5]]) == [None]
    assert chance(wins, 0, 1) == 1.0


def test_rates_of_scores_are_one_for_the_larger_half_for_a_tie_nothing_for_the_smaller():
    draw = random.Random(6)
    for _ in range(300):
        scores, least = drawn(draw, draw.randrange(1, 8)), draw.choice([0.0, 2.0])
        wins = [
            [
                None
                if not (is_number(one) and is_number(other))
                else 0.5
                if one == other or abs(one - other) < least
                else float(one > other)
                for other in scores
            ]
            for one in scores
        ]
        assert rates_of_scores(scores, least) == pytest.approx(oracles.win_rates(wins), abs=1e-15)
    assert rates_of_scores([3.0, 3.0, 3.0, 1.0]) == pytest.approx([2 / 3, 2 / 3, 2 / 3, 0.0])
    assert rates_of_scores([1.0]) == [None]


def test_sppo_takes_the_largest_and_the_smallest_rate_and_min_margin_is_one_of_scores():
    draw = random.Random(8)
    for _ in range(200):
        rates = [draw.choice([0.0, 0.2, 0.5, 0.7]) for _ in range(draw.randrange(1, 7))]
        wanted = [] if len(set(rates)) == 1 else [(rates.index(max(rates)), rates.index(min(rates)))]
        assert pairs(rates, "sppo", min_margin=5.0) == wanted
    assert PAIRINGS["sppo"].compares == "rates"


def test_a_mean_of_equal_numbers_is_that_number_and_no_order_makes_a_difference():
    draw = random.Random(9)
    for _ in range(200):
        value = draw.random()
        assert mean_of([value] * draw.randrange(1, 9)) == value
        values = [draw.random() for _ in range(6)]
        assert mean_of(values) == mean_of(draw.sample(values, 6))
    assert mean_of([0.1, None, NAN, 0.3]) == 0.2
    assert mean_of([]) is mean_of([None, NAN]) is None


@pytest.mark.parametrize("match", MATCHES)
@pytest.mark.parametrize("rule", PAIRINGS)
def test_every_rule_pairs_only_who_was_judged_and_never_against_the_numbers(rule, match):
    draw = random.Random(10)
    for seed in range(200):
        values, least = drawn(draw, draw.randrange(9)), draw.choice([0.0, 0.0, 2.0])
        settings = {"match": match, "num_accepted": draw.randrange(2, 9), "min_margin": least}
        found = PAIRINGS[rule].pairs(values, PairingConfig(rule=rule, **settings), stream(seed))
        for won in found:
            assert is_number(values[won.winner])
            assert is_number(values[won.loser])
            assert won.margin == values[won.winner] - values[won.loser] > 0
            assert won.margin >= (0 if rule == "sppo" else least)
        assert len({(won.winner, won.loser) for won in found}) == len(found)
        assert found == PAIRINGS[rule].pairs(values, PairingConfig(rule=rule, **settings), stream(seed))
        known = {value for value in values if is_number(value)}
        if len(known) < 2:
            assert found == []
        elif rule != "rso" and not least:
            assert found
        # Who says nothing changes nothing: without them the pairs are the same candidates.
        places = [place for place, value in enumerate(values) if is_number(value)]
        alone = pairs([values[place] for place in places], rule, seed, **settings)
        assert [(places[one], places[other]) for one, other in alone] == [(won.winner, won.loser) for won in found]
        # Scores have no zero of their own.
        moved = [value + 8 if is_number(value) else value for value in values]
        assert pairs(moved, rule, seed, **settings) == [(won.winner, won.loser) for won in found]


@pytest.mark.parametrize("rule", PAIRINGS)
@pytest.mark.parametrize("values", [[], [1.0], [2.0] * 5, [None] * 3, [NAN] * 3, [1.0, None], [NAN, 1.0, math.inf]])
def test_where_there_is_nothing_to_tell_apart_there_is_no_pair(rule, values):
    assert pairs(values, rule) == pairs(values, rule, match="tournament") == []


def test_the_settings_name_the_rules_of_the_table():
    assert set(get_args(PairingConfig.model_fields["rule"].annotation)) == set(PAIRINGS)
    assert set(get_args(PairingConfig.model_fields["match"].annotation)) == set(MATCHES)
    assert {*CHOICES, "none", "good"} == set(get_args(DataConfig.model_fields["pairing"].annotation))


def test_rejection_sampled_pairs_are_neighbours_in_the_order_of_acceptance():
    draw = random.Random(11)
    for seed in range(200):
        rewards = [draw.gauss(0, 1) for _ in range(draw.randrange(2, 12))]
        order = accepted(rewards, 0.5, 4, stream(seed))
        wanted = [
            (one, other) if rewards[one] > rewards[other] else (other, one) for one, other in [*pairwise(order)][::2]
        ]
        assert pairs(rewards, "rso", seed) == wanted
