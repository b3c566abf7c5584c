"""A run finds the model that it was trained on, from wherever it is used, and never looks for a folder on a hub."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import huggingface_hub
import peft
import pytest
import torch
import yaml

import tiebreak
from tiebreak.config import load_config
from tiebreak.engine.sources import absolute, called, contents
from tiebreak.errors import ModelError, RunError
from tiebreak.runs import Run
from tiebreak.training.trained import load_trained
from tiebreak.verbs import train
from tiebreak.verbs.export import export
from tiny import scores, token_pairs

PAIRS = token_pairs(3)
WORDS = ["the", "cat", "sat", "on", "mat", "and", "dog", "ran", "to", "park", "user"]


@pytest.fixture(autouse=True)
def no_hub(monkeypatch):
    """Whoever asks a hub has taken a folder's name for a hub id."""

    def asked(*_, **__):
        raise AssertionError("the hub was asked")

    for name in ("hf_hub_download", "snapshot_download"):
        monkeypatch.setattr(huggingface_hub, name, asked)


@pytest.fixture
def project(tmp_path, tiny_model, tiny_adapter, monkeypatch):
    """A folder with a model and an adapter on it, named from there, and pairs."""
    folder = tmp_path / "project"
    shutil.copytree(tiny_model, folder / "m" / "base")
    shutil.copytree(tiny_adapter, folder / "m" / "sft")
    told = folder / "m" / "sft" / "adapter_config.json"
    told.write_text(json.dumps(json.loads(told.read_text()) | {"base_model_name_or_path": "m/base"}))
    rows = [{"prompt": f"{a} {b}", "chosen": f"yes {b}", "rejected": f"no {a}"} for a in WORDS[:5] for b in WORDS[5:]]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.chdir(folder)
    (tmp_path / "elsewhere").mkdir()
    return folder


def _config(name="m/base", kind="lora", **changes):
    given = {
        "model.name": str(name),
        "model.device": "cpu",
        "adapter.kind": kind,
        "adapter.rank": 4,
        "data.train": "pairs.jsonl",
        "data.heldout_share": 0.3,
        "evaluation.num_samples": 0,
        "evaluation.num_draws": 0,
        "evaluation.neutral_probe": False,
        "evaluation.probes": 0,
        "training.learning_rate": 5e-3,
        "training.token_budget": 256,
        "reference.store": "off",
        "output.dir": "runs/my",
        "output.trackers": [],
    }
    return load_config(None, given | changes)


def _said(run):
    with torch.no_grad():
        return scores(load_trained(run).policy, PAIRS).chosen


CASES = [("m/base", "lora"), ("m/base", "none"), ("m/sft", "lora"), ("m/sft", "none")]


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_a_run_is_used_from_another_folder_and_after_it_was_moved_with_its_model(
    name, kind, project, tmp_path, monkeypatch
):
    run, form = train.train(_config(name, kind)), "adapter" if kind == "lora" else "merged"
    expected = _said(run)
    monkeypatch.chdir(tmp_path / "elsewhere")
    there = load_trained(Run(project / "runs" / "my"))
    with torch.no_grad():
        assert torch.equal(scores(there.policy, PAIRS).chosen, expected)
    export(Run(project / "runs" / "my"), there, tmp_path / "out", form)
    if form == "adapter":
        told = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
        assert told["base_model_name_or_path"] == str(project / "m" / "base")
        assert peft.AutoPeftModelForCausalLM.from_pretrained(str(tmp_path / "out"))
    moved = project.rename(tmp_path / "moved")
    assert torch.equal(_said(Run(moved / "runs" / "my")), expected)


@pytest.mark.parametrize("name", ["m/base", "m/sft"])
def test_a_run_whose_model_is_gone_says_so_in_one_line_and_asks_no_hub(name, project, tmp_path, monkeypatch):
    run = train.train(_config(name))
    (project / "m").rename(tmp_path / "put away")
    for folder in (project, tmp_path / "elsewhere"):
        monkeypatch.chdir(folder)
        with pytest.raises((RunError, ModelError)) as caught:
            load_trained(Run(project / run.path))
        assert str(project / "m" / "base") in str(caught.value)
        assert "write where it is now" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_model_that_went_elsewhere_is_found_where_the_run_s_config_says(project, tmp_path):
    run = train.train(_config())
    expected = _said(run)
    shutil.move(project / "m" / "base", tmp_path / "there")
    told = yaml.safe_load(run.config_file.read_text())
    told["model"]["name"] = str(tmp_path / "there")
    run.config_file.write_text(yaml.safe_dump(told))
    assert torch.equal(_said(run), expected)


def test_other_weights_in_the_folder_of_a_model_are_refused(project, tiny_model):
    run = train.train(_config())
    file = project / "m" / "base" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"rms_norm_eps": 0.1}))
    with pytest.raises(RunError, match="was trained on the base model"):
        load_trained(run)


