"""Files that call themselves test or dev are never trained on unasked."""

from __future__ import annotations

import json

import pytest

import tiebreak
from tiebreak.config import DataConfig
from tiebreak.data.locations import held_out_by_name, locate
from tiebreak.data.reader import HELDOUT, TRAIN, open_data
from tiebreak.doctor.triage import heed
from tiebreak.errors import DataError
from tiebreak.progress import Silent

NAMES = ["train.jsonl", "a.jsonl", "train-00000-of-00001.jsonl", "contest.jsonl", "latest.jsonl", "train_eval.jsonl",
         "train_test_split.jsonl", "device.jsonl", "attest/a.jsonl"]  # fmt: skip
HELD_OUT = ["test.jsonl", "test-00000-of-00002.jsonl", "test_prefs-00000.jsonl", "Dev.jsonl", "my_eval.jsonl",
            "eval2.jsonl", "validation/a.jsonl", "deep/held_out/b.jsonl", "x-val-00001.jsonl",
            "heldout.jsonl.gz"]  # fmt: skip


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Make files of one pair each below data/."""
    monkeypatch.chdir(tmp_path)

    def make(*names: str) -> None:
        for number, name in enumerate(names):
            path = tmp_path / "data" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"prompt": f"p {number}", "chosen": f"a {number}", "rejected": "b"}) + "\n")

    return make


@pytest.mark.parametrize("spec", ["data", "data/**/*.jsonl*", "./data/"])
def test_files_are_told_apart_by_their_own_names(folder, spec):
    folder(*NAMES, *HELD_OUT)
    found = {str(path.relative_to("data")) for path in held_out_by_name(locate(spec))}
    assert found == set(HELD_OUT)


@pytest.mark.parametrize("spec", ["data/test.jsonl", "data/test", "data/test/*.jsonl", "data/**/test*.jsonl"])
def test_what_is_named_itself_is_meant(folder, spec):
    folder("test.jsonl", "test/test-1.jsonl", "test/test-2.jsonl")
    assert [file.side for file in open_data(DataConfig(train=spec))] == [None] * len(locate(spec))


def test_the_rest_is_trained_on_whole_and_it_is_told(folder, capsys):
    folder("test.jsonl", "a.jsonl", "b.jsonl")
    data = DataConfig(train=("data", "data/a.jsonl"))
    files = open_data(data)
    assert [(file.name, file.side) for file in files] == [
        ("data/a.jsonl", TRAIN), ("data/b.jsonl", TRAIN), ("a.jsonl", TRAIN), ("data/test.jsonl", HELDOUT)
    ]  # fmt: skip
    report = tiebreak.check(data, quiet=True)
    split = report.measurements["split"]
    assert (split["num_train_pairs"], split["num_heldout_pairs"], split["heldout_share"]) == (3, 1, None)
    told = []
    progress = Silent()
    progress.warn = told.append  # type: ignore[method-assign]
    heed(report, data, progress)
    assert "data/test.jsonl: held out by its name, and not trained on" in told


def test_neither_clean_nor_convert_writes_what_is_held_out(folder, tmp_path):
    folder("test.jsonl", "a.jsonl", "b.jsonl")
    made = tiebreak.convert("data", tmp_path / "out.jsonl", to="trl")
    assert (made.num_judged, made.held_out_by_name) == (2, ("data/test.jsonl",))
    assert "  data/test.jsonl: held out by its name, not written" in made.lines()
    cleaned = tiebreak.clean("data", tmp_path / "OUT", quiet=True)
    assert (cleaned.num_kept, cleaned.held_out_by_name) == (2, ["data/test.jsonl"])


def test_two_answers_to_what_is_held_out_are_refused(folder):
    folder("test.jsonl", "a.jsonl")
    with pytest.raises(DataError, match=r"^data/test\.jsonl: is held out by its name, and data\.heldout names data/a"):
        open_data(DataConfig(train="data", heldout="data/a.jsonl"))
