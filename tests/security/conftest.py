"""The real command line in this process, and a run that was really trained, to be spoiled in copies."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from tiebreak.__main__ import main
from tiebreak.verbs import train
from tiny import settings

Answer = tuple[int, str, str]


def save_rows(path: Path, rows) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def some_rows(num: int = 40) -> list[dict]:
    return [{"prompt": f"the cat {n}", "chosen": f"yes {n}", "rejected": "no"} for n in range(num)]


def train_settings(model, pairs, out, **changes):
    base = {"data__train": str(pairs), "data__heldout_share": 0.3, "evaluation__num_samples": 2,
            "evaluation__max_new_tokens": 4, "evaluation__probes": 1, "output__trackers": [],
            "output__dir": str(out)}  # fmt: skip
    return settings(model, **base | changes)


@pytest.fixture(scope="session")
def command():
    """Run the command line in this process, wherever that is; return (exit code, stdout, stderr)."""
    import contextlib
    import io

    def call(*words) -> Answer:
        out, err, before = io.StringIO(), io.StringIO(), sys.argv
        sys.argv = ["tiebreak", *map(str, words)]
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as end:
                main()
        finally:
            sys.argv = before
        return int(end.value.code or 0), out.getvalue(), err.getvalue()

    return call


@pytest.fixture
def pairs(tmp_path) -> Path:
    return save_rows(tmp_path / "pairs.jsonl", some_rows())


@pytest.fixture(scope="session")
def finished(tmp_path_factory, tiny_model) -> Path:
    """The folder of a run that is done; copy it before you spoil it."""
    folder = tmp_path_factory.mktemp("finished")
    pairs = save_rows(folder / "pairs.jsonl", some_rows())
    return train.train(train_settings(tiny_model, pairs, folder / "run")).path


@pytest.fixture
def run_copy(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture
def model_copy(tiny_model, tmp_path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


@pytest.fixture
def canary(tmp_path):
    """A file that code from outside would write, and the check that it did not."""
    path = tmp_path / "code-has-run"
    yield path
    assert not path.exists(), "foreign code has run"


def one_error(answer: Answer, *words: str, exit_code: int = 2) -> str:
    """The one line of an error, of which all words are part."""
    code, out, err = answer
    assert "Traceback" not in out + err
    assert code == exit_code, err
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, err
    for word in words:
        assert word in lines[0], lines[0]
    return lines[0]


@pytest.fixture
def refused():
    return one_error


def edit_json(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture
def edited():
    return edit_json


@pytest.fixture
def trained_on(command, here):
    """Train on the command line, with a model and pairs."""

    def call(model, pairs, *more: str) -> Answer:
        (here / "my.yaml").write_text("{}\n")
        changes = [
            f"model.name={json.dumps(os.fspath(model))}", "model.device=cpu", f"data.train={json.dumps(str(pairs))}",
            "data.heldout_share=0.3", "data.max_length=96", "adapter.rank=2", "evaluation.num_samples=2",
            "evaluation.max_new_tokens=4", "evaluation.probes=1", "evaluation.neutral_probe=false",
            "evaluation.num_draws=0", "output.trackers=[]", 'reference.store="off"', *more,
        ]  # fmt: skip
        return command("train", "my.yaml", "--quiet", *(word for change in changes for word in ("--set", change)))

    return call
