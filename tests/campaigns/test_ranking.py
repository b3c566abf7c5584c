"""Who is best, at which KL, and how much of a lead was luck: on measurements that are made up."""

from __future__ import annotations

import math
import random
import statistics
from dataclasses import replace

import pytest

from tiebreak.campaigns.ranking import KL, WIN_RATE, Measurements, compared_with, luck_of, ranked
from tiebreak.errors import RunError
from tiebreak.evaluation.rows import Row


def _row(key, values):
    return Row.of(key, [f"p{at}" for at in range(len(values))], [0.5 if key == WIN_RATE else 0.0] * len(values), values)


def _measured(wins, gap=1.0, rate=None, kl=None, first=0):
    pairs = {f"pair{at + first}": float(win) for at, win in enumerate(wins)}
    gaps, prompts = dict.fromkeys(pairs, float(gap)), {pair: f"p{pair}" for pair in pairs}
    answers = None if rate is None else _row(WIN_RATE, [1.0] * round(20 * rate) + [0.0] * round(20 * (1 - rate)))
    return Measurements(pairs, gaps, prompts, answers, None if kl is None else _row(KL, [kl] * 8))


def test_accuracy_decides_and_of_equals_the_larger_gap():
    found = {"a": _measured([1, 0, 1, 0.5], 3), "b": _measured([1, 1, 1, 0], 1), "c": _measured([1, 0, 1, 1], 2)}
    ranking = ranked(found, "accuracy", 0)
    assert [one.name for one in ranking.standings] == ["c", "b", "a"]
    assert ranking.best_by_accuracy == "c"
    assert ranking.standings[0].behind is None
    assert ranking.standings[2].behind.mean == pytest.approx(0.125)
    assert ranking.standings[1].behind.mean == 0


def test_trials_are_compared_on_the_pairs_that_all_have():
    found = {"a": _measured([1, 0, 0, 1]), "b": _measured([0, 0, 1, 1], first=2)}
    ranking = ranked(found, "accuracy", 0)
    assert (ranking.num_pairs, ranking.num_left_out) == (2, 4)
    assert {one.name: one.accuracy.mean for one in ranking.standings} == {"a": 0.5, "b": 0.0}
    with pytest.raises(RunError, match="each on its own, and cannot be compared"):
        ranked({"a": _measured([1]), "b": _measured([1], first=5)}, "accuracy", 0)


def test_at_the_same_kl_a_trial_that_went_further_for_as_much_is_worse():
    found = {
        "near": _measured([1, 1], rate=0.7, kl=4.0),
        "far": _measured([1, 1], rate=0.8, kl=16.0),
        "still": _measured([1, 1], rate=0.5, kl=0.1),
        "unjudged": _measured([1, 1]),
    }
    ranking = ranked(found, "win_rate", 0)
    standings = {one.name: one for one in ranking.standings}
    assert ranking.matched_kl == pytest.approx(4.0)
    assert ranking.best_by_win_rate == ranking.standings[0].name == "near"
    assert standings["near"].matched.mean == pytest.approx(0.7)
    assert standings["far"].matched.mean == pytest.approx(0.5 + 0.3 / 4)
    assert standings["still"].matched is None  # it does not reach
    assert standings["unjudged"].matched is None
    assert standings["still"].not_compared == "it does not reach that KL"
    assert standings["unjudged"].not_compared is None
    assert [standings[name].on_front for name in ("near", "far", "still")] == [True, True, False]


def test_a_trial_that_has_not_moved_is_not_best_and_a_tie_is_said():
    found = {"still": _measured([1, 1, 1, 1], 0.0002), "b": _measured([1, 1, 1, 0], 3), "c": _measured([1, 1, 1, 0], 2)}
    ranking = ranked(found, "accuracy", 0, 0.1)
    assert [one.name for one in ranking.standings] == ["b", "c", "still"]
    assert [one.has_moved for one in ranking.standings] == [True, True, False]
    assert ranking.best_by_accuracy == "b"
    assert ranking.tied == ["b", "c"]
    assert ranked({"b": found["b"], "still": found["still"]}, "accuracy", 0, 0.1).tied == ()


def test_a_kl_that_may_be_none_is_compared_with_nothing_and_has_no_place_on_the_front():
    noisy = _measured([1, 1], rate=0.6)
    noisy = replace(noisy, kl=_row(KL, [-2.0, 3.0, -1.0, 1.6]))
    below = replace(noisy, kl=_row(KL, [-0.3, -0.4, -0.2]))
    found = {"noisy": noisy, "below": below, "far": _measured([1, 1], rate=0.8, kl=13.6)}
    ranking = ranked(found, "win_rate", 0)
    standings = {one.name: one for one in ranking.standings}
    assert [standings[name].on_front for name in ("noisy", "below", "far")] == [False, False, True]
    assert standings["noisy"].not_compared == standings["below"].not_compared == "its KL is not told from 0"
    assert ranking.best_by_win_rate is None  # of one alone nobody is the best
    assert ranking.best_by == "accuracy"


