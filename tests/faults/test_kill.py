"""SIGKILL at every named point and at moments nobody named: the same command again gives the same bytes."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable

import pytest
from harness import NUM_STEPS, Case, assert_finished_like, assert_nothing_hidden, assert_nothing_partial, assert_resumes

from tiebreak.faults import POINTS
from tiebreak.files import PART

# A checkpoint is due after steps 2, 4, … 12; there are several micro-batches in a step, one block of pairs in the data.
LORA = [
    *("audit", "store:data", "tokens", "store:data:2", "step:begin:8", "step:gradient:7", "step:end", "step:end:12"),
    *("save:begin:4", "save:policy:4", "save:optimizer", "save:optimizer:4", "save:state:4", "save:manifest:4"),
    *("save:rename", "save:rename:4", "save:rotate:3", "save:rotate:6", "store:flush", "store:flush:3"),
    *("keep:file:3", "keep:file:7", "keep:file:11", "keep:seals", "keep:seals:3", "keep:seals:4"),
    *("look", "look:3", "look:5", "generate:3"),
    *("policy", "evaluate:2", "evaluate:9", "generate:7", "report"),
]
FULL = ["reference", "reference:3", "store:flush", "save:rename:2", "policy"]
_OF_OTHERS = ("other:", "export", "registry:", "rounds:", "sample:", "judge:", "work:", "review:")
TRAINING_POINTS = {point for point in POINTS if not point.startswith(_OF_OTHERS)}


def _named(places: list[str]) -> set[str]:
    return {place.rpartition(":")[0] if place.rpartition(":")[2].isdigit() else place for place in places}


def test_every_point_that_a_training_visits_is_killed_at():
    assert _named(LORA + FULL) == TRAINING_POINTS


def _killed(case: Case, place: str) -> None:
    ended = case.train(fault=f"kill@{place}")
    assert ended.code == -signal.SIGKILL, f"the run never came to {place}: {ended.err}"
    assert_nothing_partial(case)


@pytest.mark.parametrize("place", LORA)
def test_killed_at(case, undisturbed, place):
    _killed(case, place)
    assert_resumes(case, undisturbed)


@pytest.mark.parametrize("place", FULL)
def test_killed_at_in_full_fine_tuning(new_case, tmp_path, undisturbed_full, place):
    case = new_case(tmp_path / "case", "none")
    _killed(case, place)
    assert_resumes(case, undisturbed_full)


def test_killed_again_and_again(case, undisturbed):
    for place in ("step:end:3", "save:rename", "save:rotate:2", "step:gradient:4", "policy", "generate"):
        _killed(case, place)
    assert_resumes(case, undisturbed)


def test_a_new_interpreter_resumes_as_well(case, undisturbed):
    ended = case.train("--quiet", fault="kill@save:manifest:3", as_user=True)
    assert ended.code == -signal.SIGKILL
    again = case.train("--quiet", as_user=True)
    assert again.code == 0, again.err
    assert_finished_like(case, undisturbed)


def test_after_completion_the_command_says_that_it_is_done(finished, undisturbed, tmp_path):
    case = finished.copied(tmp_path / "case")
    before = (case.run / "run.json").read_bytes()
    ended = case.train()
    assert ended.code == 0
    assert "already done" in ended.err
    assert (case.run / "run.json").read_bytes() == before
    assert_finished_like(case, undisturbed)


def test_resume_never_keeps_the_attempt_and_starts_afresh(halted, undisturbed):
    before = [path.name for path in halted.checkpoints]
    ended = halted.train("--resume", "never")
    assert ended.code == 0, ended.err
    assert "run.unfinished-1" in ended.err
    kept = halted.folder / "run.unfinished-1" / "checkpoints"
    assert sorted(path.name for path in kept.iterdir() if path.name.startswith("step-")) == before
    assert_finished_like(halted, undisturbed)


def test_where_nothing_is_stored_of_the_reference_a_killed_run_still_ends_the_same(case, undisturbed):
    case.configure(reference__store="off")
    _killed(case, "step:end:9")
    assert_resumes(case, undisturbed)


def test_what_a_kill_within_a_write_leaves_behind_is_removed(halted, undisturbed):
    # Named as a write names them: no fault point lies inside of one.
    for name in (f"checkpoints/.step-00000008.k3v9w1ab{PART}", f".policy.x81hd0_z{PART}"):
        (halted.run / name).mkdir()
        (halted.run / name / "policy.safetensors").write_bytes(b"\x00" * 100)
    for name in (f".run.json.a8k2m1xx{PART}", f".data.json.zz81m2ab{PART}"):
        (halted.run / name).write_text("{")
    assert_resumes(halted, undisturbed)


@pytest.mark.parametrize("loss", ["nothing", "the last row", "half a row", "all rows", "the file"])
def test_metrics_that_a_power_failure_cut_short_stop_nothing(halted, undisturbed, loss):
    # A checkpoint is synced to the disk; rows of metrics are not, so they may be lost although it is there.
    path = halted.run / "metrics.jsonl"
    rows = path.read_bytes().splitlines(keepends=True)
    short = {"nothing": rows, "the last row": rows[:-4], "half a row": [*rows[:-4], rows[-4][:40]], "all rows": []}
    path.unlink() if loss == "the file" else path.write_bytes(b"".join(short[loss]))
    ended = halted.train()
    assert ended.code == 0, ended.err
    assert halted.weights() == undisturbed["weights"]
    steps = [step for step, _ in halted.losses()]
    assert steps == sorted(set(steps))
    assert set(range(7, NUM_STEPS + 1)) <= set(steps)


def test_killed_while_exporting_leaves_no_artefact_and_the_same_command_makes_it(finished, tmp_path):
    case = finished.copied(tmp_path / "case")
    command = ("export", "run", "--out", "made")
    ended = case.train(fault="kill@export", command=command)
    assert ended.code == -signal.SIGKILL, ended.err
    assert not (case.folder / "made").exists()
    again = case.train(command=command)
    assert again.code == 0, again.err
    assert (case.folder / "made" / "model.safetensors").stat().st_size > 0
    assert [path.name for path in case.folder.iterdir() if path.name.startswith(".")] == []


def _dies_now_and_then(case: Case, most: int, killed: Callable[[], int]) -> None:
    """Kill the run at moments that nobody named, several times."""
    for _ in range(most):
        assert killed() in (-signal.SIGKILL, 0)
        assert_nothing_partial(case)


@pytest.mark.parametrize("seed", range(3))
def test_killed_at_random_moments(case, undisturbed, seed):
    # A run touches the file system some seven hundred times, most of them within a write.
    draw = random.Random(seed)
    _dies_now_and_then(case, 3, lambda: case.train(dies_at=draw.randint(1, 700)).code)
    assert_resumes(case, undisturbed)


# -------------------------------------------------------------------------------------------------------- the long form


@pytest.mark.slow_faults
@pytest.mark.parametrize("visit", range(1, NUM_STEPS + 1))
@pytest.mark.parametrize("point", ["step:begin", "step:gradient", "step:end"])
def test_killed_in_every_step(case, undisturbed, point, visit):
    _killed(case, f"{point}:{visit}")
    assert_resumes(case, undisturbed)


@pytest.mark.slow_faults
@pytest.mark.parametrize("visit", range(1, NUM_STEPS // 2 + 1))
@pytest.mark.parametrize("point", [point for point in POINTS if point.startswith("save:")])
def test_killed_in_every_save(case, undisturbed, point, visit):
    _killed(case, f"{point}:{visit}")
    assert_resumes(case, undisturbed)


def _kill_after(case: Case, seconds: float) -> int:
    running = case.start()
    time.sleep(seconds)
    if running.poll() is None:
        running.signal(signal.SIGKILL)
    return running.wait().code


@pytest.mark.slow_faults
@pytest.mark.parametrize("adapter", ["lora", "none"])
@pytest.mark.parametrize("seed", range(100, 100 + int(os.environ.get("TIEBREAK_KILLS", "40"))))
def test_killed_at_many_random_moments(request, new_case, tmp_path, adapter, seed):
    wanted = request.getfixturevalue("undisturbed" if adapter == "lora" else "undisturbed_full")
    case = new_case(tmp_path / "case", adapter)
    draw = random.Random(seed)
    _dies_now_and_then(case, 5, lambda: _kill_after(case, draw.uniform(0.05, 1.0)))
    again = case.train()
    assert again.code == 0, again.err
    assert_finished_like(case, wanted)
    assert_nothing_hidden(case)
