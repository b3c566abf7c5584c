"""What every command keeps to: --json and --quiet, and one JSON document however it ends."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import tiebreak
from decisions import decided
from tiebreak.cli.app import app
from tiebreak.review import desk, items
from tiebreak.runs import Run

GOOD = {
    "train": ["{run}/config.yaml"],
    "plan": ["{run}/config.yaml"],
    "check": ["{pairs}"],
    "clean": ["{pairs}", "cleaned"],
    "convert": ["{pairs}", "converted.jsonl", "--to", "openai"],
    "init": ["{pairs}"],
    "evaluate": ["{run}"],
    "gate": ["{run}"],
    "judge": ["{run}", "--judge", "rule:repetition"],
    "report": ["{run}"],
    "export": ["{run}", "--out", "made"],
    "chat": ["{run}", "--prompt", "the cat", "--max-new-tokens", "4"],
    "config": ["{run}/config.yaml"],
    "losses": ["ipo"],
    "sweep": ["{run}/config.yaml", "--grid", "loss.beta=0.05,0.1", "--dry-run"],
    "rounds": ["{loop}", "--dry-run"],
    "promote": ["{passing}", "--to", "{registry}", "--form", "merged"],
    "rollback": ["--to", "{registry}"],
    "history": ["--to", "{registry}"],
    "compare": ["{run}", "{passing}"],
    "watch": ["{run}"],
    "why": ["{run}"],
    "review": ["{review}", "--results"],
}
BAD = {
    "train": ["none.yaml"],
    "plan": ["none.yaml"],
    "check": ["none.jsonl"],
    "clean": ["none.jsonl", "cleaned"],
    "convert": ["none.jsonl", "converted.jsonl", "--to", "openai"],
    "init": ["none.jsonl"],
    "evaluate": ["none"],
    "gate": ["none"],
    "judge": ["none.jsonl", "--judge", "rule:repetition"],
    "report": ["none"],
    "export": ["none", "--out", "made"],
    "chat": ["none", "--prompt", "the cat"],
    "config": ["none.yaml"],
    "losses": ["none"],
    "sweep": ["none.yaml"],
    "rounds": ["none.yaml"],
    "promote": ["none"],
    "rollback": ["--to", "none"],
    "history": ["--to", "none"],
    "compare": ["none", "nobody"],
    "watch": ["none"],
    "why": ["none"],
    "review": ["none"],
}
COMMANDS = [one.name or one.callback.__name__ for one in app.registered_commands]


@pytest.fixture(scope="module")
def _registry(finished, tmp_path_factory):
    folder = tmp_path_factory.mktemp("registry")
    passing = decided(Run(shutil.copytree(finished.path, folder / "passing")))
    for form in ("merged", "adapter"):
        tiebreak.promote(passing, folder / "models", form=form, quiet=True)
    return folder


@pytest.fixture
def places(finished, _registry, tmp_path) -> dict[str, Path]:
    """Copies of a run, one that passes, and a registry of two versions, that a command may change."""
    return {
        "run": shutil.copytree(finished.path, tmp_path / "run"),
        "pairs": finished.path.parent / "pairs.jsonl",
        "passing": _registry / "passing",
        "registry": shutil.copytree(_registry / "models", tmp_path / "models", symlinks=True),
        "review": _review(tmp_path / "run", tmp_path / "run.review"),
        "loop": _loop(tmp_path / "loop.yaml", finished),
    }


def _review(run: Path, folder: Path) -> Path:
    """Make a review of a run, on which somebody voted."""
    found = items.gather(run)
    made = desk.make(folder, found.items, ["ann"], source=found.source)
    made.choose("ann", made.at_hand("ann").id, "left")
    return folder


def _loop(path: Path, finished: Run) -> Path:
    """Write a loop of rounds on the prompts of a run."""
    model = {"name": str(finished.config.model.name), "device": "cpu"}
    loop = {"judge": "rule:repetition", "prompts": str(finished.path.parent / "pairs.jsonl"), "per_round": 4}
    told = {"model": model, "data": {"heldout_share": 0.5}, "output": {"dir": str(path.parent / "loop")}}
    path.write_text(json.dumps(told | {"rounds": loop}))
    return path


def test_the_tables_of_this_file_hold_every_command():
    assert sorted(GOOD) == sorted(BAD) == sorted(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_json_and_quiet(cli, command):
    code, out, _ = cli(command, "--help")
    assert code == 0
    assert "--json" in out
    assert "--quiet" in out


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("flag", ["--json", "--quiet"])
def test_a_good_end_is_the_result_and_nothing_else(cli, places, command, flag):
    words = [word.format(**places) for word in GOOD[command]]
    code, out, err = cli(command, *words, flag)
    # A verdict is a result, too, and so is what is wrong with a run.
    assert code in ((0, 3, 4) if command in ("gate", "watch", "why") else (0,)), err
    assert "Traceback" not in out + err
    if flag == "--json":
        assert "exit_code" not in json.loads(out)
    else:
        assert out.strip()
        assert err == ""


@pytest.mark.parametrize("command", COMMANDS)
def test_a_bad_end_is_one_document_and_one_line(cli, here, command):
    code, out, err = cli(command, *BAD[command], "--json", "--quiet")
    found = json.loads(out)
    assert found == {"error": found["error"], "message": found["message"], "exit_code": code}
    assert code != 0
    assert err == f"error: {found['message']}\n"
    assert list(here.iterdir()) == []
