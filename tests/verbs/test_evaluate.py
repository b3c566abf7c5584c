"""Measuring a run on other pairs: they are read as the run reads its own, where they are told alike."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tiebreak import faults
from tiebreak.cli.app import app
from tiebreak.config import DataConfig
from tiebreak.data.whole import read_pairs
from tiebreak.engine import probes
from tiebreak.errors import ConfigError, DataError, ModelError
from tiebreak.files import appended_jsonl, as_json
from tiebreak.progress import Silent
from tiebreak.training.trained import measure_trained
from tiebreak.verbs import train
from tiebreak.verbs.evaluate import as_the_run_reads, evaluate
from tiny import settings

TURNED = {"prompt": "prompt", "chosen": "rejected", "rejected": "chosen"}
OTHER = {"prompt": "q", "chosen": "good", "rejected": "bad"}


@pytest.fixture
def saved(tmp_path):
    def save(row, name="other.jsonl"):
        path = tmp_path / name
        path.write_text(json.dumps(row) + "\n")
        return str(path)

    return save


def read(data, path):
    how = as_the_run_reads(data, path)
    (pair,) = read_pairs(path, how.format, columns=how.columns).pairs
    return pair.chosen.content, pair.rejected.content


def test_the_columns_of_the_run_are_those_of_a_file_that_has_them(saved):
    row = {"prompt": "Why?", "chosen": "first", "rejected": "second"}
    assert read(DataConfig(), saved(row)) == ("first", "second")
    assert read(DataConfig(columns=TURNED), saved(row)) == ("second", "first")
    mixed = DataConfig(train=[{"path": "x", "columns": TURNED}, {"path": "y"}])
    assert read(mixed, saved(row)) == ("second", "first")


def test_a_file_without_these_columns_is_read_by_its_own_rows(saved):
    row = {"prompt": "Why?", "chosen": "first", "rejected": "second"}
    assert read(DataConfig(columns=OTHER), saved(row)) == ("first", "second")
    assert read(DataConfig(format="votes"), saved(row)) == ("first", "second")
    mapped = {"prompt": "q", "completion_a": "x", "completion_b": "y", "winner": "w", "winner.first": "0",
              "winner.second": "1"}  # fmt: skip
    assert read(DataConfig(columns=mapped), saved(row)) == ("first", "second")
    assert read(DataConfig(columns=mapped), saved({"q": "Why?", "x": "a", "y": "b", "w": 1})) == ("b", "a")


def test_a_file_that_several_sources_of_the_run_would_read_is_no_guess(saved, tmp_path):
    both = DataConfig(train=[{"path": "x", "columns": TURNED}, {"path": "y", "columns": OTHER}])
    row = {"prompt": "Why?", "chosen": "first", "rejected": "second"}
    assert read(both, saved(row)) == ("second", "first")
    path = saved(row | {"q": "Why?", "good": "first", "bad": "second"})
    with pytest.raises(
        DataError, match=r"other\.jsonl: the run reads files in several ways, and more than one"
    ) as told:
        read(both, path)
    commands = [shlex.split(line) for line in re.findall("'(tiebreak convert [^']*)'", str(told.value))]
    for number, words in enumerate(commands):
        words[words.index("OUT.jsonl")] = out = str(tmp_path / f"{number}.jsonl")
        assert CliRunner().invoke(app, words[1:]).exit_code == 0
        assert read(both, out) == [("second", "first"), ("first", "second")][number]
    assert len(commands) == 2


def test_a_finished_run_measures_other_pairs_by_its_own_columns(saved, tiny_model, tmp_path):
    words = ["cat", "dog", "park", "mat", "user", "ran"]
    rows = [{"prompt": f"{one} {other}", "chosen": f"no {one}", "rejected": f"yes {other}"}
            for one in words for other in words]  # fmt: skip
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = settings(
        tiny_model,
        data__train=str(pairs),
        data__columns=TURNED,
        data__heldout_share=0.3,
        training__learning_rate=5e-3,
        evaluation__num_samples=0,
        evaluation__probes=0,
        output__dir=str(tmp_path / "run"),
        output__trackers=[],
    )
    run = train.train(config)
    other = {"prompt": "the cat sat", "chosen": "no mat", "rejected": "yes mat"}
    found = evaluate(run, data=saved(other))
    assert found["data"]["columns"] == TURNED
    assert found["data"]["num_dropped"] == 0
    renamed = {"instruction": "the cat sat", "response_a": "no mat", "response_b": "yes mat", "winner": "b"}
    again = evaluate(run, data=saved(renamed, "others.jsonl"))
    assert (again["data"]["columns"], again["data"]["format"]) == (None, "votes")
    assert again["accuracy"] == found["accuracy"]


WORDS = ("cat", "dog", "mat", "park", "sun", "tree", "road", "lake", "bird", "fish")


@pytest.fixture(scope="module")
def runs(tiny_model, tmp_path_factory):
    """Two runs on the same pairs that differ in their rate, with all that they are measured by."""
    folder = tmp_path_factory.mktemp("runs")
    pairs = folder / "pairs.jsonl"
    rows = [{"prompt": f"{a} {b}", "chosen": f"yes {a}", "rejected": f"no {b}"} for a in WORDS for b in WORDS]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def trained(name, **more):
        return train.train(
            settings(
                tiny_model,
                **{
                    "data__train": str(pairs), "data__heldout_share": 0.3,
                    "evaluation__num_samples": 20, "evaluation__max_new_tokens": 4, "evaluation__probes": 0,
                    "evaluation__rule": {"name": "says yes", "pattern": "yes"}, "training__checkpoint_steps": 6,
                    "output__dir": str(folder / name), "output__trackers": [],
                }
                | more,
            )
        )  # fmt: skip

    return trained("quick", training__learning_rate=5e-3), trained("slow", training__learning_rate=5e-4)


def _files(run):
    """What the run's own files say, each whole."""
    return {path.name: path.read_bytes() for path in run.path.iterdir() if path.is_file() and path.name != ".lock"}


