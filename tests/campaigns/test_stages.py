"""SFT, then DPO: each stage is a run of its own, starts where the last one ended, and is done once."""

from __future__ import annotations

import pytest
import torch
import yaml
from safetensors.torch import load_file

import tiebreak
from tiebreak.errors import ConfigError, RunError
from tiebreak.runs import Run
from tiny import drawn_pairs


@pytest.fixture
def written(tiny_model, tmp_path):
    def write(kind="lora", **changes):
        told = {
            "model": {"name": str(tiny_model), "device": "cpu"},
            "data": {"train": drawn_pairs(tmp_path), "heldout_share": 0.3},
            "adapter": {"kind": kind, **({"rank": 4} if kind == "lora" else {})},
            "training": {"learning_rate": 5e-3},
            "evaluation": {"num_samples": 0, "num_draws": 0, "neutral_probe": False, "probes": 0},
            "output": {"dir": str(tmp_path / "two"), "trackers": []},
            "stages": [{"name": "sft", "loss": "sft"}, {"name": "dpo", "loss": {"name": "dpo", "beta": 0.3}}],
        }
        path = tmp_path / "two.yaml"
        path.write_text(yaml.safe_dump(told | changes))
        return path

    return write


@pytest.mark.parametrize("kind", ["lora", "none"])
def test_what_sft_made_is_the_start_of_dpo_and_its_reference(kind, written, tmp_path):
    last = tiebreak.train(written(kind), quiet=True)
    sft = Run(tmp_path / "two" / "1-sft")
    assert last.path == tmp_path / "two" / "2-dpo"
    assert [one.manifest["status"] for one in (sft, last)] == ["done", "done"]
    # What the reference of the second says of held-out pairs is what the policy of the first said of them.
    said = {row["pair_id"]: row for row in sft.rows(sft.evidence_file)}
    for row in last.rows(last.evidence_file):
        before = said[row["pair_id"]]
        for side in ("chosen", "rejected"):
            assert row[f"reference_{side}_logps"] == pytest.approx(before[f"policy_{side}_logps"], abs=1e-4)
    assert any(row["policy_chosen_logps"] != row["reference_chosen_logps"] for row in last.rows(last.evidence_file))
    assert last.data["num_heldout_prompts"] == sft.data["num_heldout_prompts"]


def test_a_stage_that_is_done_stays_and_the_others_go_on_to_the_same_bits(written, tmp_path):
    path = written()
    last, sft = tiebreak.train(path, quiet=True), Run(tmp_path / "two" / "1-sft")
    weights = load_file(last.policy_folder / "adapter_model.safetensors")
    before = sft.metrics_file.stat().st_mtime_ns
    last.update_manifest(status="running")
    for file in last.policy_folder.iterdir():
        file.unlink()
    last.policy_folder.rmdir()
    again = load_file(tiebreak.train(path, quiet=True).policy_folder / "adapter_model.safetensors")
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    assert sft.metrics_file.stat().st_mtime_ns == before


def test_prompts_that_a_later_stage_holds_out_are_not_trained_on_and_that_is_told_before_the_first_begins(
    written, tmp_path
):
    stages = [{"name": "sft", "loss": "sft"}, {"name": "dpo", "data": {"heldout_share": 0.6}}]
    with pytest.raises(ConfigError, match=r"dpo holds out \d+ prompts, and sft, before it, trains on \d+ of them"):
        tiebreak.train(written(stages=stages), quiet=True)
    assert not (tmp_path / "two").exists()


def test_so_are_those_of_a_stage_that_starts_from_one_before_the_last(written):
    stages = [
        {"name": "sft", "loss": "sft", "data": {"heldout_share": 0.2}},
        {"name": "dpo", "data": {"heldout_share": 0.2}},
        {"name": "ipo", "from": "sft", "loss": "ipo", "data": {"heldout_share": 0.4}},
    ]
    with pytest.raises(ConfigError, match=r"stages: ipo holds out .* and sft, before it"):
        tiebreak.train(written(stages=stages), quiet=True)


def test_a_stage_that_starts_from_the_model_may_hold_out_what_another_one_trains_on(written):
    own = {"data": {"heldout_share": 0.6}}
    stages = [{"name": "sft", "loss": "sft"}, {"name": "dpo", "from": None, **own}]
    tiebreak.train(written(stages=stages), quiet=True)


def test_a_model_that_a_run_made_is_never_measured_on_what_that_run_trained_on(written, tmp_path):
    tiebreak.train(written(stages=[{"name": "sft", "loss": "sft"}]), quiet=True)
    made = str(tmp_path / "two" / "1-sft" / "policy")
    again = written(model={"name": made, "device": "cpu"}, stages=[{"name": "dpo", "data": {"heldout_share": 0.6}}])
    with pytest.raises(RunError, match=r"held-out prompts were trained on by .*1-sft, which made the model"):
        tiebreak.train(again, {"output.dir": str(tmp_path / "three")}, quiet=True)
