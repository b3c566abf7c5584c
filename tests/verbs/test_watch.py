"""A run seen from outside: before its first row, with half a line, at work, dead, at its end."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys

import pytest
from typer.testing import CliRunner

import tiebreak
from tiebreak import folders, runs
from tiebreak.cli.app import app
from tiebreak.errors import RunError
from tiebreak.files import write_json
from tiebreak.reporting.following import line, print_followed
from tiebreak.verbs.watch import follow
from written_runs import written_run

STEP = {"step": 7, "loss": 0.6, "rewards/accuracies": 0.75, "rewards/margins": 0.1, "step_seconds": 2.0}


@pytest.fixture
def running(tmp_path):
    """A run in its eighth step, as it is on the disk; whoever holds its lock is up to the test."""
    run = written_run(tmp_path, **{"training.pairs_per_step": 4})
    for file in (run.evaluation_file, run.measures_file):
        file.unlink()
    write_json(run.data_file, run.data | {"num_train_pairs": 80})
    told = {"status": runs.RUNNING, "num_steps": None, "num_steps_done": None}
    write_json(run.manifest_file, run.manifest | told | {"warnings": [{"attempt": 1, "text": "a \x1b[31mword"}]})
    rows = [{"step": 0, "heldout/rewards/accuracies": 0.5, "heldout/loss": 0.69}, STEP]
    rows += [{"step": 7, "heldout/rewards/accuracies": 0.625, "heldout/loss": 0.66}, {"step": 7, "sampled/kl": 3.5}]
    run.metrics_file.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 8, "lo')
    return run


def _dead(run) -> None:
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    (run.path / ".lock").write_text(f"{socket.gethostname()} pid {done.pid}")


def test_at_work_it_says_how_far_it_is_and_half_a_line_is_none(running):
    with folders.locked(running.path):
        found = tiebreak.watch(running)
    assert (found.state, found.step, found.total, found.seconds_left) == ("running", 7, 20, 26.0)
    assert found.curves["heldout/rewards/accuracies"] == [(0, 0.5), (7, 0.625)]
    assert found.last["loss"] == 0.6
    assert not found.is_over
    assert found.exit_code == 0
    assert str(os.getpid()) in found.holder


def test_before_its_first_row_and_before_its_manifest(running):
    running.metrics_file.unlink()
    with folders.locked(running.path):
        found = tiebreak.watch(running)
        assert (found.state, found.step, dict(found.curves)) == ("running", 0, {})
        running.manifest_file.unlink()
        assert tiebreak.watch(running).state == "getting ready"
    with pytest.raises(RunError, match="nobody is at work in it"):
        tiebreak.watch(running)


def test_one_that_was_killed_is_dead_and_says_what_goes_on(running):
    _dead(running)
    found = tiebreak.watch(running)
    assert (found.state, found.exit_code) == ("dead", 1)
    assert found.next == f"tiebreak train {running.config_file}"
    running.config_file.unlink()
    assert tiebreak.watch(running).next == "the same command again"


def test_of_another_machine_it_is_taken_for_alive(running):
    (running.path / ".lock").write_text("elsewhere pid 1")
    assert tiebreak.watch(running).state == "running"


def test_trained_and_not_measured_yet_is_measuring(running):
    running.policy_folder.mkdir()
    with folders.locked(running.path):
        assert tiebreak.watch(running).state == "measuring"


@pytest.mark.parametrize(("status", "code"), [(runs.FAILED, 1), (runs.INTERRUPTED, 75)])
def test_an_end_without_a_verdict_has_its_reason_and_its_code(running, status, code):
    write_json(running.manifest_file, running.manifest | {"status": status, "error": "a reason"})
    found = tiebreak.watch(running)
    assert (found.state, found.error, found.exit_code) == (status, "a reason", code)
    assert found.next


def test_a_finished_run_has_its_verdict_and_its_code(tmp_path):
    run = written_run(tmp_path)
    found = tiebreak.watch(run)
    assert (found.state, found.verdict) == ("done", run.verdict)
    assert found.exit_code == {"pass": 0, "fail": 3, "inconclusive": 4}[run.verdict]


def test_following_ends_with_the_run_and_waits_for_one_that_comes_later(running, tmp_path):
    later = tmp_path / "later"
    states = follow(later, wait=True, every=0.01)
    assert next(states) is None
    with folders.locked(later):
        assert next(states).state == "getting ready"
        shutil.copytree(running.path, later, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".lock"))
        assert next(states).state == "running"
        write_json(later / "run.json", running.manifest | {"status": runs.INTERRUPTED})
    assert next(states).state == "interrupted"
    assert list(states) == []


def test_a_folder_that_goes_away_is_said(running):
    states = follow(running.path, every=0.01)
    with folders.locked(running.path):
        next(states)
    shutil.rmtree(running.path)
    with pytest.raises(RunError, match="deleted or moved"):
        next(states)
    with pytest.raises(RunError, match="--wait waits for it"):
        next(follow(running.path))


def test_on_a_narrow_screen_the_state_and_what_goes_on_come_before_warnings(running, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "30")
    told = [
        {"attempt": 1, "text": f"warning {number} of many words that wrap on a narrow screen"} for number in range(4)
    ]
    write_json(running.manifest_file, running.manifest | {"warnings": told})
    _dead(running)
    found = tiebreak.watch(running).as_dict() | {"run": "runs/my"}
    print_followed(found)
    shown = " ".join(capsys.readouterr().out.split())
    places = [
        shown.index(words) for words in ("dead", "go on with: tiebreak train", "step 7 of 20", "warning: warning 1")
    ]
    assert places == sorted(places)


@pytest.mark.parametrize("columns", [60, 80])
def test_the_screen_fits_and_obeys_nothing_of_the_files(running, monkeypatch, capsys, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    with folders.locked(running.path):
        found = tiebreak.watch(running).as_dict()
    print_followed(found)
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= columns
    assert "\x1b[31m" not in shown + line(found)
    for words in ("step 7 of 20", "held-out accuracy", "50.0% → 62.5%", "KL of own answers", "about 26 s of training"):
        assert words in shown
    assert "held-out accuracy 62.5% (step 7)" in line(found)


def test_to_be_told_now_and_to_wait_are_not_asked_for_together(tmp_path):
    error = CliRunner().invoke(app, ["watch", str(tmp_path / "none"), "--once", "--wait"]).exception
    assert str(error).startswith("watch: --once says where a run stands now, and --wait waits for one")