def _table(evaluation):
    return {row["key"]: row for row in evaluation["table"]}


def test_each_checkpoint_is_measured_and_the_run_stays_as_it_is(runs):
    run, _ = runs
    before = _files(run)
    found = evaluate(run, checkpoints=True)["checkpoints"]
    names = sorted(path.name for path in run.checkpoints_folder.glob("step-*"))
    assert [one["checkpoint"] for one in found] == names
    assert len(names) == 2
    # The last checkpoint is the trained policy.
    assert _table(found[-1]) == _table(run.evaluation)
    assert found[-1]["verdict"] == run.evaluation["verdict"]
    assert _table(found[0])["margin"]["after"] != _table(found[-1])["margin"]["after"]
    assert _table(found[0])["margin"]["before"] == _table(found[-1])["margin"]["before"]
    for one in found:
        rows = (run.evaluations_folder / one["checkpoint"] / "measures.jsonl").read_text().splitlines()
        assert {json.loads(row)["key"] for row in rows} >= {"accuracy", "answers/preferred"}
    assert _files(run) == before


def _times(folder):
    return {path.parent.name: path.stat().st_mtime_ns for path in sorted(folder.glob("*/measures.jsonl"))}


def test_a_checkpoint_is_measured_once_by_the_same_settings_and_files(runs, tmp_path, monkeypatch):
    run = type(runs[0])(shutil.copytree(runs[0].path, tmp_path / "run"))
    shutil.rmtree(run.evaluations_folder, ignore_errors=True)
    task = tmp_path / "task.yaml"
    rows = [{"question": f"cat {number}", "choices": ["yes", "no"], "answer": "yes"} for number in range(2)]
    told = {"name": "told", "kind": "multiple_choice", "items": rows}
    task.write_text(json.dumps(told))
    code = tmp_path / "rule_of_a_test.py"
    code.write_text("def score(completions, **_):\n    return [1.0] * len(completions)\n")
    monkeypatch.syspath_prepend(tmp_path)
    judge = {"kind": "rule", "reward": f"{code.stem}:score"}
    how = {"evaluation.num_samples": 2, "evaluation.tasks": [str(task)], "evaluation.judge": judge}
    first, times = evaluate(run, checkpoints=True, overrides=how), _times(run.evaluations_folder)
    assert evaluate(run, checkpoints=True, overrides=how) == first
    assert _times(run.evaluations_folder) == times
    # One that was not whole, or that something lacks, is measured again, and the other stays.
    one, two = sorted(times)
    (run.evaluations_folder / one / "evaluation.json").write_text("{")
    assert evaluate(run, checkpoints=True, overrides=how) == first
    later = _times(run.evaluations_folder)
    assert (later[one] > times[one], later[two]) == (True, times[two])
    # Other settings, another file by the same name, and a module's other code.
    for change in ("settings", "file", "code"):
        times = _times(run.evaluations_folder)
        if change == "settings":
            how |= {"evaluation.num_samples": 3}
        elif change == "code":
            code.write_text("def score(completions, **_):\n    return [float(len(one)) for one in completions]\n")
        else:
            task.write_text(json.dumps(told | {"items": [rows[0] | {"question": "dog"}, rows[1]]}))
        evaluate(run, checkpoints=True, overrides=how)
        later = _times(run.evaluations_folder)
        assert all(later[name] > times[name] for name in times), change


