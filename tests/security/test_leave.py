"""A run folder from elsewhere has nothing run and nobody asked that its reader never named."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

import tiebreak
from tiebreak.errors import RunError
from tiebreak.files import write_jsonl
from tiebreak.runs import Run
from tiny import settings, unsealed

CAPS = {"judge": ["judge.max_calls"], "lm_eval": ["lm_eval.limit"]}
REWARD = """
from pathlib import Path

Path({canary!r}).write_text("ran")


def score(prompts, completions, **_):
    return [float(len(str(one))) for one in completions]
"""


def _run(model: Path, folder: Path, **changes: object) -> Run:
    rows = [{"prompt": f"the cat {n}", "chosen": f"yes {n}", "rejected": "no"} for n in range(40)]
    write_jsonl(folder / "pairs.jsonl", rows)
    told = {"data__train": str(folder / "pairs.jsonl"), "data__heldout_share": 0.3, "output__dir": str(folder / "run")}
    told |= {"output__trackers": [], "evaluation__num_samples": 8, "evaluation__max_new_tokens": 4}
    return tiebreak.train(settings(model, **told | changes), quiet=True)


@pytest.fixture(scope="module")
def trained(tiny_model, tmp_path_factory) -> Run:
    return _run(tiny_model, tmp_path_factory.mktemp("leave"))


@pytest.fixture
def foreign(trained, tmp_path, monkeypatch) -> Run:
    """A run folder as somebody else may have made it."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return unsealed(Run(shutil.copytree(trained.path, tmp_path / "run")))


def _reaching(run: Run, **evaluation: object) -> None:
    told = yaml.safe_load(run.config_file.read_text())
    told["evaluation"] |= evaluation
    run.config_file.write_text(yaml.safe_dump(told))


@pytest.mark.parametrize("where", ["beside", "absolute", "module"])
def test_its_python_judge_is_not_run_until_it_is_named(foreign, tmp_path, monkeypatch, where):
    canary = tmp_path / "canary"
    file = tmp_path / "reward_from_elsewhere.py"
    file.write_text(REWARD.format(canary=str(canary)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    name = {"beside": file.name, "absolute": str(file), "module": file.stem}[where] + ":score"
    _reaching(foreign, judge={"kind": "rule", "reward": name})
    for overrides in ({}, {"evaluation.num_samples": 8}, {"evaluation.judge.arguments": {}}):
        with pytest.raises(RunError, match="which you never asked for") as refused:
            tiebreak.evaluate(foreign, overrides=overrides, quiet=True)
        assert "--set evaluation.judge=" in str(refused.value)
        assert not canary.exists()
    tiebreak.evaluate(foreign, overrides={"evaluation.judge": f"rule:{name}"}, quiet=True)
    assert canary.exists()
    tiebreak.evaluate(foreign, quiet=True)  # it is known now


@pytest.mark.parametrize(
    "reaching",
    [
        {"judge": {"kind": "server", "model": "m", "base_url": "http://127.0.0.1:9/v1", "key_variable": "MY_SECRET"}},
        {"judge": {"kind": "server", "model": "m"}},
        {"lm_eval": {"include_path": "tasks", "tasks": ["one"]}},
    ],
)
def test_its_server_is_not_asked_and_its_folder_of_tasks_is_not_run(foreign, reaching):
    _reaching(foreign, **reaching)
    with pytest.raises(RunError, match="which you never asked for"):
        tiebreak.evaluate(foreign, quiet=True)
    with pytest.raises(RunError, match="which you never asked for"):
        tiebreak.evaluate(
            foreign, overrides={"evaluation.judge.max_calls": 5} if "judge" in reaching else {}, quiet=True
        )


def test_what_a_run_was_trained_with_needs_no_word(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "mine.py").write_text(REWARD.format(canary=str(tmp_path / "canary")))
    monkeypatch.chdir(tmp_path)
    run = _run(tiny_model, tmp_path, evaluation__judge="rule:mine.py:score")
    monkeypatch.chdir(tmp_path.parent)
    assert tiebreak.evaluate(run, quiet=True)["verdict"]
