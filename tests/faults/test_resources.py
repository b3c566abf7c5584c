"""A disk that is full, a folder that cannot be written to, memory that is short."""

from __future__ import annotations

import json
import os
import shutil
import subprocess

import pytest
from harness import Case, assert_nothing_hidden, assert_nothing_partial, assert_resumes, write_pairs

from tiebreak.errors import EXIT_FAILURE

SAVES = ["save:begin", "save:policy", "save:optimizer", "save:state", "save:manifest", "save:rename"]


# ------------------------------------------------------------------------------------------------------------ disk full


@pytest.mark.parametrize("point", SAVES)
def test_a_full_disk_while_saving_leaves_the_last_checkpoint_whole(case, undisturbed, point):
    ended = case.train(fault=f"full@{point}:3")
    assert ended.code == EXIT_FAILURE, ended.err
    assert "No space left on device" in ended.error
    assert "checkpoint of step 6" in ended.error
    assert "step-00000004, is whole" in ended.error
    assert "run the same command again" in ended.error
    assert [path.name for path in case.checkpoints] == ["step-00000002", "step-00000004"]
    assert_nothing_partial(case)
    assert_nothing_hidden(case)
    assert_resumes(case, undisturbed)


@pytest.mark.parametrize("point", ["policy", "report"])
def test_a_full_disk_after_training_costs_no_step(case, undisturbed, point):
    ended = case.train(fault=f"full@{point}")
    assert ended.code == EXIT_FAILURE, ended.err
    assert "No space left on device" in ended.error
    assert_nothing_partial(case)
    assert_nothing_hidden(case)
    assert_resumes(case, undisturbed)


def test_a_full_disk_under_the_reference_store_is_told_and_stops_nothing(case, undisturbed):
    ended = case.train(fault=",".join(f"full@store:flush:{visit}" for visit in range(1, 30)))
    assert ended.code == 0, ended.err
    assert ended.err.count("reference log-probabilities cannot be written") == 1
    assert case.result() == undisturbed
    assert case.shards == []
    assert_nothing_hidden(case)


def _fill(disk, leaving: int) -> None:
    """Fill a disk up to so many bytes."""
    free = shutil.disk_usage(disk).free - leaving
    (disk / "somebody else's data").write_bytes(bytes(max(0, free)))


@pytest.mark.parametrize("leaving", [0, 24 * 1024])
def test_a_disk_that_others_filled(case, small_disk, undisturbed, leaving):
    disk = small_disk(4)
    case.configure(output__dir=str(disk / "run"))
    (case.folder / "run").symlink_to(disk / "run")
    ended = case.train(fault="kill@step:end:5")
    assert ended.code == -9, ended.err
    _fill(disk, leaving)
    ended = case.train()
    assert ended.code == EXIT_FAILURE, ended.err
    assert "No space left on device" in ended.error
    assert_nothing_partial(case)
    assert case.checkpoints
    (disk / "somebody else's data").unlink()
    again = case.train()
    assert again.code == 0, again.err
    assert case.weights() == undisturbed["weights"]
    assert case.rows() == undisturbed["rows"]
    assert_nothing_hidden(case)


# ------------------------------------------------------------------------------------------------------------ read-only


def test_a_run_on_a_disk_that_became_read_only(case, small_disk, undisturbed):
    disk = small_disk(4)
    case.configure(output__dir=str(disk / "run"))
    (case.folder / "run").symlink_to(disk / "run")
    assert case.train(fault="kill@step:end:5").code == -9
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    ended = case.train()
    assert ended.code in (1, 2), ended.err
    assert "Read-only file system" in ended.error
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    again = case.train()
    assert again.code == 0, again.err
    assert case.weights() == undisturbed["weights"]
    assert case.rows() == undisturbed["rows"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere; as root a read-only disk is mounted instead")
def test_a_run_folder_without_permission_to_write(halted, undisturbed):
    folders = [halted.run, *(path for path in halted.run.rglob("*") if path.is_dir())]
    for path in folders:
        path.chmod(0o555)
    ended = halted.train()
    assert ended.code in (1, 2), ended.err
    assert "Permission denied" in ended.error
    for path in folders:
        path.chmod(0o755)
    assert_resumes(halted, undisturbed)


# --------------------------------------------------------------------------------------------------------------- memory


def _close(case: Case, wanted: dict) -> None:
    """The same steps with the same pairs, and losses that differ in their last bits at most."""
    rows = [row for row in wanted["rows"] if "loss" in row]
    assert [step for step, _ in case.losses()] == [row["step"] for row in rows]
    assert [loss for _, loss in case.losses()] == pytest.approx([row["loss"] for row in rows], abs=1e-5)


def _order(case: Case) -> str:
    return json.loads((case.checkpoints[-1] / "manifest.json").read_text())["order_digest"]


def test_memory_that_runs_out_in_a_step_changes_neither_its_pairs_nor_its_result(new_case, tmp_path, finished):
    # Dropout off: other micro-batches draw other masks, and this is about the gradient.
    plain = new_case(tmp_path / "plain").configure(adapter__dropout=0.0)
    assert plain.train().code == 0
    short = new_case(tmp_path / "short").configure(adapter__dropout=0.0)
    ended = short.train(fault="oom@step:gradient:3")
    assert ended.code == 0, ended.err
    assert "out of memory in step 3" in ended.err
    _close(short, plain.result())
    assert _order(short) == _order(plain) == _order(finished)
    assert short.losses()[:2] == plain.losses()[:2]


def test_memory_that_runs_out_in_a_look_costs_the_look_and_nothing_else(case, undisturbed):
    ended = case.train(fault="oom@look:2")
    assert ended.code == 0, ended.err
    assert "3 looks at what the policy says took" in ended.err
    assert "1 did not fit in memory" in ended.err
    assert case.weights() == undisturbed["weights"]
    assert len(list((case.run / "looks").iterdir())) == 3


@pytest.mark.parametrize("point", ["evaluate:9", "generate:7"])
def test_memory_that_runs_out_while_measuring_costs_no_step(case, undisturbed, point):
    ended = case.train(fault=f"oom@{point}")
    if ended.code != 0:
        assert ended.code == EXIT_FAILURE, ended.err
        assert "memory" in ended.error
    assert_nothing_partial(case)
    assert_resumes(case, undisturbed)


@pytest.mark.slow_faults  # how much is little depends on the C library and on torch
def test_a_process_with_little_memory_takes_smaller_micro_batches(new_case, tmp_path):
    results = []
    for name, more_memory in (("plenty", None), ("little", LITTLE_MEMORY)):
        case = new_case(tmp_path / name).configure(
            adapter__dropout=0.0, training__token_budget=1 << 20, training__pairs_per_step=400
        )
        path = case.folder / "pairs.jsonl"
        write_pairs(path, num_prompts=560)
        path.write_text(path.read_text().replace("yes the", "yes " + "the cat sat on the mat " * 24))
        ended = case.train(more_memory=more_memory)
        assert ended.code == 0, ended.err
        results.append((case, ended))
    (plenty, _), (little, ended) = results
    assert "out of memory in step 1" in ended.err
    _close(little, plenty.result())
    assert _order(little) == _order(plenty)


LITTLE_MEMORY = 700 * 2**20
