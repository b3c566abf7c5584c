"""NaN and infinity: training stops before the optimizer moves, names the pairs, and can go back if asked."""

from __future__ import annotations

import json
import re

import pytest
from harness import NUM_STEPS, Case, assert_nothing_hidden, assert_nothing_partial, assert_resumes
from safetensors.torch import load_file, save_file

from tiebreak.errors import EXIT_FAILURE


def test_a_loss_that_is_not_a_number_stops_before_the_optimizer_moves(case, undisturbed):
    ended = case.train(fault="nan@step:gradient:5")
    assert ended.code == EXIT_FAILURE, ended.err
    assert "step 5" in ended.error
    assert re.search(r"not finite for \d+ pairs \([0-9a-f]{12}", ended.error)
    assert "training.learning_rate" in ended.error
    assert [step for step, _ in case.losses()] == [1, 2, 3, 4]
    assert [path.name for path in case.checkpoints] == ["step-00000002", "step-00000004"]
    assert not (case.run / "policy").exists()
    assert case.manifest["status"] == "failed"
    assert_nothing_partial(case)
    assert_resumes(case, undisturbed)


def test_every_named_pair_is_one_of_the_data(case):
    from tiebreak import read_pairs

    ended = case.train(fault="nan@step:gradient")
    named = re.search(r"\(([0-9a-f, …]+)\)", ended.error)
    assert named is not None
    known = {pair.pair_id[:12] for pair in read_pairs(str(case.folder / "pairs.jsonl")).pairs}
    assert set(re.findall(r"[0-9a-f]{12}", named[1])) <= known


def _told(case: Case) -> list[dict]:
    return [row for row in case.rows() if "rollback" in row]


def test_a_rollback_goes_on_from_the_last_checkpoint_with_half_the_rate(case, finished):
    case.configure(training__on_divergence="rollback", training__schedule="constant", training__warmup_share=0.0)
    ended = case.train(fault="nan@step:gradient:7")
    assert ended.code == 0, ended.err
    assert "rollback" in ended.err
    assert [(row["step"], row["rollback"], row["rate_scale"]) for row in _told(case)] == [(6, 1, 0.5)]
    rates = {row["step"]: row["learning_rate"] for row in case.rows() if "loss" in row}
    assert sorted(rates) == list(range(1, NUM_STEPS + 1))
    assert [rates[step] for step in (6, 7, 12)] == pytest.approx([5e-3, 2.5e-3, 2.5e-3])
    assert "rollback" in json.dumps(case.manifest)
    assert_nothing_partial(case)
    assert_nothing_hidden(case)


def test_after_three_rollbacks_it_stops(case):
    case.configure(training__on_divergence="rollback")
    ended = case.train(fault=",".join(f"nan@step:gradient:{visit}" for visit in range(5, 12)))
    assert ended.code == EXIT_FAILURE, ended.err
    assert "step 5" in ended.error
    assert [row["rate_scale"] for row in _told(case)][-1] == 0.125
    assert not (case.run / "policy").exists()
    assert_nothing_partial(case)


def test_a_rollback_that_is_killed_ends_like_one_that_is_not(new_case, tmp_path):
    results = []
    for name, faults in (("whole", ["nan@step:gradient:5"]), ("killed", ["nan@step:gradient:5,kill@step:end:8"])):
        case = new_case(tmp_path / name).configure(training__on_divergence="rollback")
        for fault in faults:
            ended = case.train(fault=fault)
            assert ended.code in (0, -9), ended.err
        if name == "killed":
            assert case.train().code == 0
        results.append(case.result())
    assert results[0] == results[1]


def test_without_a_checkpoint_there_is_nothing_to_go_back_to(case):
    case.configure(training__on_divergence="rollback")
    ended = case.train(fault="nan@step:gradient")
    assert ended.code == EXIT_FAILURE, ended.err
    assert "step 1" in ended.error


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_already_train_nothing(case, value):
    path = case.folder / "model" / "model.safetensors"
    tensors = load_file(path)
    tensors["model.layers.0.mlp.up_proj.weight"][0, 0] = value
    save_file(tensors, path, metadata={"format": "pt"})
    ended = case.train()
    assert ended.code in (1, 2), ended.err
    assert "log-probabilities are not finite" in ended.error
    assert not (case.run / "policy").exists()
    assert not (case.run / "checkpoints").exists() or case.checkpoints == []


def test_checkpoints_hold_only_finite_numbers(halted):
    for path in halted.checkpoints:
        for name in ("policy.safetensors", "optimizer.safetensors"):
            tensors = load_file(path / name)
            assert tensors
            assert all(tensor.isfinite().all() for tensor in tensors.values())
