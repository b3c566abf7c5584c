"""Every command, and every function of the library, where the name of a file, a folder or a model is empty."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

import tiebreak
from tiebreak.cli.app import app
from tiebreak.errors import TiebreakError
from tiebreak.registry import Registry
from tiebreak.runs import Run

JUDGE = ["--judge", "rule:repetition"]
# By command, each of its parameters that names something, as it is written; "" stands for the name.
NAMES = {
    "train": {"config": [""]},
    "plan": {"config": [""], "model": ["--gpus", "8", "--model", ""]},
    "config": {"config": [""]},
    "losses": {},
    "check": {
        "files": [""],
        "model": ["{pairs}", "--model", ""],
        "config": ["--config", ""],
        "html": ["{pairs}", "--html", ""],
        "heldout": ["{pairs}", "--heldout", ""],
    },
    "clean": {
        "files": ["", "out"],
        "out": ["{pairs}", ""],
        "config": ["--config", "", "out"],
        "heldout": ["{pairs}", "out", "--heldout", ""],
    },
    "convert": {
        "files": ["", "out", "--to", "trl"],
        "out": ["{pairs}", "", "--to", "trl"],
        "config": ["--config", "", "out", "--to", "trl"],
    },
    "init": {
        "files": [""],
        "model": ["{pairs}", "--model", ""],
        "config": ["--config", ""],
        "out": ["{pairs}", "--out", ""],
        "origin": ["--from", ""],
        "heldout": ["{pairs}", "--heldout", ""],
    },
    "evaluate": {"run": [""], "data": ["{run}", "--data", ""], "against": ["{run}", "--against", ""]},
    "gate": {"run": [""]},
    "judge": {
        "words": ["", *JUDGE],
        "named": ["{pairs}", "--judge", ""],
        "out": ["{pairs}", *JUDGE, "--out", ""],
        "kept": ["{pairs}", *JUDGE, "--kept", ""],
    },
    "report": {"run": [""]},
    "export": {"run": ["", "--out", "out"], "out": ["{run}", "--out", ""]},
    "chat": {"run": ["", "--prompt", "a"]},
    "promote": {"run": [""], "to": ["{run}", "--to", ""], "name": ["{run}", "--name", ""]},
    "rollback": {"to": ["--to", ""]},
    "history": {"to": ["--to", ""]},
    "compare": {"runs": ["{run}", ""]},
    "sweep": {"config": ["", "--grid", "loss.beta=0.1,0.3"]},
    "rounds": {"config": [""]},
    "watch": {"run": [""]},
    "why": {"run": [""]},
    "review": {"source": [""], "out": ["{run}", "--out", ""], "annotators": ["{run}", "--annotators", ""]},
}
NO_NAMES = {
    "overrides",
    "accept",
    "columns",
    "form",
    "grid",
    "do",
    "trainer",
    "prompt",
    "pairing",
    "gpu",
    "tags",
    "host",
    "exclude",
}
"""Parameters of text that name nothing which is looked for."""
CASES = [(command, name) for command, names in NAMES.items() for name in names]
SETTINGS = [
    *(
        "data.train",
        "data.heldout",
        "data.store",
        "model.name",
        "model.base",
        "model.chat_template",
        "reference.store",
        "output.dir",
    ),
    *("evaluation.tasks.0", "data.train.0.path"),
]


def test_the_table_of_this_file_holds_every_name_of_every_command():
    found = {}
    for one in app.registered_commands:
        command, hints = one.name or one.callback.__name__, get_type_hints(one.callback)
        texts = {name for name, kind in hints.items() if {str, list[str], Path} & {kind, *get_args(kind)}}
        found[command] = texts - NO_NAMES
        if command in ("clean", "convert"):
            found[command] -= {"to"}  # a form
        if command == "losses":
            found[command] -= {"name"}  # of an objective, none of which is empty
    assert found == {command: {*names} for command, names in NAMES.items()}


@pytest.fixture(scope="module")
def whole(finished, tmp_path_factory) -> Path:
    return Path(shutil.copytree(finished.path, tmp_path_factory.mktemp("empty") / "run"))


@pytest.mark.parametrize("blank", ["", " ", "\t\n"], ids=ascii)
@pytest.mark.parametrize(("command", "name"), CASES, ids=[" ".join(case) for case in CASES])
def test_an_empty_name_is_refused(cli, here, whole, finished, command, name, blank):
    places = {"run": whole, "pairs": finished.path.parent / "pairs.jsonl"}
    before = sorted(path.name for path in whole.iterdir())
    code, _, err = cli(command, *(word.format(**places) or blank for word in NAMES[command][name]))
    assert code == 2
    last = err.splitlines()[-1]
    assert last.startswith("error: ")
    assert any(word in last for word in ("empty", "no data is named", "--name", "kind is one of")), last
    assert not last.startswith(("error: :", "error: .:"))
    assert list(here.iterdir()) == []
    assert sorted(path.name for path in whole.iterdir()) == before


@pytest.mark.parametrize("key", SETTINGS)
@pytest.mark.parametrize("blank", ["", " "], ids=ascii)
def test_an_empty_name_among_the_settings_is_refused(key, blank):
    key, _, item = key.partition(".0")
    value = ([{item[1:]: blank}] if item else [blank]) if key in ("evaluation.tasks",) or item else blank
    with pytest.raises(TiebreakError, match=rf"{key}.*: found '{blank}'; wanted a name, and an empty one is none"):
        tiebreak.load_config(None, {key: value})


@pytest.mark.parametrize("blank", ["", "  "], ids=ascii)
@pytest.mark.parametrize(
    "call",
    [
        *(Run, tiebreak.open_run, tiebreak.gate, tiebreak.report, tiebreak.evaluate, tiebreak.chat, tiebreak.promote),
        *(tiebreak.train, tiebreak.plan, tiebreak.check, tiebreak.read_pairs, tiebreak.history, tiebreak.rollback),
        *(tiebreak.load_config, Registry),
        lambda name: tiebreak.export(name, "out"),
        lambda name: tiebreak.judge(name, "rule:repetition"),
        lambda name: tiebreak.convert("bundled", name, to="trl"),
        lambda name: tiebreak.clean("bundled", name),
        lambda name: tiebreak.init(origin=name),
    ],
)
def test_an_empty_name_is_refused_by_the_library(here, call, blank):
    with pytest.raises(TiebreakError, match="empty") as told:
        call(blank)
    assert told.value.exit_code == 2
    assert list(here.iterdir()) == []