def test_a_checkpoint_whose_judge_can_never_be_made_is_measured_once_and_one_whose_judge_failed_again(
    runs, tmp_path, monkeypatch
):
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    run = type(runs[0])(shutil.copytree(runs[0].path, tmp_path / "run"))
    down = {"kind": "server", "model": "m", "base_url": "http://127.0.0.1:9/v1", "num_retries": 0}
    for judge, stays in (({"kind": "data"}, True), (down, False)):
        how = {"evaluation.num_samples": 2, "evaluation.judge": judge}
        [*_, found] = evaluate(run, checkpoints=True, overrides=how)["checkpoints"]
        assert found["judge"]["refusal"]
        times = _times(run.evaluations_folder)
        evaluate(run, checkpoints=True, overrides=how)
        assert (_times(run.evaluations_folder) == times) is stays


def test_checkpoints_whose_evaluation_was_killed_twice_lose_nothing_that_was_done(runs, tmp_path):
    run = type(runs[0])(shutil.copytree(runs[0].path, tmp_path / "run"))
    shutil.rmtree(run.evaluations_folder, ignore_errors=True)
    [*_, last] = sorted(run.checkpoints_folder.glob("step-*"))
    for path in run.checkpoints_folder.glob("step-*"):
        if path != last:
            shutil.rmtree(path)
    command = [sys.executable, "-m", "tiebreak", "evaluate", str(run.path), "--checkpoints", "--quiet"]
    killed = subprocess.run(command, env=os.environ | {"TIEBREAK_FAULT": "kill@evaluate:2"}, check=False)
    assert killed.returncode == -signal.SIGKILL
    kept = run.evaluations_folder / last.name / ".evaluation.jsonl"
    lines = kept.read_bytes()
    kept.write_bytes(lines + b'{"key": "torn')
    faults.arm("oom@evaluate:2")
    try:
        with pytest.raises(MemoryError):
            evaluate(run, checkpoints=True)
    finally:
        faults.arm(None)
    # What stood there is not scored again, and what came since stands on lines of its own.
    assert kept.read_bytes().startswith(lines)
    assert len(kept.read_bytes()) > len(lines)
    assert len(list(appended_jsonl(kept))) == len(kept.read_bytes().splitlines())
    [found] = evaluate(run, checkpoints=True)["checkpoints"]
    assert _table(found) == _table(run.evaluation)
    assert not kept.exists()


