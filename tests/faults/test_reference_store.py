"""Stored reference log-probabilities that are wrong are never used: set aside, told, computed again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import Case, assert_finished_like
from safetensors.torch import load, save


def _flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x40
    path.write_bytes(content)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "flipped": _flipped,
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-9]),
    "zeroed": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "emptied": lambda path: path.write_bytes(b""),
}


@pytest.fixture
def stored(finished, tmp_path) -> Case:
    """Everything is stored of an earlier run, and nothing is left of the run itself."""
    case = finished.copied(tmp_path / "case")
    case.run.rename(case.folder / "earlier")
    assert case.shards
    return case


def test_a_second_run_asks_the_store_and_ends_the_same(stored, undisturbed):
    ended = stored.train()
    assert ended.code == 0, ended.err
    assert "pairs are stored from earlier runs" in ended.err
    assert_finished_like(stored, undisturbed)


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_shards_are_set_aside_and_their_values_computed_again(stored, undisturbed, damage):
    shards = stored.shards
    for path in shards:
        DAMAGE[damage](path)
    ended = stored.train()
    assert ended.code == 0, ended.err
    assert ended.err.count("set aside") == len(shards)
    assert {path.with_name(path.name + ".corrupt").exists() for path in shards} == {True}
    assert_finished_like(stored, undisturbed)


def test_one_damaged_shard_of_several_moves_no_more_than_last_bits(stored, undisturbed):
    _flipped(stored.shards[0])
    ended = stored.train()
    assert ended.code == 0, ended.err
    wanted = [row["loss"] for row in undisturbed["rows"] if "loss" in row]
    assert [loss for _, loss in stored.losses()] == pytest.approx(wanted, abs=1e-5)


def test_whole_shards_with_wrong_values_are_found_by_asking_the_model(stored, undisturbed):
    for path in stored.shards:
        tensors = load(path.read_bytes())
        content = save(tensors | {"logps": tensors["logps"] - 3.0})
        (path.parent / f"{hashlib.sha256(content).hexdigest()}.safetensors").write_bytes(content)
        path.unlink()
    ended = stored.train()
    assert ended.code == 0, ended.err
    assert "differ from the model's" in ended.err
    assert "stale" in ended.err
    assert_finished_like(stored, undisturbed)


def test_what_another_model_said_is_not_found(stored):
    from safetensors.torch import load_file, save_file

    path = stored.folder / "model" / "model.safetensors"
    save_file({name: 1.1 * value for name, value in load_file(path).items()}, path, metadata={"format": "pt"})
    ended = stored.train()
    assert ended.code == 0, ended.err
    assert "stored from earlier runs" not in ended.err
    assert stored.losses()[0][1] == pytest.approx(0.693147, abs=1e-5)


@pytest.mark.parametrize("damage", ["flipped", "truncated"])
def test_damage_between_two_attempts_moves_no_more_than_last_bits(halted, undisturbed, damage):
    for path in halted.shards:
        DAMAGE[damage](path)
    ended = halted.train()
    assert ended.code == 0, ended.err
    wanted = [row["loss"] for row in undisturbed["rows"] if "loss" in row]
    assert [loss for _, loss in halted.losses()] == pytest.approx(wanted, abs=1e-5)


def test_a_store_that_is_a_file_stops_nothing(case, undisturbed):
    (case.folder / "store").write_text("not a folder")
    ended = case.train()
    assert ended.code == 0, ended.err
    assert "reference log-probabilities cannot be written" in ended.err
    assert_finished_like(case, undisturbed)
