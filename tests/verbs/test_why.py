"""What `why` says of runs that are done, at work, cut off, dead, damaged, of another version, or no runs at all."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

import tiebreak
from tiebreak import folders
from tiebreak.cli.app import app
from tiebreak.errors import RunError, TiebreakError
from tiebreak.fingerprint import fingerprint
from tiebreak.progress import Silent
from tiebreak.runs import Run
from tiebreak.verbs import train
from tiny import drawn_pairs, settings, unsealed


@pytest.fixture(scope="module")
def config(tiny_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("why")
    return settings(
        tiny_model,
        data__train=drawn_pairs(folder),
        data__heldout_share=0.3,
        signals__looks=1,
        signals__prompts=2,
        signals__max_new_tokens=4,
        evaluation__num_samples=2,
        evaluation__max_new_tokens=4,
        evaluation__probes=1,
        output__dir=str(folder / "run"),
        output__trackers=[],
    )


@pytest.fixture(scope="module")
def finished(config) -> Run:
    return train.train(config)


@pytest.fixture
def run(finished, tmp_path) -> Run:
    return Run(shutil.copytree(finished.path, tmp_path / "run"))


def _command(*words):
    return CliRunner().invoke(app, [*map(str, words)])


def test_a_finished_run_keeps_what_why_says(finished):
    kept = json.loads(finished.diagnoses_file.read_text())
    assert kept == {"schema": 1, "diagnoses": [one.as_dict() for one in tiebreak.why(finished).diagnoses]}
    finished.verify()


def test_the_exit_code_is_0_only_where_nothing_is_wrong(run):
    found = tiebreak.why(run.path)
    assert found.unknown == ()
    done = _command("why", run.path, "--json")
    assert done.exit_code == (3 if found.diagnoses else 0)
    assert json.loads(done.output)["diagnoses"] == [one.as_dict() for one in found.diagnoses]
    run.update_manifest(status="interrupted", error="stopped by SIGTERM")
    done = _command("why", run.path)
    assert done.exit_code == 3
    assert "stopped by SIGTERM" in done.output
    assert "→ the same command goes on" in done.output


def test_a_run_at_work_is_told_from_a_dead_one(run):
    run.update_manifest(status="running", error=None)
    for file in (run.measures_file, run.evaluation_file, run.evidence_file):
        file.unlink()
    unsealed(run)
    with folders.locked(run.path):
        before = (run.path / ".lock").read_bytes()
        at_work = tiebreak.why(run)
        assert (run.path / ".lock").read_bytes() == before
    assert "cut_short" not in [one.cause for one in at_work.diagnoses]
    assert at_work.not_yet
    assert at_work.unknown == ()
    assert "cut_short" in [one.cause for one in tiebreak.why(run).diagnoses]


def test_why_writes_nothing(run):
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    tiebreak.why(run)
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    "name", ["measures.jsonl", "metrics.jsonl", "audit.json", "heldout_pairs.jsonl", "config.yaml"]
)
@pytest.mark.parametrize("damage", ["garbled", "gone", "of other shape"])
def test_a_part_that_cannot_be_read_is_named_and_the_others_are_judged(run, name, damage):
    (run.path / name).write_text({"garbled": "{", "gone": "", "of other shape": "[1]\n"}[damage])
    if damage == "gone":
        (run.path / name).unlink()
    found = tiebreak.why(run)
    assert any(name in told for told in found.unknown), found.unknown
    assert all("\n" not in told for told in found.unknown)
    assert not found.is_well
    assert _command("why", run.path).exit_code == (3 if found.diagnoses else 4)


@pytest.mark.parametrize("text", ["{}", "[]", "{", '{"findings": 3}', '{"key": "kl"}'])
@pytest.mark.parametrize(
    "name", ["measures.jsonl", "metrics.jsonl", "audit.json", "heldout_pairs.jsonl", "config.yaml", "run.json"]
)
def test_whatever_a_file_of_a_run_without_seals_holds_is_no_trace(run, name, text):
    unsealed(run)
    (run.path / name).write_text(text)
    found = _command("why", run.path, "--json")
    assert found.exit_code in (0, 2, 3, 4), found.output
    assert not found.exception or isinstance(found.exception, SystemExit | TiebreakError)


def test_a_run_of_an_older_version_says_what_cannot_be_known(run):
    unsealed(run)
    run.config_file.write_text("a_setting_of_before: 1\n")
    run.measures_file.unlink()
    found = tiebreak.why(run)
    assert [told.partition(":")[0] for told in found.unknown] == ["its settings", "what it measured at the end"]


def _lines(file, change):
    rows = change([json.loads(line) for line in file.read_text().splitlines()])
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _halved(run):
    lines = run.config_file.read_text().splitlines(keepends=True)
    at = next(at for at, line in enumerate(lines) if at > len(lines) / 2 and not line.startswith(" "))
    run.config_file.write_text("".join(lines[:at]))


WITHOUT = {
    "settings of which half is gone": ("its settings: config.yaml is not what the run was made with", _halved),
    "a form of later": ("its form: run.json is of schema 99", lambda run: run.update_manifest(schema=99)),
    "a form of nobody": ("its form: run.json is of schema 0", lambda run: run.update_manifest(schema=0)),
    "no evidence": ("its evidence: the run holds 0 of", lambda run: run.evidence_file.write_text("")),
    "no pairs": ("its held-out pairs: the run holds 0 of", lambda run: run.heldout_pairs_file.write_text("")),
    "fewer pairs": (
        "its held-out pairs: the run holds 1 of", lambda run: _lines(run.heldout_pairs_file, lambda rows: rows[:1]),
    ),
    "fewer measures": (
        "what it measured at the end: the run holds nothing of margin",
        lambda run: _lines(run.measures_file, lambda rows: rows[:1]),
    ),
    "fewer steps": (
        "its steps and probes: the run holds steps up to 1, and took",
        lambda run: _lines(run.metrics_file, lambda rows: [row for row in rows if row["step"] < 2]),
    ),
    "steps without a number": (
        "its steps and probes: metrics.jsonl: row 1 has no number as its 'step'",
        lambda run: _lines(run.metrics_file, lambda rows: [{**row, "step": None} for row in rows]),
    ),
    "steps that are words": (
        "its steps and probes: metrics.jsonl: row 1 has no number as its 'step'",
        lambda run: _lines(run.metrics_file, lambda rows: [{**row, "step": str(row["step"])} for row in rows]),
    ),
    "a measure that is a word": (
        "its steps and probes: metrics.jsonl: row 1 has no number as its 'heldout/rewards/margins'",
        lambda run: _lines(run.metrics_file, lambda rows: [{**row, "heldout/rewards/margins": "1"} for row in rows]),
    ),
    "lengths that are no numbers": (
        "its evidence: evidence.jsonl: has no number as a 'chosen_num_tokens'",
        lambda run: _lines(run.evidence_file, lambda rows: [{**row, "chosen_num_tokens": math.nan} for row in rows]),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WITHOUT)
def test_what_a_run_without_seals_lacks_by_its_own_counts_is_not_called_well(run, name):
    unsealed(run)
    assert tiebreak.why(run).unknown == ()
    says, damage = WITHOUT[name]
    damage(run)
    [told] = tiebreak.why(run).unknown
    assert told.startswith(says)
    assert _command("why", run.path).exit_code in (3, 4)


def test_settings_of_an_older_version_are_held_against_its_own_file(run):
    unsealed(run)
    tree = yaml.safe_load(run.config_file.read_text())
    del tree["training"]["keep_checkpoints"]
    run.config_file.write_text(yaml.safe_dump(tree))
    run.update_manifest(config_fingerprint=fingerprint(tree), schema=1)
    assert tiebreak.why(run).unknown == ()


def test_what_is_no_run_is_one_line(tmp_path):
    for place, says in ((tmp_path / "none", "no such run folder"), (tmp_path, "is no run")):
        with pytest.raises(RunError, match=says):
            tiebreak.why(place)


def test_a_cause_is_said_once_while_a_run_is_at_work(config, tmp_path):
    heard = []

    class Listening(Silent):
        def warn(self, text):
            heard.append(text)

    (tmp_path / "pairs.jsonl").write_text(3 * Path(config.data.train).read_text())
    data = config.data.model_copy(update={"train": str(tmp_path / "pairs.jsonl")})
    output = config.output.model_copy(update={"dir": str(tmp_path / "run")})
    made = train.train(config.model_copy(update={"data": data, "output": output}), Listening())
    assert len([text for text in heard if text.startswith("Duplicated data: 80 pairs (67%)")]) == 1
    assert any("Duplicated data" in one["text"] for one in made.manifest["warnings"])
    assert "duplicated_data" in made.diagnoses_file.read_text()
