"""What a run writes becomes events and checkpoints, each once, also where the file is cut and grows again."""

from __future__ import annotations

import csv
import json
import random

import pytest

from tiebreak.service import jobs, telling
from tiebreak.service.store import open_store

NUM_STEPS = 12


def _row(step: int, seconds: float) -> bytes:
    """A row as training writes it: what it learned is the same each time, what the clock says is not."""
    told = {
        "step": step,
        "loss": (70 - step) / 100,
        "rewards/accuracies": 0.5,
        "rewards/margins": step / 10,
        "logps/chosen": -4.0,
        "learning_rate": 1e-5,
        "unique_tokens_per_second": 100 / seconds,
        "step_seconds": seconds,
    }
    return json.dumps(told).encode() + b"\n"


def _measured(step: int) -> bytes:
    told = {"step": step, "heldout/loss": 0.6, "heldout/rewards/accuracies": 0.75, "heldout/rewards/margins": 0.1}
    return json.dumps(told).encode() + b"\n"


def _rows(last: int, draw: random.Random) -> list[bytes]:
    rows = [_measured(0)]
    for step in range(1, last + 1):
        rows += [_row(step, draw.uniform(1e-3, 1)), *([_measured(step)] if step % 4 == 0 else [])]
    return rows


@pytest.fixture
def made(tmp_path):
    store = open_store(tmp_path / "service")
    resolved = {"hyperparameters": {"n_epochs": 3, "batch_size": 4}}
    job = jobs.create(store, "key", {"model": "tiny", "training_file": "file-one"}, resolved, "digest")
    jobs.move(store, job.id, (jobs.VALIDATING,), jobs.RUNNING)
    run = store.job_folder(job.id) / "run"
    run.mkdir(parents=True)
    (run / "data.json").write_text(json.dumps({"num_train_pairs": 15}))
    return store, job.id, run / "metrics.jsonl"


def _follow(store, name) -> None:
    telling.follow(store, jobs.find(store, name))


def _told(store, name) -> list[str]:
    found = store.rows("select once from events where job = ? and type = 'metrics' order by seq", name)
    return [row["once"] for row in found]


WANTED = ["measured-0"] + [
    name for step in range(1, 13) for name in (f"step-{step}", *([f"measured-{step}"] if step % 4 == 0 else []))
]


def test_each_row_is_told_once_in_their_order_and_half_a_line_waits(made):
    store, name, file = made
    content = b"".join(_rows(NUM_STEPS, random.Random(0)))
    for end in range(0, len(content) + 97, 97):
        file.write_bytes(content[:end])
        _follow(store, name)
    assert _told(store, name) == WANTED


@pytest.mark.parametrize("seed", range(20))
def test_a_file_that_was_cut_and_grew_meanwhile_loses_and_doubles_nothing(made, seed):
    store, name, file = made
    draw = random.Random(seed)
    written = b""
    rows = _rows(NUM_STEPS, draw)
    at = 0
    while at < len(rows):
        if at and draw.random() < 0.3:  # as after a crash: back to a checkpoint, and the clock says other numbers
            at = draw.randrange(at)
            written = b"".join(written.splitlines(keepends=True)[:at])
            rows = rows[:at] + _rows(NUM_STEPS, draw)[at:]
        written += rows[at]
        at += 1
        file.write_bytes(written + draw.choice([b"", b'{"step": 99, "lo']))
        if draw.random() < 0.5:
            _follow(store, name)
    file.write_bytes(written)
    _follow(store, name)
    assert _told(store, name) == WANTED


def test_a_step_says_its_numbers_and_how_long_the_rest_takes(made):
    store, name, file = made
    file.write_bytes(_measured(0) + _row(1, 2.0) + _row(2, 4.0))
    _follow(store, name)
    step = store.row("select * from events where once = 'step-2'")
    assert step["message"] == "Step 2/12: training loss=0.68"
    assert json.loads(step["data"]) == {
        "step": 2, "total_steps": 12, "train_loss": 0.68, "train_accuracy": 0.5, "train_margin": 0.2,
        "learning_rate": 1e-5, "seconds_left": 40.0,
    }  # fmt: skip
    job = jobs.find(store, name)
    assert job.estimated - jobs.now() in (30, 31)


def test_checkpoints_are_steps_that_were_measured(made):
    store, name, file = made
    for last in (5, 12):
        file.write_bytes(b"".join(_rows(last, random.Random(0))))
        _follow(store, name)
    found = store.rows("select * from checkpoints order by seq")
    assert [row["step"] for row in found] == [4, 8, 12]
    four = json.loads(found[0]["metrics"])
    assert (four["step"], four["train_loss"], four["valid_loss"], four["valid_accuracy"]) == (4, 0.66, 0.6, 0.75)


def test_nothing_is_told_halfway(made, monkeypatch):
    # A server that dies in the transaction has read nothing.
    store, name, file = made
    file.write_bytes(b"".join(_rows(3, random.Random(0))))
    with monkeypatch.context() as patch:
        patch.setattr(telling.jobs, "amend", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            _follow(store, name)
    assert _told(store, name) == []
    _follow(store, name)
    assert _told(store, name) == WANTED[:4]


def test_no_file_and_foreign_lines_tell_nothing(made):
    store, name, file = made
    _follow(store, name)
    file.write_bytes(b'[]\nnull\n{"step": "1", "loss": 1}\n{"step": -1, "loss": 1}\n\xff\xfe\n' + _row(1, 1.0))
    _follow(store, name)
    assert _told(store, name) == ["step-1"]


def test_the_table_holds_numbers_alone_and_tokens_are_counted_once_a_step(made):
    _, _, file = made
    file.write_bytes(b"".join(_rows(5, random.Random(3))))
    table = list(csv.DictReader(telling.as_csv(telling.steps_of(file.parent)).splitlines()))
    assert [row["step"] for row in table] == ["0", "1", "2", "3", "4", "5"]
    assert (table[4]["train_loss"], table[4]["valid_loss"], table[3]["valid_loss"]) == ("0.66", "0.6", "")
    assert all(value == "" or float(value) == float(value) for row in table for value in row.values())
    assert telling.trained_tokens(file.parent) == 500
