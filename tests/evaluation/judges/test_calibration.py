"""Whether a judge may be believed: agreement with people, and what follows from it."""

from __future__ import annotations

import random

import pytest

from tiebreak.evaluation.judges.calibration import agreement
from tiebreak.evaluation.judges.judge import Preference


def said(num: int, share: float, *, per_prompt: int = 1, seed: int = 0):
    draw = random.Random(seed)
    return [Preference(float(draw.random() < share)) for _ in range(num)], [f"p{n // per_prompt}" for n in range(num)]


def test_agreement_is_the_mean_with_a_tie_as_one_half():
    found = agreement([Preference(one) for one in (1.0, 1.0, 0.5, 0.0, None)], ["a", "b", "c", "d", "e"])
    assert (found.mean, found.num, found.num_not_judged, found.num_prompts) == (0.625, 4, 1, 4)
    assert found.ties == 0.25


def test_a_judge_that_agrees_may_be_believed_and_one_that_tosses_a_coin_may_not():
    assert agreement(*said(200, 0.75)).is_usable
    coin = agreement(*said(600, 0.5))
    assert (coin.verdict, coin.is_usable) == ("fail", False)
    assert "no better than chance" in coin.says
    assert agreement(*said(200, 0.3)).verdict == "fail"
    assert agreement(*said(60, 0.55)).verdict == "inconclusive"


def test_a_judge_that_tosses_a_coin_is_believed_in_at_most_one_of_forty_calibrations():
    believed = sum(agreement(*said(60, 0.5, seed=seed)).is_usable for seed in range(200))
    assert believed <= 11  # 2.5 % of 200 are 5; more than 11 in 1 of 100


def test_pairs_of_one_prompt_count_as_one_observation():
    same = [Preference(1.0)] * 150 + [Preference(0.0)] * 50
    apart = agreement(same, [str(number) for number in range(200)])
    together = agreement(same, [str(number // 50) for number in range(200)])
    assert apart.is_usable
    assert (together.num_prompts, together.verdict) == (4, "inconclusive")
    assert "at least 20 prompts" in together.says


def test_a_judge_that_judged_only_what_it_liked_is_not_believed():
    preferences, prompts = said(100, 1.0)
    found = agreement([*preferences, *[Preference(None)] * 101], [*prompts, *[f"x{n}" for n in range(101)]])
    assert (found.mean, found.verdict) == (1.0, "inconclusive")
    assert "101 more were not judged" in found.says


def test_nothing_judged_is_no_verdict_and_fits_json():
    found = agreement([Preference(None)], ["a"]).as_dict()
    assert (found["mean"], found["low"], found["ties"], found["verdict"]) == (None, None, None, "inconclusive")
    assert found["says"] == "none of 1 pairs was judged"


def test_agreement_by_length_shows_who_likes_length():
    lengths = [(300, 100)] * 50 + [(100, 300)] * 50 + [(100, 110)] * 10
    likes_length = [Preference(float(one > two)) for one, two in lengths]
    found = agreement(likes_length, [str(number) for number in range(110)], lengths)
    assert [(one.name, one.mean, one.num) for one in found.buckets] == [
        ("the preferred one is longer", 1.0, 50),
        ("about as long", 0.0, 10),
        ("the preferred one is shorter", 0.0, 50),
    ]
    assert all(one.low <= one.mean <= one.high for one in found.buckets)


def test_a_judge_that_decides_little_is_measured_where_it_decides():
    """Ties pull every agreement to one half; that alone makes a judge neither good nor bad."""
    rare = [Preference(0.5)] * 280 + [Preference(1.0)] * 13 + [Preference(0.0)] * 7
    found = agreement(rare, [str(number) for number in range(300)])
    assert found.high < 0.55
    assert (found.decided.mean, found.decided.num, found.verdict) == (0.65, 20, "inconclusive")
    never = agreement([Preference(0.5)] * 300, [str(number) for number in range(300)])
    assert (never.decided, never.verdict) == (None, "fail")


def test_flips_and_the_place_that_a_judge_leans_to_are_told():
    told = [Preference(0.5, flipped=True, at_first=1.0), Preference(1.0, at_first=0.5)]
    found = agreement(told, ["a", "b"])
    assert (found.flip_rate, found.at_first) == (0.5, 0.75)
    assert agreement([Preference(1.0)], ["a"]).at_first is None


def test_lists_of_other_lengths_are_refused():
    with pytest.raises(ValueError, match="of the same length"):
        agreement([Preference(1.0)], ["a", "b"])
    with pytest.raises(ValueError, match="of the same length"):
        agreement([Preference(1.0)], ["a"], [(1, 2), (3, 4)])
