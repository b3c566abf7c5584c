"""Checkpoints that a disk, a copy or a person damaged: verified before use, set aside, the next older one taken."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import Case, assert_finished_like, assert_resumes

from tiebreak.errors import EXIT_USAGE

FILES = [
    "policy.safetensors",
    "optimizer.safetensors",
    "random.safetensors",
    "reference.safetensors",
    "state.json",
    "manifest.json",
    "stopping.safetensors",
]


def _flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) * 2 // 3] ^= 0x10
    path.write_bytes(content)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "zeroed": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "flipped": _flipped,
    "missing": Path.unlink,
}


def _set_aside(case: Case) -> list[str]:
    folder = case.run / "quarantine"
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


# A bit of the manifest may lie where nothing is decided; test_a_manifest_… below covers what it says.
@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_costs_its_checkpoint_and_not_the_run(halted, undisturbed, name, damage):
    newest = halted.checkpoints[-1]
    DAMAGE[damage](newest / name)
    again = assert_resumes(halted, undisturbed)
    told = [line for line in again.err.splitlines() if newest.name in line and "quarantine" in line]
    assert len(told) == 1, again.err
    assert name in told[0]
    assert "resuming after step 4 of 12" in again.err
    assert any(found.startswith(newest.name) for found in _set_aside(halted))


MANIFESTS = {
    "of a future schema": lambda told: told | {"schema": 99},
    "without a schema": lambda told: {key: value for key, value in told.items() if key != "schema"},
    "without files": lambda told: told | {"files": {}},
    "with a list of files": lambda told: told | {"files": list(told["files"])},
    "with null for files": lambda told: told | {"files": None},
    "that leaves a file out": lambda told: told | {"files": {k: v for k, v in told["files"].items() if "opt" not in k}},
    "that is a list": lambda told: [told],
    "that is null": lambda told: None,
    "with another step": lambda told: told | {"step": 5},
}


@pytest.mark.parametrize("change", MANIFESTS.values(), ids=MANIFESTS)
def test_a_manifest_that_cannot_be_trusted_costs_its_checkpoint(halted, undisturbed, change):
    path = halted.checkpoints[-1] / "manifest.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    assert_resumes(halted, undisturbed)
    assert len(_set_aside(halted)) == 1


@pytest.mark.parametrize("content", [b"\xff\xfe garbage", b"[" * 100_000, b'{"schema": NaN}'], ids=range(3))
def test_a_garbled_manifest_costs_its_checkpoint(halted, undisturbed, content):
    (halted.checkpoints[-1] / "manifest.json").write_bytes(content)
    again = assert_resumes(halted, undisturbed)
    assert "manifest.json" in again.err
    assert "Traceback" not in again.err
    assert len(_set_aside(halted)) == 1


def test_files_of_two_checkpoints_are_not_mixed(halted, undisturbed):
    older, newer = halted.checkpoints
    (newer / "optimizer.safetensors").write_bytes((older / "optimizer.safetensors").read_bytes())
    assert_resumes(halted, undisturbed)
    assert len(_set_aside(halted)) == 1


def test_a_checkpoint_of_another_run_is_not_taken(halted, new_case, tmp_path, undisturbed):
    other = new_case(tmp_path / "other").configure(training__seed=7)
    assert other.train(fault="kill@step:end:9").code == -9
    newest = other.checkpoints[-1]
    assert newest.name == "step-00000008"
    newest.rename(halted.run / "checkpoints" / newest.name)
    assert_resumes(halted, undisturbed)
    assert len(_set_aside(halted)) == 1


def test_where_all_are_bad_the_run_does_not_start_afresh_silently(halted, undisturbed):
    before = halted.rows()
    for path in halted.checkpoints:
        _flipped(path / "policy.safetensors")
    for _ in range(2):  # nor does it the second time, when they are no longer where they were
        ended = halted.train()
        assert ended.code == EXIT_USAGE, ended.err
        assert "quarantine" in ended.error
        assert "--resume never" in ended.error
        assert len(_set_aside(halted)) == 2
        assert halted.checkpoints == []
        assert halted.rows() == before
        assert not (halted.run / "policy").exists()
    afresh = halted.train("--resume", "never")
    assert afresh.code == 0, afresh.err
    assert_finished_like(halted, undisturbed)
    assert len(list((halted.folder / "run.unfinished-1" / "quarantine").iterdir())) == 2


def test_no_pickle_is_written(halted):
    names = {path.suffix for path in halted.run.rglob("*") if path.is_file() and path.name != ".lock"}
    assert names <= {".safetensors", ".json", ".jsonl", ".yaml"}


def test_a_manifest_says_where_training_stood_and_of_what(halted):
    manifest = json.loads((halted.checkpoints[-1] / "manifest.json").read_text())
    assert (manifest["step"], manifest["epoch"], manifest["pairs_seen"]) == (6, 1, 23)
    assert set(manifest["files"]) == set(FILES) - {"manifest.json"}
    for name in ("schema", "order_digest", "identity", "versions", "dtype", "world_size"):
        assert manifest[name], name
    assert {"config", "data", "template", "tokenizer", "model", "reference"} <= set(manifest["identity"])


def test_a_run_json_that_is_garbled_is_an_error_in_one_line(halted):
    (halted.run / "run.json").write_bytes(b"\x00" * 50)
    ended = halted.train()
    assert ended.code == EXIT_USAGE, ended.err
    assert "run.json" in ended.error
    assert len(halted.checkpoints) == 2
