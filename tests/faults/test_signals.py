"""Signals that ask a run to end: the step is finished and saved, the exit code is 75; a second one ends at once."""

from __future__ import annotations

import signal

import pytest
from harness import assert_nothing_partial, assert_resumes

from tiebreak.errors import EXIT_INTERRUPTED, EXIT_PREEMPTED

NAMES = {"term": "SIGTERM", "int": "SIGINT", "hup": "SIGHUP", "usr1": "SIGUSR1", "usr2": "SIGUSR2", "xcpu": "SIGXCPU"}


@pytest.mark.parametrize(
    ("action", "place", "step"),
    [
        ("term", "step:begin:5", 5),
        ("int", "step:gradient:7", 7),
        ("term", "step:end:1", 1),
        ("int", "save:optimizer:2", 4),
        ("term", "save:rename:3", 6),
        ("hup", "step:gradient:5", 5),
        ("usr1", "step:end:3", 3),
        ("usr2", "step:gradient:3", 3),
        ("xcpu", "save:optimizer:2", 4),
    ],
)
def test_a_signal_within_a_step_saves_that_step_and_exits_75(case, undisturbed, action, place, step):
    ended = case.train(fault=f"{action}@{place}")
    assert ended.code == EXIT_PREEMPTED, ended.err
    assert NAMES[action] in ended.error
    assert "run the same command again to resume" in ended.error
    assert case.checkpoints[-1].name == f"step-{step:08}"
    assert case.manifest["status"] == "interrupted"
    assert_nothing_partial(case)
    assert_resumes(case, undisturbed)


@pytest.mark.parametrize("place", ["audit", "tokens", "policy", "evaluate:2", "evaluate:9", "generate:7"])
def test_a_signal_outside_of_steps_exits_75_and_costs_no_step(case, undisturbed, place):
    ended = case.train(fault=f"term@{place}")
    assert ended.code == EXIT_PREEMPTED, ended.err
    assert "run the same command again to resume" in ended.error
    assert_nothing_partial(case)
    assert_resumes(case, undisturbed)


@pytest.mark.parametrize(
    "fault",
    [
        "term@step:begin:5,term@step:gradient:5",
        "int@step:gradient:5,int@step:end:5",
        "term@step:end:4,int@save:optimizer:2",
        "int@save:policy:2,int@save:manifest:2",
        "hup@step:gradient:5,usr1@step:end:5",
    ],
)
def test_a_second_signal_ends_at_once_and_the_last_checkpoint_is_whole(case, undisturbed, fault):
    ended = case.train(fault=fault)
    assert ended.code == EXIT_INTERRUPTED, ended.err
    assert ended.error
    assert case.checkpoints[-1].name == "step-00000002" if "save:" in fault else "step-00000004"
    assert_nothing_partial(case)
    assert_resumes(case, undisturbed)


def test_preempted_again_and_again(case, undisturbed):
    for place in ("step:begin:3", "step:end:4", "save:rotate", "step:gradient:2"):
        ended = case.train(fault=f"term@{place}")
        assert ended.code == EXIT_PREEMPTED, ended.err
    assert_resumes(case, undisturbed)


def test_json_tells_of_preemption(case):
    ended = case.train("--json", fault="term@step:begin:3")
    assert ended.code == EXIT_PREEMPTED
    assert '"exit_code": 75' in ended.out


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_from_outside_at_a_moment_nobody_chose(case, undisturbed, number):
    running = case.start()
    running.wait_for(case.run / "checkpoints" / "step-00000002")
    running.signal(number)
    ended = running.wait()
    assert ended.code == EXIT_PREEMPTED, ended.err
    assert "run the same command again to resume" in ended.error
    assert_nothing_partial(case)
    assert_resumes(case, undisturbed)


def test_a_scheduler_that_sends_sigterm_to_a_new_interpreter(case, undisturbed):
    running = case.start("--quiet", as_user=True)
    running.wait_for(case.run / "checkpoints" / "step-00000002")
    running.signal(signal.SIGTERM)
    ended = running.wait()
    assert ended.code == EXIT_PREEMPTED, ended.err
    assert ended.err.splitlines()[-1] == ended.error
    assert_resumes(case, undisturbed)


def test_a_run_under_nohup_outlives_its_terminal(case, undisturbed):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # what nohup does; a new process inherits it
    try:
        running = case.start(as_user=True)
    finally:
        signal.signal(signal.SIGHUP, before)
    running.wait_for(case.run / "checkpoints" / "step-00000002")
    running.signal(signal.SIGHUP)
    ended = running.wait()
    assert ended.code == 0, ended.err
    assert case.result() == undisturbed
    # No terminal looks on: each stage leaves a line.
    assert [line for line in ended.err.splitlines() if line.startswith("training: 12/12, in ")]