def test_a_trial_that_went_many_times_as_far_is_not_compared():
    kls = {"one": 1.0, "other": 1.2, "another": 1.5, "far": 5.0}
    ranking = ranked({name: _measured([1, 1], rate=0.7, kl=kl) for name, kl in kls.items()}, "win_rate", 0)
    standings = {one.name: one for one in ranking.standings}
    assert standings["far"].matched is None
    assert standings["far"].not_compared == "it went too far for a comparison there"
    assert ranking.best_by_win_rate == "one"
    assert standings["other"].matched_behind.low < 0 < standings["other"].matched_behind.mean


def test_the_best_is_held_against_the_default_or_else_the_median_trial():
    found = {str(at): _measured([1.0] * at + [0.0] * (5 - at)) for at in (5, 4, 3, 2)}
    ranking = ranked(found, "accuracy", 0)
    assert compared_with(ranking, "2") == "2"
    assert compared_with(ranking, "5") == "3"  # the default is the best itself
    assert compared_with(ranking, None) == "3"
    with pytest.raises(RunError, match="there is none to hold it against"):
        compared_with(ranked({"a": found["5"]}, "accuracy", 0), None)


def test_a_lead_that_is_there_again_was_no_luck_and_one_that_is_gone_was():
    good, bad = _measured([1.0] * 40), _measured([1.0] * 20 + [0.0] * 20)
    ranking = ranked({"good": good, "bad": bad}, "accuracy", 0)
    kept = luck_of("good", "bad", {"good": good, "bad": bad}, {"good": good, "bad": bad}, ranking, 0)
    assert kept.lost.mean == 0
    assert kept.lost.low < 0 < kept.lost.high
    assert "0% of it was luck" in kept.says
    gone = luck_of("good", "bad", {"good": good, "bad": bad}, {"good": bad, "bad": bad}, ranking, 0)
    assert gone.confirming.mean == 0
    assert gone.accuracy.mean == 0.5
    assert "100% of it was luck; that there is any lead is not known" in gone.says
    none = luck_of("bad", "good", {"good": bad, "bad": bad}, {"good": good, "bad": bad}, ranking, 0)
    assert "there was none to lose" in none.says


def test_a_lead_is_in_one_thing_where_it_was_chosen_and_on_others():
    judged = {name: _measured([1.0] * 40, rate=rate, kl=4.0) for name, rate in (("a", 0.8), ("b", 0.5))}
    plain = {"a": _measured([1.0] * 23 + [0.0] * 17), "b": _measured([1.0] * 20 + [0.0] * 20)}
    ranking = ranked(judged, "win_rate", 0)
    both = luck_of("a", "b", judged, judged, ranking, 0)
    assert (both.of, both.lost.mean) == ("win_rate", 0)
    assert "its lead over b in win rate is +30.0 points" in both.says
    for confirming in (plain, {"a": plain["a"], "b": judged["b"]}):
        found = luck_of("a", "b", judged, confirming, ranking, 0)
        assert (found.of, found.choosing.mean) == ("accuracy", 0)
        assert "in held-out accuracy" in found.says


def test_a_trial_whose_numbers_are_none_is_not_compared_by_them():
    sound = _measured([1, 1], rate=0.7, kl=4.0)
    broken = replace(sound, kl=_row(KL, [math.nan] * 4 + [4.0] * 4))
    ranking = ranked({"sound": sound, "other": sound, "broken": broken}, "win_rate", 0)
    standing = {one.name: one for one in ranking.standings}
    assert (standing["broken"].kl, standing["broken"].matched, ranking.standings[-1].name) == (None, None, "broken")
    assert ranking.matched_kl == pytest.approx(4.0)
    assert not broken.has_win_rate
    assert standing["broken"].not_compared == "4 of the 8 values of its KL are no numbers"
    alone = ranked({"sound": sound, "broken": broken, "unjudged": _measured([1, 1])}, "win_rate", 0).standings
    assert {one.name for one in alone if one.not_compared} == {"broken"}


def test_of_trials_that_are_all_alike_the_lead_of_the_best_is_luck():
    """Twelve trials with the same chance: where it was chosen the best leads, elsewhere it does not, on average."""
    draw = random.Random(5)

    def lead():
        sides = [{str(t): _measured([float(draw.random() < 0.6) for _ in range(50)]) for t in range(12)} for _ in "ab"]
        ranking = ranked(sides[0], "accuracy", 0)
        best = ranking.standings[0].name
        return luck_of(best, compared_with(ranking, None), *sides, ranking, 0)

    found = [lead() for _ in range(12)]
    assert statistics.fmean(one.choosing.mean for one in found) > 0.08
    assert abs(statistics.fmean(one.confirming.mean for one in found)) < 0.06


def test_with_win_rates_the_lead_is_that_at_the_same_kl():
    one, other = _measured([1, 1], rate=0.7, kl=4.0), _measured([1, 1], rate=0.8, kl=8.0)
    ranking = ranked({"one": one, "other": other}, "win_rate", 0)
    both = {"one": one, "other": other}
    assert luck_of("one", "other", both, both, ranking, 0).choosing.mean == pytest.approx(0.7 - 0.65)
