"""The run folder: what its files are called, and readable errors where one is broken."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tiebreak.config import dump_config, load_config
from tiebreak.errors import ConfigError, RunError
from tiebreak.files import write_json, write_jsonl, write_text
from tiebreak.runs import Run, open_run


@pytest.fixture
def run(tmp_path) -> Run:
    made = Run(tmp_path / "run")
    (made.path / "policy").mkdir(parents=True)
    write_json(made.path / "run.json", {"status": "done"})
    write_text(made.path / "config.yaml", dump_config(load_config(None, {"loss.beta": 0.3})))
    return made


def test_a_run_gives_what_its_files_hold(run):
    write_json(run.path / "evaluation.json", {"verdict": "inconclusive"})
    write_jsonl(run.path / "metrics.jsonl", [{"step": 0}, {"step": 1}])
    opened = open_run(str(run.path))
    assert opened.manifest == {"status": "done"}
    assert opened.config.loss.beta == 0.3
    assert opened.verdict == "inconclusive"
    assert opened.metrics == [{"step": 0}, {"step": 1}]
    assert opened.samples == []
    assert str(run.path) in repr(opened)


def test_a_manifest_keeps_the_fields_that_do_not_change(tmp_path):
    made = Run(tmp_path)
    made.update_manifest(status="running", schema=1)
    made.update_manifest(status="done")
    assert made.manifest == {"status": "done", "schema": 1}


def test_a_manifest_that_is_written_anew_while_it_is_read_is_whole(tmp_path, monkeypatch):
    """As `watch` reads that of a run at work: it is what it was before or what it is now, and not damaged."""
    made = Run(tmp_path)
    made.update_manifest(status="running", files={})
    read, times = Path.read_bytes, []

    def read_and_written(path: Path) -> bytes:
        content = read(path)
        times.append(path)
        if len(times) == 1:
            made.update_manifest(status="done")
        return content

    monkeypatch.setattr(Path, "read_bytes", read_and_written)
    monkeypatch.setattr(Path, "read_text", lambda path, encoding: path.read_bytes().decode(encoding))
    assert made.manifest["status"] == "running"
    assert made.manifest["status"] == "done"


def test_a_folder_that_is_no_run_is_refused(run, tmp_path):
    with pytest.raises(RunError, match=r"no such run folder; train makes one, at output.dir"):
        open_run(tmp_path / "other")
    with pytest.raises(RunError, match=r"holds no run\.json"):
        open_run(tmp_path)
    (run.path / "policy").rmdir()
    write_json(run.path / "run.json", {"status": "running"})
    with pytest.raises(
        RunError, match=r"the run is 'running' and holds no trained policy; go on with 'tiebreak train .*config.yaml'"
    ):
        open_run(run.path)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b'"done"', b"\xff", b"[" * 100_000], ids=lambda c: c[:9]
)
def test_a_damaged_manifest_is_a_run_error(run, content):
    (run.path / "run.json").write_bytes(content)
    with pytest.raises(RunError, match=r"run\.json: cannot be read"):
        open_run(run.path)


def test_missing_and_damaged_parts_of_a_run_are_named(run):
    with pytest.raises(RunError, match=r"holds no evaluation\.json"):
        _ = run.verdict
    with pytest.raises(RunError, match=r"holds no data\.json"):
        _ = run.data
    write_text(run.path / "config.yaml", "loss: {bta: 1}")
    with pytest.raises(ConfigError, match=r"unknown key 'loss\.bta'"):
        _ = run.config
    assert json.loads((run.path / "run.json").read_text()) == {"status": "done"}
