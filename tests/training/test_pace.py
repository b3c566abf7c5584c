"""The estimate before training, how far off it was, and the machine that is too busy to keep it."""

from __future__ import annotations

import re

import pytest

from tiebreak.progress import Silent
from tiebreak.training import pace
from tiebreak.training.budget import Budget
from tiebreak.training.order import steps
from tiebreak.training.pace import Pace
from tiebreak.training.trained import load
from tiny import run, same, settings, token_pairs, weights

PAIRS = token_pairs(30)


class Heard(Silent):
    """Remembers what was said."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.warned: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def warn(self, text: str) -> None:
        self.warned.append(text)


@pytest.fixture
def config(tiny_model):
    return settings(tiny_model, adapter__dropout=0.3)


@pytest.fixture
def idle(monkeypatch):
    load_of = {"now": 0.1}
    monkeypatch.setattr(pace.os, "getloadavg", lambda: (load_of["now"], 0.0, 0.0))
    return load_of


def test_the_estimate_is_told_before_training_and_how_far_off_it_was_after_it(config, idle, monkeypatch):
    monkeypatch.setattr(pace, "WORTH_TELLING", 0.0)
    heard, policy = Heard(), load(config).policy
    told = Pace(policy, heard)
    first = list(steps(PAIRS, config.training))[:3]
    told.estimate(first, Budget(policy), 6000)
    assert re.fullmatch(r"training: 6,000 steps, about .+", heard.said[0])
    told.ended()
    assert re.fullmatch(r"training took 0 s, (100|9\d)% less than estimated", heard.said[1])
    assert heard.warned == []


def test_a_training_of_seconds_is_not_estimated(config, idle):
    heard, policy = Heard(), load(config).policy
    told = Pace(policy, heard)
    first = list(steps(PAIRS, config.training))[:3]
    told.estimate(first, Budget(policy), 1)
    told.ended()
    assert (heard.said, heard.warned) == ([], [])


def test_timing_a_micro_batch_leaves_nothing_behind(config, tmp_path, monkeypatch):
    timed = run(config, PAIRS, tmp_path / "timed")
    monkeypatch.setattr(Pace, "estimate", lambda *_: None)
    untimed = run(config, PAIRS, tmp_path / "untimed")
    assert same(weights(timed.loaded.policy.network), weights(untimed.loaded.policy.network))
    assert [row["loss"] for row in timed.rows()] == [row["loss"] for row in untimed.rows()]


def test_memory_that_runs_out_while_timing_costs_the_estimate_alone(config, idle, monkeypatch):
    heard, policy = Heard(), load(config).policy
    monkeypatch.setattr(type(policy), "score", lambda *_: (_ for _ in ()).throw(MemoryError()))
    first = list(steps(PAIRS, config.training))[:3]
    told = Pace(policy, heard)
    told.estimate(first, Budget(policy), 6000)
    told.ended()
    assert (heard.said, heard.warned) == ([], [])


def test_a_busy_machine_is_told_of_once(config, idle):
    idle["now"] = 99.0
    heard, policy = Heard(), load(config).policy
    told = Pace(policy, heard)
    every = list(steps(PAIRS, config.training))
    told.estimate(every[:3], Budget(policy), 6)
    for step in every * 3:
        told.took(step, step.num_unique_tokens * 1.0)
    told.took(every[0], every[0].num_unique_tokens * 50.0)
    [line] = heard.warned
    assert re.match(r"the machine is busy \(load 99.0 on \d+ cores\): threads wait for each other", line)


def test_a_system_that_does_not_tell_which_cores_are_ours_trains_as_well(config, idle, monkeypatch):
    """macOS is one."""
    monkeypatch.delattr(pace.os, "sched_getaffinity")
    idle["now"] = 99.0
    heard, policy = Heard(), load(config).policy
    Pace(policy, heard).estimate(list(steps(PAIRS, config.training))[:3], Budget(policy), 6)
    assert f"on {pace.os.cpu_count()} cores" in heard.warned[0]


def test_a_step_that_was_held_up_is_told_of_once(config, idle):
    heard, policy = Heard(), load(config).policy
    told = Pace(policy, heard)
    every = list(steps(PAIRS, config.training))
    for step in every:
        told.took(step, step.num_unique_tokens * 1.0)
    for step in every[:3]:
        told.took(step, step.num_unique_tokens * 5.0)
    [line] = heard.warned
    assert line.startswith("step 1 took 5.0 times as long as others (load 0.1 on ")
