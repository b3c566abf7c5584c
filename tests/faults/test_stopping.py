"""A run that ends early, and whose best checkpoint is not its last, is the same run whatever happens to it."""

from __future__ import annotations

import signal

import pytest
from harness import Case, assert_resumes

SURE = {"training__learning_rate": 0.2, "training__schedule": "constant", "evaluation__probes": 12}


@pytest.fixture(scope="module")
def ended_early(new_case, tmp_path_factory):
    """A run that is stopped, and keeps what was better before: undisturbed."""
    case = _laid_out(new_case(tmp_path_factory.mktemp("stopping") / "whole"))
    ended = case.train()
    assert ended.code == 0, ended.err
    return case, ended


def _laid_out(case: Case) -> Case:
    return case.configure(**SURE, stopping__patience=3)


def test_a_run_that_ended_early_says_so_and_is_done(ended_early):
    case, ended = ended_early
    told, evaluation = case.manifest, case.result()["evaluation"]
    done = told["num_steps_done"]
    assert told["status"] == "done"
    assert done < told["num_steps"]
    assert "3 held-out probes without a better loss" in told["stopped"]
    assert told["artefact_step"] == told["best"]["step"] == done - 3
    assert f"training ended after step {done} of {told['num_steps']}" in ended.err
    assert f"the policy is that of step {done - 3} of {done}" in ended.err
    sentence = f"the policy is that of step {done - 3} of {done}, chosen by its loss on {told['best']['of']} of the"
    assert sentence in evaluation["reason"]
    assert evaluation["artefact"]["step"] == done - 3
    assert evaluation["artefact"]["last_step"] == done
    names = [path.name for path in case.checkpoints]
    assert names[-1] == f"step-{done:08}"  # the last one stays
    assert f"step-{done - 3:08}" in names
    assert len(names) == 3  # the newest two, and the best


def test_a_run_that_ended_early_is_not_begun_again(ended_early, tmp_path):
    case, before = ended_early[0].copied(tmp_path / "case"), ended_early[0].manifest
    again = case.train()
    assert (again.code, case.manifest) == (0, before)
    assert "already done" in again.err


@pytest.mark.parametrize("place", ["step:end:3", "save:rotate:3", "save:manifest:4", "policy", "generate:3", "report"])
def test_killed_on_the_way_it_ends_at_the_same_step_with_the_same_policy(new_case, tmp_path, ended_early, place):
    case = _laid_out(new_case(tmp_path / "case"))
    killed = case.train(fault=f"kill@{place}")
    assert killed.code == -signal.SIGKILL, killed.err
    assert_resumes(case, ended_early[0].result())
    keys = ("stopped", "artefact_step", "best", "num_steps_done")
    assert {key: case.manifest[key] for key in keys} == {key: ended_early[0].manifest[key] for key in keys}
