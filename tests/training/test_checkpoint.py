"""Checkpoints and what they stand on: read back, verified, written once, and removed when nobody names it."""

from __future__ import annotations

import json

import pytest
import torch

from tiebreak import files
from tiebreak.engine.reference.shard import Shard
from tiebreak.engine.reference.stored import OwnValues
from tiebreak.errors import RunError, TrainingError
from tiebreak.fingerprint import fingerprint
from tiebreak.runs import Run
from tiebreak.training.checkpoint import Checkpoints, State


class Said:
    """What a reference has said by now: rows that grow, and can be set aside."""

    def __init__(self):
        self.own_rows = {}

    def say(self, name):
        self.own_rows[name.encode().ljust(32, b".")] = torch.full((3,), float(len(self.own_rows)))

    def take_own(self, rows):
        self.own_rows = dict(rows)

    def flush(self):
        pass


@pytest.fixture
def case(tmp_path):
    run, said = Run(tmp_path), Said()
    return run, said, OwnValues(said, run.values_folder), Checkpoints(run, {}, 2, holds=["reference"])


def _saved(case, *names):
    """Save a checkpoint after each of some rows."""
    _, said, part, checkpoints = case
    for step, name in enumerate(names, start=1):
        said.say(name)
        checkpoints.save(State(step=step), [part])


def _shards(run):
    return sorted(path.name for path in run.values_folder.glob("*.safetensors"))


def test_each_value_is_written_once_and_every_checkpoint_goes_back_to_its_own(case):
    run, said, part, checkpoints = case
    _saved(case, "a", "b", "c")
    assert len(_shards(run)) == 3
    wanted = {key: row.tolist() for key, row in said.own_rows.items()}
    said.take_own({})
    checkpoints.restore(checkpoints.latest(), [part])
    assert {key: row.tolist() for key, row in said.own_rows.items()} == wanted
    checkpoints.restore(run.checkpoints_folder / "step-00000002", [part])
    assert len(said.own_rows) == 2


def test_a_shard_that_reads_back_damaged_stops_the_run_before_an_older_checkpoint_goes(case, monkeypatch):
    run, said, part, checkpoints = case
    _saved(case, "a", "b")
    write = files.write_bytes
    monkeypatch.setattr(
        "tiebreak.engine.reference.shard.write_bytes", lambda path, content: write(path, content[:-1] + b"\x01")
    )
    said.say("c")
    with pytest.raises(TrainingError, match=r"reads back damaged .*the disk cannot be trusted"):
        checkpoints.save(State(step=3), [part])
    assert Checkpoints(run, {}, 2).latest().name == "step-00000002"


@pytest.mark.parametrize("damage", ["missing", "flipped", "truncated", "a folder"])
def test_a_checkpoint_whose_newest_shard_is_damaged_gives_way_to_the_one_before(case, damage):
    run, _, _, checkpoints = case
    _saved(case, "a", "b")
    manifest = json.loads((run.checkpoints_folder / "step-00000002" / "manifest.json").read_text())
    (before,) = json.loads((run.checkpoints_folder / "step-00000001" / "manifest.json").read_text())["beside"]
    (newest,) = (run.path / name for name in manifest["beside"] if name != before)
    content = newest.read_bytes()
    newest.unlink()
    if damage == "flipped":
        newest.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    if damage == "truncated":
        newest.write_bytes(content[:-5])
    if damage == "a folder":
        newest.mkdir()
    assert checkpoints.latest().name == "step-00000001"
    assert (run.quarantine_folder / "step-00000002-1").is_dir()


def test_a_shard_that_all_stand_on_is_not_done_without(case):
    run, *_, checkpoints = case
    _saved(case, "a", "b")
    for name in _shards(run):
        (run.values_folder / name).unlink()
    with pytest.raises(RunError, match="no checkpoint is whole"):
        checkpoints.latest()


def _rewritten(path, **changes):
    """Change a manifest and let its digest fit again."""
    manifest = json.loads((path / "manifest.json").read_text())
    manifest.pop("digest")
    manifest |= changes
    (path / "manifest.json").write_text(json.dumps(manifest | {"digest": fingerprint(manifest)}))


@pytest.mark.parametrize("beside", [None, [], 3, {"state": 1}, {"checkpoints": {}}, {"x": {"bytes": "many"}}])
@pytest.mark.parametrize("field", ["beside", "files"])
def test_a_manifest_of_another_shape_is_a_damaged_checkpoint_and_no_stack_trace(case, field, beside):
    run, *_, checkpoints = case
    _saved(case, "a", "b")
    _rewritten(run.checkpoints_folder / "step-00000002", **{field: beside})
    found = checkpoints.latest()
    assert found.name == "step-00000001" or (field, beside) == ("beside", {})


def test_a_file_that_a_manifest_leaves_out_is_not_loaded_unverified(case):
    run, *_, checkpoints = case
    _saved(case, "a", "b")
    path = run.checkpoints_folder / "step-00000002"
    told = json.loads((path / "manifest.json").read_text())["files"]
    told.pop("reference.safetensors")
    _rewritten(path, files=told)
    assert checkpoints.latest().name == "step-00000001"


def test_what_a_killed_process_left_half_written_is_removed(case):
    run, *_, checkpoints = case
    _saved(case, "a")
    left = run.values_folder / f".half.safetensors.abc{files.PART}"
    left.write_bytes(b"half")
    checkpoints.latest()
    assert not left.exists()


def test_values_that_were_set_aside_go_with_the_checkpoints_that_named_them(case):
    run, said, part, checkpoints = case
    _saved(case, "a", "b")
    said.own_rows = {}
    for step, name in enumerate("cd", start=3):
        said.say(name)
        checkpoints.save(State(step=step), [part])
    assert len(_shards(run)) == 2
    assert all(
        Shard.read((run.values_folder / name).read_bytes(), name.removesuffix(".safetensors")) for name in _shards(run)
    )