def test_a_damaged_checkpoint_is_left_out_and_told(runs, tmp_path):
    run = type(runs[0])(shutil.copytree(runs[0].path, tmp_path / "run"))
    first, last = sorted(run.checkpoints_folder.glob("step-*"))
    weights = bytearray((first / "policy.safetensors").read_bytes())
    weights[-1] ^= 1
    (first / "policy.safetensors").write_bytes(weights)
    heard = Heard()
    told = evaluate(run, heard, checkpoints=True)
    assert [one["checkpoint"] for one in told["checkpoints"]] == [last.name]
    assert [text.split(":")[0] for text in told["left_out"]] == [first.name]  # for whoever reads nothing but the JSON
    assert any(f"{first.name}: policy.safetensors is not what was written" in text for text in heard.warnings)
    assert first.is_dir()  # nothing was moved


class Heard(Silent):
    def __init__(self):
        self.warnings = []

    def warn(self, text):
        self.warnings.append(text)


def test_a_run_is_measured_against_another_in_its_own_arithmetic(runs, tmp_path, monkeypatch):
    """Whatever the machine of the other one was fast in."""
    monkeypatch.setattr(probes, "_asked", {})
    monkeypatch.setattr(probes, "_held", {})
    one, two = (type(run)(shutil.copytree(run.path, tmp_path / name)) for run, name in zip(runs, "ab", strict=True))
    one.update_manifest(faster={"q": True})
    two.update_manifest(faster={"q": False})
    heard = []
    monkeypatch.setattr(
        "tiebreak.verbs.evaluate.measure_trained",
        lambda *given, **more: heard.append(probes.known("q")) or measure_trained(*given, **more),
    )
    evaluate(one, against=str(two.path))
    evaluate(two, against=str(one.path))
    assert heard == [True, False]


def test_against_itself_nothing_has_changed_and_against_another_run_everything_turns_round(runs):
    quick, slow = runs
    itself = _table(evaluate(quick, against=str(quick.path)))
    assert itself["accuracy"]["after"]["mean"] == itself["answers/preferred"]["after"]["mean"] == 0.5
    assert itself["answers/unchanged"]["after"]["mean"] == 1.0
    assert itself["margin"]["after"]["mean"] == pytest.approx(0, abs=1e-5)
    one, two = evaluate(quick, against=str(slow.path)), evaluate(slow, against=str(quick.path))
    assert _table(one)["margin"]["after"]["mean"] == pytest.approx(-_table(two)["margin"]["after"]["mean"], abs=1e-5)
    for key in ("answers/rule", "answers/length", "chosen_logps"):
        assert _table(one)[key]["before"]["mean"] == pytest.approx(_table(two)[key]["after"]["mean"], abs=1e-5)
    assert one["against"] == str(slow.path)
    assert Path(one["folder"]).parent == quick.evaluations_folder
    assert Path(one["folder"]).name.startswith("slow-")


def test_against_the_model_that_it_was_trained_on_is_as_against_its_reference(runs, tiny_model):
    run, _ = runs
    found, own = _table(evaluate(run, against=str(tiny_model))), _table(run.evaluation)
    assert found.keys() == own.keys()
    for key in ("accuracy", "margin", "answers/rule", "chosen_logps"):
        assert found[key]["after"]["mean"] == pytest.approx(own[key]["after"]["mean"], abs=1e-5)
        assert found[key]["before"]["mean"] == pytest.approx(own[key]["before"]["mean"], abs=1e-5)


