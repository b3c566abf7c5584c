"""Trials as jobs of their own: the same trials, by processes that share the sweep's folder alone."""

from __future__ import annotations

import builtins
from types import SimpleNamespace

import pytest
import yaml

from tiebreak.campaigns import launchers
from tiebreak.campaigns.sweep import sweep
from tiebreak.config import load_sweep
from tiebreak.errors import ConfigError
from tiebreak.progress import Silent
from tiebreak.runs import Run
from tiny import drawn_pairs


def _written(model, folder, **settings):
    told = {
        "model": {"name": str(model), "device": "cpu"},
        "data": {"train": drawn_pairs(folder), "heldout_share": 0.5},
        "adapter": {"rank": 4},
        "evaluation": {"num_samples": 0, "num_draws": 0, "neutral_probe": False, "probes": 0},
        "reference": {"store": "off"},
        "output": {"dir": str(folder / "out"), "trackers": []},
        "sweep": {"grid": {"loss.beta": [0.1, 0.3]}, **settings},
    }
    path = folder / "my.yaml"
    path.write_text(yaml.safe_dump(told))
    return path


@pytest.mark.slow
def test_jobs_of_this_machine_share_the_store_and_end_as_trials_do(tiny_model, tmp_path):
    pytest.importorskip("submitit")
    path = _written(tiny_model, tmp_path, launcher="local", slurm={"timeout_min": 5})
    found = sweep(load_sweep(path))
    trials = found.found["trials"]
    assert [one["state"] for one in trials] == ["done", "done"]
    assert [one["num_reference_asked"] > 0 for one in trials] == [True, False]
    assert found.found["reference"]["passes"] == 1.0
    assert found.found["luck"]
    assert {Run(found.folder / one["run"]).config.loss.beta for one in trials} == {0.1, 0.3}


def test_without_submitit_its_launchers_say_what_to_install(tiny_model, tmp_path, monkeypatch):
    real = builtins.__import__

    def missing(name, *rest, **more):
        if name == "submitit":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", missing)
    path = _written(tiny_model, tmp_path, launcher="slurm")
    with pytest.raises(ConfigError, match=r"sweep\.launcher slurm: needs submitit; pip install 'tiebreak\[slurm\]'"):
        sweep(load_sweep(path))


class _Job:
    def __init__(self, told, error=None):
        self.told, self.error, self.job_id, self.cancelled = told, error, "7", False
        self.paths = SimpleNamespace(stderr="7.err")

    def done(self):
        return self.error is not None

    def exception(self):
        return self.error

    def cancel(self, *, check):
        self.cancelled = not check


def test_jobs_that_nobody_waits_for_are_cancelled_and_one_that_ends_without_a_word_fails_alone(monkeypatch):
    monkeypatch.setattr(launchers, "POLL_SECONDS", 0)
    made = object.__new__(launchers.Jobs)
    jobs = [_Job("a", error=AssertionError()), _Job("b")]
    made._settings = SimpleNamespace(launcher="slurm", at_once=2)
    made._executor, made._progress = SimpleNamespace(map_array=lambda *_: jobs), Silent()
    made._told = lambda trial: trial.name
    trials = [SimpleNamespace(name=name, settings={}) for name in "ab"]
    ended = made.launch(trials)
    assert next(ended).says == "its job 7 ended with AssertionError; 7.err"
    ended.close()  # as where Ctrl-C ends the sweep
    assert [one.cancelled for one in jobs] == [False, True]
