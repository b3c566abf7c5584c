"""What a sweep would try and take: told before anything is written."""

from __future__ import annotations

import yaml

from tiebreak.campaigns.launchers import journal_of
from tiebreak.campaigns.outlook import outlook
from tiebreak.campaigns.trials import Ended
from tiebreak.config import load_sweep


def _asked(folder, **sweep):
    path = folder / "my.yaml"
    told = {"training": {"epochs": 2}, "evaluation": {"num_samples": 10, "drawn_prompts": 3, "num_draws": 2}}
    path.write_text(yaml.safe_dump(told | {"output": {"dir": str(folder / "out")}, "sweep": sweep}))
    return load_sweep(path)


def test_a_grid_names_its_trials_and_nothing_is_written(tmp_path):
    seen = outlook(_asked(tmp_path, grid={"loss.beta": [0.1, 0.3], "adapter.rank": [4, 8]}))
    lines = "\n".join(seen.lines())
    assert lines.startswith(f"{tmp_path / 'out'}: 4 trials, 0 of them ended\n  rank=4_beta=0.1\n")
    assert "2 passes over the training pairs" in lines
    assert "16 answers of up to 128 tokens" in lines
    assert "one pass of the reference over all pairs" in lines
    assert seen.seconds is None
    assert not (tmp_path / "out").exists()


def test_a_search_names_its_ranges(tmp_path):
    search = {"loss.beta": {"low": 0.01, "high": 1, "log": True}, "loss.name": ["dpo", "ipo"]}
    lines = [*outlook(_asked(tmp_path, search=search, trials=7)).lines()]
    assert lines[:3] == [
        f"{tmp_path / 'out'}: 7 trials, 0 of them ended",
        "  loss.beta: 0.01 to 1, by factors",
        "  loss.name: one of dpo, ipo",
    ]


def test_what_is_missing_takes_as_long_as_what_is_done(tmp_path):
    asked = _asked(tmp_path, grid={"loss.beta": [0.1, 0.3, 0.5]})
    asked.folder.mkdir()
    journal_of(asked.folder).note(Ended("beta=0.1", {"loss.beta": 0.1}, "done", ((1.0, 0.5),), 120.0, 10))
    seen = outlook(asked)
    assert (seen.num_ended, seen.seconds) == (1, 240.0)
    assert "what is missing takes about 4 min, by the trials that are done" in [*seen.lines()]
