"""A sweep: trials share what is equal for them, are made once, and the best is measured where nobody had looked."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
import yaml
from safetensors.torch import load_file

import tiebreak
from tiebreak import faults
from tiebreak.campaigns.launchers import journal_of
from tiebreak.campaigns.sweep import sweep
from tiebreak.campaigns.trials import Ended
from tiebreak.config import load_config, load_sweep
from tiebreak.errors import DataError, RunError
from tiebreak.progress import Silent
from tiebreak.runs import Run, open_run
from tiny import drawn_pairs

BETAS = (0.1, 0.05, 1.0)


class Listening(Silent):
    """Remembers what was worked at, and what was told."""

    def __init__(self):
        self.stages, self.told = [], []

    def say(self, text):
        self.told.append(text)

    warn = say

    @contextlib.contextmanager
    def stage(self, name, total):
        self.stages.append((name, total))
        with super().stage(name, total) as advance:
            yield advance


def _written(model, folder, out, settings, **changes):
    told = {
        "model": {"name": str(model), "device": "cpu"},
        "data": {"train": drawn_pairs(folder), "heldout_share": 0.5},
        "adapter": {"rank": 4},
        "loss": {"beta": 0.1},
        "training": {"learning_rate": 5e-3, "pairs_per_step": 4},
        "evaluation": {
            "num_samples": 4,
            "drawn_prompts": 2,
            "num_draws": 2,
            "max_new_tokens": 6,
            "neutral_probe": False,
            "probes": 3,
            "rule": {"name": "a", "pattern": "a"},
        },
        "reference": {"store": "off"},
        "output": {"dir": str(folder / out), "trackers": []},
        "sweep": settings,
    }
    path = folder / f"{out}.yaml"
    path.write_text(yaml.safe_dump(told | changes))
    return path


LEAN = {"num_samples": 0, "num_draws": 0, "neutral_probe": False, "probes": 3}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("sweeps")


@pytest.fixture(scope="module")
def swept(tiny_model, place):
    """A finished sweep of three betas, and what was worked at."""
    heard = Listening()
    path = _written(tiny_model, place, "done", {"grid": {"loss.beta": [*BETAS]}, "stop_early": "off"})
    found = sweep(load_sweep(path), heard)
    return found, heard


def _trial(found, name) -> Run:
    return Run(found.folder / "trials" / name)


NAMES = [f"beta={beta}" for beta in BETAS]


def test_the_reference_passes_once_over_the_pairs_of_all_trials(swept):
    found, _ = swept
    reference, asked = found.found["reference"], [one["num_reference_asked"] for one in found.found["trials"]]
    assert reference["num_asked"] == reference["num_pairs"] == asked[0] > 0
    assert asked[1:] == [0, 0]
    assert reference["passes"] == 1.0
    assert reference["num_asked_confirming"] == 2 * found.found["luck"]["accuracy"]["num"]  # of two trials


def test_pairs_are_read_examined_and_rendered_once_and_the_reference_answers_once(swept):
    found, heard = swept
    stages = [name for name, _ in heard.stages]
    assert sum(name.startswith("tokens ") for name in stages) == 1
    answers = {name: len(_trial(found, name).samples) for name in NAMES}
    kept = (found.folder / "reference" / "answers.jsonl").read_bytes().splitlines()
    assert answers == dict.fromkeys(NAMES, 4)
    assert len(kept) == 4 + 2 * 2  # and not three times as many
    assert len({json.dumps([row["before"] for row in _trial(found, name).samples]) for name in NAMES}) == 1
    for name in NAMES[1:]:  # what is shared is what each would have had
        assert _trial(found, name).data == _trial(found, NAMES[0]).data


def test_a_trial_is_the_run_that_train_makes_of_its_configuration(swept, tmp_path):
    found, _ = swept
    own = _trial(found, "beta=0.05")
    config = load_config(own.config_file, {"output.dir": str(tmp_path / "alone"), "reference.store": "off"})
    alone = tiebreak.train(config, quiet=True)
    for name, weights in load_file(own.policy_folder / "adapter_model.safetensors").items():
        assert torch.equal(weights, load_file(alone.policy_folder / "adapter_model.safetensors")[name])
    for file in ("evidence.jsonl", "samples.jsonl", "draws.jsonl", "measures.jsonl", "heldout_pairs.jsonl"):
        assert (own.path / file).read_bytes() == (alone.path / file).read_bytes(), file


def test_no_trial_sees_a_prompt_that_the_best_is_confirmed_on(swept):
    found, _ = swept
    aside = {pair.prompt_id for pair in tiebreak.read_pairs(found.folder / "confirming.jsonl").pairs}
    assert aside
    for name in NAMES:
        run = _trial(found, name)
        assert aside.isdisjoint(run.train_prompt_ids)
        assert aside.isdisjoint(pair.prompt_id for pair in tiebreak.read_pairs(run.heldout_pairs_file).pairs)
        assert run.data["num_set_aside_pairs"] == len(aside)
    luck = found.found["luck"]
    assert luck["accuracy"]["num_clusters"] == len(aside)
    assert luck["best"] == found.found["best"] != luck["against"]


def test_the_best_is_best_by_held_out_accuracy_and_its_configuration_trains(swept, tmp_path):
    found, _ = swept
    ranking = found.found["ranking"]
    keys = [(one["has_moved"], one["accuracy"]["mean"], one["gap"]["mean"]) for one in ranking]
    assert keys == sorted(keys, reverse=True)
    assert found.best.path == found.folder / "trials" / ranking[0]["name"]
    config = load_config(found.folder / "best.yaml")
    assert config.loss.beta == found.found["best_settings"]["loss.beta"]
    assert config.data.set_aside == 0
    for one in ranking:
        evidence = _trial(found, one["name"]).rows(_trial(found, one["name"]).evidence_file)
        assert one["accuracy"]["mean"] == pytest.approx(sum(row["win"] for row in evidence) / len(evidence))


def test_the_page_shows_all_of_it_and_reaches_for_nothing(swept):
    found, _ = swept
    page = found.page.read_text()
    assert all(f"beta={beta}" in page for beta in BETAS)
    assert "passes over" in page
    assert page.count("<svg") == len(page.split("<figure")) - 1 >= 3
    assert "http" not in page.replace("http://www.w3.org", "").replace("http-equiv", "")
    assert "tiebreak train " in page


def test_a_sweep_that_is_done_is_returned_as_it_is(swept):
    found, _ = swept
    heard = Listening()
    again = sweep(load_sweep(found.folder.with_suffix(".yaml")), heard)
    assert again.found == found.found
    assert heard.stages == []


def test_more_values_add_trials_and_leave_those_that_are_done(swept, place):
    found, _ = swept
    copy = shutil.copytree(found.folder, place / "wider")
    before = {name: Run(copy / "trials" / name).manifest_file.stat().st_mtime_ns for name in NAMES}
    told = yaml.safe_load(found.folder.with_suffix(".yaml").read_text())
    told["output"]["dir"], told["sweep"]["grid"] = str(copy), {"loss.beta": [0.1, 2.0]}
    (place / "wider.yaml").write_text(yaml.safe_dump(told))
    with pytest.raises(RunError, match=r"holds trials of another configuration \(reference\.store changed\)"):
        sweep(load_sweep(place / "wider.yaml"))
    told["reference"] = {"store": str(found.folder / "reference")}
    (place / "wider.yaml").write_text(yaml.safe_dump(told))
    wider = sweep(load_sweep(place / "wider.yaml"))
    assert {one["name"] for one in wider.found["trials"]} == {"beta=0.1", "beta=2.0"}
    assert {one["name"] for one in wider.found["ranking"]} == {"beta=0.1", "beta=2.0"}
    assert {one["name"] for one in wider.found["not_asked_any_more"]} == {"beta=0.05", "beta=1.0"}
    assert "not asked for any more, and not ranked: beta=0.05, beta=1.0" in wider.page.read_text()
    assert {name: Run(copy / "trials" / name).manifest_file.stat().st_mtime_ns for name in NAMES} == before
    assert wider.found["reference"]["passes"] == 1.0


def test_a_folder_of_something_else_is_left_alone(swept, place, tiny_model):
    found, _ = swept
    told = yaml.safe_load(found.folder.with_suffix(".yaml").read_text())
    told["training"]["epochs"] = 2
    (place / "changed.yaml").write_text(yaml.safe_dump(told))
    with pytest.raises(RunError, match=r"another configuration \(training\.epochs changed\); put it back"):
        sweep(load_sweep(place / "changed.yaml"))
    (place / "taken").mkdir()
    (place / "taken" / "mine.txt").write_text("mine")
    with pytest.raises(RunError, match="is not empty and no sweep"):
        sweep(load_sweep(_written(tiny_model, place, "taken", {"grid": {"loss.beta": [0.1, 0.2]}})))


def test_a_sweep_that_was_killed_ends_as_one_that_was_not(swept, place, tiny_model):
    found, _ = swept
    path = _written(tiny_model, place, "killed", {"grid": {"loss.beta": [*BETAS]}, "stop_early": "off"})
    command = [sys.executable, "-m", "tiebreak", "sweep", str(path), "--quiet"]
    in_the_second = os.environ | {"TIEBREAK_FAULT": "kill@step:end:8"}
    assert subprocess.run(command, env=in_the_second, capture_output=True, check=False).returncode == -signal.SIGKILL
    ended = [one.name for one in journal_of(place / "killed").ended]
    assert ended == [NAMES[0]]
    first = Run(place / "killed" / "trials" / NAMES[0])
    before = first.manifest_file.stat().st_mtime_ns
    again = sweep(load_sweep(path))
    assert first.manifest_file.stat().st_mtime_ns == before
    assert again.found["ranking"] == found.found["ranking"]
    assert again.found["luck"] == found.found["luck"]
    assert again.found["reference"] == found.found["reference"]


def test_a_trial_that_diverges_is_a_result_and_no_error(place, tiny_model):
    settings = {"grid": {"loss.beta": [*BETAS]}, "stop_early": "off"}
    path = _written(tiny_model, place, "diverging", settings, evaluation=LEAN)
    faults.arm("nan@step:gradient:8")  # the second step of the second trial
    try:
        found = sweep(load_sweep(path))
    finally:
        faults.arm(None)
    states = {one["name"]: one["state"] for one in found.found["trials"]}
    assert states == dict(zip(NAMES, ["done", "diverged", "done"], strict=True))
    assert [one["name"] for one in found.found["ranking"]] != NAMES
    assert "diverged: " in found.page.read_text()
    heard = Listening()
    sweep(load_sweep(path), heard)
    assert heard.stages == []  # nor is it tried again


def test_a_trial_that_found_no_room_for_its_checkpoint_is_tried_again(place, tiny_model):
    settings = {"grid": {"loss.beta": [*BETAS]}, "stop_early": "off"}
    path = _written(tiny_model, place, "full", settings, evaluation=LEAN)
    faults.arm("full@save:begin:8")  # the first one of the second trial
    try:
        found = sweep(load_sweep(path))
    finally:
        faults.arm(None)
    states = {one["name"]: (one["state"], one["says"]) for one in found.found["trials"]}
    assert [state for state, _ in states.values()] == ["done", "failed", "done"], states
    assert "free space" in states[NAMES[1]][1]
    assert [one["state"] for one in sweep(load_sweep(path)).found["trials"]] == ["done"] * 3


def test_a_sweep_whose_notes_find_no_room_ends_and_trains_nothing_twice(place, tiny_model, monkeypatch):
    launched = []

    def launch(trials):
        for trial in trials:
            launched.append(trial.name)
            yield Ended(trial.name, dict(trial.settings), "done", (), 1.0, 0)

    def full(*_):
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr("tiebreak.campaigns.sweep.launcher_of", lambda *_: SimpleNamespace(launch=launch))
    monkeypatch.setattr("tiebreak.files.opened", full)
    with pytest.raises(OSError, match="no space left"):
        sweep(load_sweep(_written(tiny_model, place, "unnoted", {"grid": {"loss.beta": [*BETAS]}})))
    assert len(launched) == 1


def test_a_trial_that_falls_behind_is_ended_early_and_is_not_ranked(place, tiny_model):
    rates = [5e-3, 4e-3, 1e-9]
    settings = {"grid": {"training.learning_rate": rates}, "stop_early": "median", "whole_first": 2}
    found = sweep(load_sweep(_written(tiny_model, place, "stopped", settings, evaluation=LEAN)))
    last = found.found["trials"][-1]
    assert last["state"] == "stopped"
    assert "is below the median of the others" in last["says"]
    assert 1 <= len(last["probes"]) < 3
    assert len(found.found["ranking"]) == 2
    run = Run(found.folder / last["run"])
    assert run.manifest["status"] == "interrupted"
    assert not run.evaluation_file.exists()
    rows = [row for row in run.metrics if "heldout/loss" in row and row["step"]]
    total = run.manifest["num_steps"] or Run(found.folder / found.found["trials"][0]["run"]).manifest["num_steps"]
    assert [tuple(one) for one in last["probes"]] == [
        (row["step"] / total, row["heldout/rewards/accuracies"]) for row in rows
    ]


def test_a_first_trial_that_cannot_be_trained_ends_the_sweep(place, tiny_model):
    changes = {"data": {"train": str(place / "none.jsonl")}}
    path = _written(tiny_model, place, "broken", {"grid": {"loss.beta": [0.1, 0.2]}}, **changes)
    with pytest.raises(DataError, match=r"none\.jsonl"):
        sweep(load_sweep(path))
    path = _written(
        tiny_model, place, "alone", {"grid": {"loss.beta": [0.1, 0.2]}, "confirm_share": 0.01}, evaluation=LEAN
    )
    with pytest.raises(DataError, match="no held-out prompt is set aside to measure the best on"):
        sweep(load_sweep(path))


def test_a_search_draws_the_same_trials_each_time_and_each_once(place, tiny_model):
    search = {"loss.beta": {"low": 0.01, "high": 1, "log": True}, "loss.name": ["dpo", "ipo"]}
    settings = {"search": search, "trials": 3, "best_by": "win_rate", "whole_first": 2}
    path = _written(tiny_model, place, "searched", settings, loss={})
    found = sweep(load_sweep(path))
    told = [one["settings"] for one in found.found["trials"]]
    assert len({json.dumps(one) for one in told}) == 3
    assert all(one["loss.name"] == "dpo" or "loss.beta" not in one for one in told)
    shutil.rmtree(place / "searched")
    command = [sys.executable, "-m", "tiebreak", "sweep", str(path), "--quiet"]
    in_the_second = os.environ | {"TIEBREAK_FAULT": "kill@step:end:8"}
    assert subprocess.run(command, env=in_the_second, capture_output=True, check=False).returncode == -signal.SIGKILL
    assert [one["settings"] for one in sweep(load_sweep(path)).found["trials"]] == told


def test_trials_of_settings_that_are_called_alike_are_not_each_other(place, tiny_model):
    loss = {"name": "r_dpo", "alpha": 0.1, "beta": 0.1}
    settings = {"stop_early": "off"}
    of = lambda key: {**settings, "grid": {key: [8, 16]}}  # noqa: E731
    first = sweep(load_sweep(_written(tiny_model, place, "alike", of("adapter.alpha"), loss=loss, evaluation=LEAN)))
    second = sweep(load_sweep(_written(tiny_model, place, "alike", of("loss.alpha"), loss=loss, evaluation=LEAN)))
    assert [one["settings"] for one in first.found["trials"]] == [{"adapter.alpha": 8}, {"adapter.alpha": 16}]
    assert [one["settings"] for one in second.found["trials"]] == [{"loss.alpha": 8}, {"loss.alpha": 16}]
    assert second.best.config.loss.alpha in (8, 16)
    assert second.best.path.name == f"loss.alpha={second.best.config.loss.alpha:.0f}"
    assert len(second.found["not_asked_any_more"]) == 2


def test_what_a_killed_first_trial_asked_of_the_reference_is_counted(place, tiny_model):
    changes = {"evaluation": LEAN, "training": {"learning_rate": 5e-3, "pairs_per_step": 4, "checkpoint_steps": 2}}
    path = _written(tiny_model, place, "counted", {"grid": {"loss.beta": [0.1, 0.05]}}, **changes)
    command = [sys.executable, "-m", "tiebreak", "sweep", str(path), "--quiet"]
    killed = os.environ | {"TIEBREAK_FAULT": "kill@step:end:4"}
    assert subprocess.run(command, env=killed, capture_output=True, check=False).returncode == -signal.SIGKILL
    assert Run(place / "counted" / "trials" / "beta=0.1").manifest["num_reference_asked"] > 0
    reference = sweep(load_sweep(path)).found["reference"]
    assert (reference["num_asked"], reference["passes"]) == (reference["num_pairs"], 1.0)


def test_an_error_that_nobody_foresaw_costs_its_trial_alone(place, tiny_model):
    path = _written(
        tiny_model, place, "unforeseen", {"grid": {"loss.beta": [*BETAS]}, "stop_early": "off"}, evaluation=LEAN
    )
    faults.arm("oom@step:end:8")
    try:
        found = sweep(load_sweep(path))
    finally:
        faults.arm(None)
    states = [(one["state"], one["says"] or "") for one in found.found["trials"]]
    assert [state for state, _ in states] == ["done", "failed", "done"]
    assert states[1][1].startswith("unforeseen MemoryError in ")
    assert "unforeseen MemoryError" in found.page.read_text()
    for command in (tiebreak.why, open_run):
        with pytest.raises(RunError, match=r"is a sweep, and no run; take a run of .*trials, such as .*beta="):
            command(found.folder)
