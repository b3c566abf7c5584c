"""What a search tries next, and which trial ends early: by what ended before, and nothing else."""

from __future__ import annotations

import logging

import pytest

from tiebreak.campaigns.proposals import falls_behind, proposed
from tiebreak.campaigns.trials import Ended, named
from tiebreak.config import SweepConfig

SEARCH = {
    "loss.beta": {"low": 0.01, "high": 1.0, "log": True},
    "adapter.rank": {"low": 4, "high": 64},
    "adapter.target_modules": [["q_proj"], ["q_proj", "v_proj"], "all-linear"],
    "training.shuffle": [True, False],
}


def _settings(**changes):
    return SweepConfig.model_validate({"search": SEARCH, "trials": 20, **changes})


def _ended(name, probes=(), state="done", settings=None):
    thirds = tuple((at / 3, score) for at, score in enumerate(probes, 1))
    return Ended(name, settings or {}, state, thirds, 1.0, 0)


def test_what_is_drawn_is_of_the_kind_and_in_the_range_of_its_setting():
    settings = _settings()
    for attempt in range(20):
        told = proposed(settings, [], {}, attempt)
        assert 0.01 <= told["loss.beta"] <= 1
        assert told["loss.beta"] == float(f"{told['loss.beta']:.3g}")
        assert told["adapter.rank"] in range(4, 65)
        assert told["adapter.target_modules"] in SEARCH["adapter.target_modules"]
        assert isinstance(told["training.shuffle"], bool)


def test_the_next_trial_depends_on_the_seed_and_on_what_ended_alone():
    settings, ended, values = _settings(), [], {}
    for number in range(8):
        told = proposed(settings, ended, values, 0)
        assert told == proposed(settings, [*ended], dict(values), 0)
        assert told != proposed(_settings(seed=1), ended, values, 0)
        ended.append(_ended(str(number), (0.5,), "done" if number % 3 else "stopped", told))
        values[str(number)] = 0.5 + told["loss.beta"] / 4


def test_a_search_goes_where_trials_were_good():
    settings, ended, values = SweepConfig.model_validate({"search": {"loss.beta": {"low": 0.0, "high": 1.0}}}), [], {}
    for number in range(30):
        told = proposed(settings, ended, values, 0)
        ended.append(_ended(str(number), (), "done", told))
        values[str(number)] = 1 - abs(told["loss.beta"] - 0.8)
    last = [one.settings["loss.beta"] for one in ended[-10:]]
    assert sum(abs(one - 0.8) < 0.15 for one in last) >= 6


def test_a_setting_that_a_trial_does_not_read_is_told_of_by_those_that_do():
    ended = [
        _ended("one", (0.6,), "done", {"training.shuffle": True}),
        _ended("two", (), "diverged", {"adapter.rank": 8}),
    ]
    assert proposed(_settings(), ended, {"one": 0.6}, 0).keys() == SEARCH.keys()


def _thirds(*scores):
    return [(at / 3, score) for at, score in enumerate(scores, 1)]


OTHERS = [_ended("one", (0.6, 0.7, 0.8)), _ended("two", (0.6, 0.6, 0.7)), _ended("three", (0.5, 0.6, 0.9))]


@pytest.mark.parametrize(
    ("scores", "behind"), [((0.5,), True), ((0.7,), False), ((0.5, 0.5), True), ((0.5, 0.65), False)]
)
def test_a_trial_below_the_median_of_the_others_ends(scores, behind):
    found = falls_behind(_settings(stop_early="median"), OTHERS, _thirds(*scores), 3)
    assert (found is not None) == behind
    assert found is None or found.startswith(
        f"held-out accuracy {scores[-1]:.1%} after {len(scores) / 3:.0%} of its steps"
    )


def test_a_trial_outside_of_the_better_half_ends():
    settings = _settings(stop_early="halving")
    assert falls_behind(settings, OTHERS, _thirds(0.1), 3)
    assert falls_behind(settings, OTHERS, _thirds(0.9), 3) is None


def test_no_trial_ends_before_enough_were_trained_whole_nor_at_its_end_nor_where_nobody_asked():
    assert falls_behind(_settings(), OTHERS[:2], _thirds(0.1), 3) is None
    assert falls_behind(_settings(), [*OTHERS[:2], _ended("x", (0.9,), "stopped")], _thirds(0.1), 3) is None
    assert falls_behind(_settings(), OTHERS, _thirds(0.1, 0.1, 0.1), 3) is None
    assert falls_behind(_settings(stop_early="off"), OTHERS, _thirds(0.1), 3) is None


def test_trials_are_compared_at_equal_shares_of_their_steps():
    """Three that stood at 0.9 from half of their steps on, with a probe more where a rule ended one of them."""
    others = [Ended(str(n), {}, "done", ((0.1, 0.2), (0.5, 0.9), (1.0, 0.9)), 1.0, 0) for n in range(3)]
    settings = _settings(stop_early="median")
    assert falls_behind(settings, others, [(0.5, 0.6)], 2)  # by number, it would be held against 0.2
    assert falls_behind(settings, others, [(0.1, 0.3)], 10) is None
    ended = [Ended(str(n), {}, "done", ((0.3, 0.9),), 1.0, 0) for n in range(3)]
    assert falls_behind(settings, ended, [(0.5, 0.1)], 4) is None  # nobody knows what they would have had there


def test_optuna_says_nothing_and_is_left_as_it_was(capfd):
    import optuna

    before = optuna.logging.get_verbosity()
    proposed(_settings(), [], {}, 0)
    assert optuna.logging.get_verbosity() == before == logging.INFO
    assert capfd.readouterr() == ("", "")


def test_a_trial_is_called_by_what_it_sets_as_a_folder_can_be():
    assert named({"loss.beta": 0.05}) == "beta=0.05"
    assert named({"training.learning_rate": 1e-05, "loss.name": "ipo"}) == "name=ipo_learning_rate=1e-05"
    assert named({"loss.name": "dpo", "loss.alpha": 0.5}) == "loss.alpha=0.5_name=dpo"
    assert named({"adapter.alpha": 8}) == "adapter.alpha=8" != named({"loss.alpha": 8})
    assert named({"data.train": "/a/long/way/pairs.jsonl"}).startswith("train=pairs.jsonl-")
    assert len({named({"data.train": value}) for value in ("8", 8, "True", True, "/a/b", "/c/b", "b", ["b"])}) == 8
    one, two = (named({"adapter.target_modules": [name]}) for name in ("../a", "..-a"))
    assert one != two
    assert "/" not in one + two
    assert len(named({"loss.beta": "x" * 300})) < 80