def test_against_a_model_with_other_words_or_one_trained_on_these_prompts_is_refused(runs, tiny_gpt, tmp_path):
    run, other = runs
    with pytest.raises(ModelError, match="has another vocabulary than"):
        evaluate(run, against=str(_with_another_word(tiny_gpt, tmp_path / "other")))
    leaking = type(other)(shutil.copytree(other.path, tmp_path / "leaking"))
    held = [json.loads(line)["prompt_id"] for line in run.samples_file.read_text().splitlines()]
    trained = json.loads(leaking.train_prompts_file.read_text())["prompt_ids"]
    leaking.keep({leaking.train_prompts_file: as_json({"prompt_ids": [*trained, *held[:5]]})})
    heard = Heard()
    found = evaluate(run, heard, against=str(leaking.path))
    assert found["num_heldout_prompts"] == run.evaluation["num_heldout_prompts"] - 5
    assert any("5 of" in text and "trained on this prompt" in text for text in heard.warnings)


def _with_another_word(model, folder):
    shutil.copytree(model, folder)
    file = folder / "tokenizer.json"
    told = json.loads(file.read_text())
    told["added_tokens"].append(told["added_tokens"][-1] | {"id": 10_000, "content": "<|more|>"})
    file.write_text(json.dumps(told))
    return folder


def test_settings_of_evaluation_and_gate_may_be_changed_for_this_time_and_no_others(runs, tmp_path):
    run = type(runs[0])(shutil.copytree(runs[0].path, tmp_path / "run"))
    config = run.config_file.read_bytes()
    before = _files(run)
    found = evaluate(run, overrides=["evaluation.num_samples=5", "gate.min_prompts=6"])
    assert found["num_samples"] == 5
    # What was asked otherwise is not the run's own word: it stands beside it, with what was asked.
    assert found["settings"] == {"evaluation.num_samples": 5, "gate.min_prompts": 6}
    assert Path(found["folder"]).parent == run.evaluations_folder
    assert len(type(run)(found["folder"]).samples) == 5
    assert _files(run) == before
    assert "at least 6 prompts are needed" in json.dumps(found["checks"])
    assert run.config_file.read_bytes() == config
    with pytest.raises(ConfigError, match=r"--set training\.seed: only settings of evaluation and of the gate"):
        evaluate(run, overrides={"training.seed": 3})
    with pytest.raises(ConfigError, match="checkpoints are measured on the run's own held-out pairs"):
        evaluate(run, checkpoints=True, against="x")


@pytest.mark.parametrize("point", ["evaluate:2", "generate:2"])
def test_an_evaluation_that_was_killed_goes_on_and_ends_with_equal_results(runs, tmp_path, point):
    run = type(runs[0])(shutil.copytree(runs[0].path, tmp_path / "run"))
    whole = run.evaluation
    command = [sys.executable, "-m", "tiebreak", "evaluate", str(run.path), "--quiet", "--json"]
    # Small groups, so that there is something to be killed between.
    alike = os.environ | {"OMP_NUM_THREADS": "1"}  # as the run was made in; another number rounds otherwise
    killed = subprocess.run(command, env=alike | {"TIEBREAK_FAULT": f"kill@{point}"}, check=False)
    assert killed.returncode == -signal.SIGKILL
    kept = [path for path in (run.kept_file, run.answers_file) if path.exists()]
    assert kept
    again = subprocess.run(command, capture_output=True, text=True, check=True, env=alike)
    assert json.loads(again.stdout) == whole
    assert not any(path.exists() for path in kept)


def test_the_command_line_takes_all_of_it(runs):
    run, slow = runs
    shown = CliRunner().invoke(app, ["evaluate", str(run.path), "--checkpoints", "--quiet"])
    assert shown.exit_code == 0, shown.output
    assert "Reward margin" in shown.stdout
    assert "step-" in shown.stdout
    told = CliRunner().invoke(app, ["evaluate", str(run.path), "--against", str(slow.path), "--json", "-q",
                                    "--set", "evaluation.num_samples=3"])  # fmt: skip
    assert json.loads(told.stdout)["num_samples"] == 3