def test_a_run_from_before_that_does_not_say_where_its_model_was_asks_no_hub(project, tmp_path, monkeypatch):
    run = train.train(_config())
    before = {k: v for k, v in run.manifest.items() if k not in ("model_folder", "run_folder", "files")}
    content = before["base_identity"].split()[1]
    before |= {"base_model": "m/base", "model": f"m/base {content}", "base_identity": f"m/base {content}"}
    run.manifest_file.write_text(json.dumps(before))
    assert load_trained(run)
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(RunError, match="was trained on the model in the folder m/base of the folder that training was"):
        load_trained(Run(project / run.path))


def test_a_finished_run_is_the_same_however_its_model_s_path_is_written(project):
    run = train.train(_config())
    identity, before = run.manifest["identity"], run.metrics_file.stat().st_mtime_ns
    for other in ("./m/base", "m/../m/base/", project / "m" / "base"):
        assert train.train(_config(other)).manifest["identity"] == identity
        assert run.metrics_file.stat().st_mtime_ns == before


def test_a_run_knows_its_data_by_content_and_not_by_the_path(project, tmp_path, monkeypatch):
    run = train.train(_config())
    finished, before = run.manifest["identity"], run.metrics_file.stat().st_mtime_ns
    data, out = Path(_config().data.train).resolve(), str(run.path.resolve())
    monkeypatch.chdir(tmp_path / "elsewhere")
    shutil.copy(data, "renamed.jsonl")
    for path in (os.path.relpath(data), str(data), "renamed.jsonl"):
        config = _config(project / "m" / "base", **{"data.train": path, "output.dir": out})
        assert train.train(config).manifest["identity"] == finished
        assert Run(out).metrics_file.stat().st_mtime_ns == before
        shutil.rmtree(Run(out).policy_folder)
        Run(out).update_manifest(status="interrupted")
        again = train.train(config).manifest
        assert again["identity"] == finished and not again["accepted"]
        before = Run(out).metrics_file.stat().st_mtime_ns
    Path("renamed.jsonl").write_text(data.read_text() + data.read_text().splitlines()[0] + "\n")
    with pytest.raises(RunError, match=r"renamed\.jsonl has changed since this run"):
        train.train(config)


def test_a_finished_run_of_another_model_of_the_same_name_is_refused(project, tmp_path):
    train.train(_config())
    other = shutil.copytree(project / "m" / "base", tmp_path / "base")
    train.train(_config(other))  # the same content
    train.train(_config(shutil.copytree(other, tmp_path / "renamed")))
    (other / "config.json").write_text((other / "config.json").read_text() + " ")
    with pytest.raises(RunError, match=r"finished run with other settings \(model.name\)"):
        train.train(_config(other))


def test_an_attempt_goes_on_however_its_model_s_path_is_written(project, tmp_path):
    run = train.train(_config())
    finished = run.manifest["identity"]
    shutil.rmtree(run.policy_folder)
    run.update_manifest(status="interrupted")
    copied = shutil.copytree(project / "m" / "base", tmp_path / "renamed")
    for other in ("./m/base", project / "m" / "base", copied):
        again = train.train(_config(other)).manifest
        assert again["num_steps_done"] == again["num_steps"]
        assert again["identity"] == finished or other == copied
        assert not again["accepted"]
        shutil.rmtree(run.policy_folder)
        run.update_manifest(status="interrupted")
    file = copied / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"rms_norm_eps": 0.1}))
    with pytest.raises(RunError, match="the model"):
        train.train(_config(copied))


def test_names_read_the_same_from_any_folder(project):
    assert absolute("m/base") == str(project / "m" / "base") == absolute("./m/base/")
    assert {called(name) for name in ("m/base", "./m/base", str(project / "m" / "base"))} == {"base"}
    assert called("some/model") == absolute("some/model") == "some/model"
    assert contents("base sha256:ab base sha256:cd") == contents("other sha256:ab x sha256:cd") == "sha256:ab sha256:cd"
    assert contents("sft sha256:ab org/base") == "sha256:ab org/base"


def test_a_run_is_measured_by_its_objective_as_training_left_it_then_and_later(project):
    """What it remembers of its steps, and the last of its betas, are those of the loss on held-out pairs."""
    loss = {"name": "beta_dpo", "beta": 0.4, "beta_schedule": {"to": 0.2}}
    run = train.train(
        _config(loss=loss, **{"evaluation.probes": 1, "evaluation.probe_pairs": 1000, "training.pairs_per_step": 5})
    )
    [probe] = [row for row in map(json.loads, run.metrics_file.read_text().splitlines()) if row.get("heldout/loss")][
        -1:
    ]
    losses = lambda: [row["loss"] for row in run.rows(run.evidence_file)]  # noqa: E731
    then, (mean, spread) = losses(), run.manifest["running"]
    assert mean != 0 and spread > 0
    assert sum(then) / len(then) == pytest.approx(probe["heldout/loss"], rel=1e-6)
    tiebreak.evaluate(run.path)
    assert losses() == pytest.approx(then, rel=1e-6)
    run.update_manifest(running=[0.0, 0.0])
    tiebreak.evaluate(run.path)
    assert losses() != pytest.approx(then, rel=1e-6)
