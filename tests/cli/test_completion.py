"""Tab in a shell: what is offered, and that no model library is loaded for it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tiebreak.cli.completion import run_folders, settings
from tiebreak.config import leaves, load_config
from tiebreak.config.losses.gaps import Dpo
from tiebreak.files import write_json

COMMAND = Path(sys.executable).parent / "tiebreak"
BASH = """
PATH="$1:$PATH"; eval "$(tiebreak --show-completion)"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _tiebreak_completion tiebreak; printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def runs(here):
    for name in ("runs/one", "runs/two", "deep/er/still", "a[b", "other"):
        (here / name).mkdir(parents=True)
    for name in ("runs/one", "runs/two", "deep/er/still", "a[b"):
        write_json(here / name / "run.json", {})
    return here


def _tab(shell: str, *words: str) -> list[str]:
    variables = {
        "_TIEBREAK_COMPLETE": f"complete_{shell}",
        "_TYPER_COMPLETE_ARGS": " ".join(words),
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        "COMP_WORDS": " ".join(words),
        "COMP_CWORD": str(len(words) - 1),
    }
    done = subprocess.run([COMMAND], capture_output=True, text=True, check=True, env=os.environ | variables)
    assert done.stderr == ""
    return done.stdout.splitlines()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_is_offered_commands_runs_settings_and_choices(runs, shell):
    for words, wanted in [
        (["eval"], "evaluate"),
        (["evaluate", "runs/o"], "runs/one"),
        (["export", "runs/one", "--form", "mer"], "merged"),
        (["train", "--set", "loss.b"], "loss.beta="),
        (["gate", "runs/one", "--set", "gate.rules.repetition.m"], "gate.rules.repetition.margin="),
        (["judge", "runs/one", "--set", "judge.max_c"], "judge.max_calls="),
        (["check", "--set", "data.pairing=b"], "data.pairing=best_worst"),
    ]:
        assert any(wanted in line for line in _tab(shell, "tiebreak", *words)), words


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_the_script_that_is_shown_completes_in_bash(runs):
    def tab(*words: str) -> list[str]:
        told = ["bash", "-c", BASH + "exit 0", "bash", str(COMMAND.parent), "tiebreak", *words]
        done = subprocess.run(told, capture_output=True, text=True, check=True)
        assert done.stderr == ""
        return done.stdout.splitlines()

    assert tab("report", "runs/") == ["runs/one", "runs/two"]
    assert tab("train", "--set", "training.ep") == ["training.epochs=", "training.epochs=1"]
    assert tab("check", "pairs") == [""]  # files are bash's own


def test_a_completion_loads_no_library_of_models():
    code = """
import sys
from tiebreak.__main__ import main
sys.argv = ["tiebreak"]
try:
    main()
finally:
    print(sorted(sys.modules))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env=os.environ
        | {"_TIEBREAK_COMPLETE": "complete_bash", "COMP_WORDS": "tiebreak train --set loss.", "COMP_CWORD": "3"},
    )  # fmt: skip
    assert done.stdout.startswith("loss.name=\n")
    for heavy in ("torch", "transformers", "numpy", "matplotlib", "pyarrow"):
        assert f"'{heavy}'" not in done.stdout


def test_run_folders_are_found_a_little_below_what_is_typed(runs, monkeypatch):
    assert [path for path, _ in run_folders("")] == ["a[b", "runs/one", "runs/two"]
    assert [path for path, _ in run_folders("runs/t")] == ["runs/two"]
    assert [path for path, _ in run_folders("deep/")] == ["deep/er/still"]
    assert [path for path, _ in run_folders(f"{runs}/a")] == [f"{runs}/a[b"]
    assert run_folders("none/") == run_folders("\0") == []
    monkeypatch.chdir("runs/one")
    assert [path for path, _ in run_folders("../t")] == ["../two"]


def test_each_setting_that_is_offered_is_one_and_only_one_with_its_value():
    offered = dict(settings()(""))
    known = {key for key, _ in leaves()} - {"gate.rules"}
    assert {f"{key}=" for key in known} == {key for key in offered if not key.startswith("gate.rules.")}
    assert all(offered.values())
    assert [key for key, _ in settings("gate.")("evaluation.")] == []
    for key in sorted(known - {"model.chat_template_date"}):
        found = [value for value, _ in settings()(f"{key}=") if not value.endswith("=")]
        for value in found:
            of_another = key.startswith("loss.") and key.removeprefix("loss.") not in Dpo.model_fields
            if not (of_another or key.startswith(("evaluation.judge.", "evaluation.rule.", "evaluation.lm_eval."))):
                load_config(None, [value])
    assert {key.partition(".")[0] for key, _ in settings("judge.")("")} == {"judge"}
