"""Trials as jobs of their own: the same trials, by processes that share the sweep's folder alone."""

from __future__ import annotations

import builtins

import pytest
import yaml

from tiebreak.campaigns.sweep import sweep
from tiebreak.config import load_sweep
from tiebreak.errors import ConfigError
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
