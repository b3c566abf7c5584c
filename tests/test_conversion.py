"""Convert: one form to another, everything counted."""

from __future__ import annotations

import json

import pytest

import tiebreak
from tiebreak.errors import DataError

ROWS = [
    {"prompt": "Why?", "chosen": "Because.", "rejected": "No.", "score_chosen": 3.0, "score_rejected": 1.0},
    {
        "prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "How?"}],
        "chosen": [{"role": "assistant", "content": "So."}],
        "rejected": [{"role": "assistant", "content": "Not so."}],
    },
    {"prompt": "Empty?", "chosen": "", "rejected": "No."},
]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in ROWS), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.json", "a.parquet"])
@pytest.mark.parametrize("form", ["openai", "tiebreak", "trl", "sharegpt", "alpaca", "axolotl"])
def test_pairs_are_the_same_after_any_form_in_any_kind_of_file(file, tmp_path, form, name):
    made = tiebreak.convert(file, tmp_path / name, to=form)
    before, after = tiebreak.read_pairs(file), tiebreak.read_pairs(tmp_path / name)
    assert (made.num_records, made.num_dropped, made.num_pairs, made.num_written) == (3, 1, 2, 2)
    assert [pair.pair_id for pair in after.pairs] == [pair.pair_id for pair in before.pairs]


def test_what_a_form_has_no_place_for_is_counted(file, tmp_path):
    assert tiebreak.convert(file, tmp_path / "a.jsonl", to="openai").left_out == {"preference": 1}
    assert tiebreak.convert(file, tmp_path / "b.jsonl", to="tiebreak").left_out == {}


def test_what_a_form_cannot_say_is_left_out_and_told(file, tmp_path):
    made = tiebreak.convert(file, tmp_path / "a.jsonl", to="trl_text")
    assert (made.num_pairs, made.num_written, made.num_not_expressible) == (2, 1, 1)
    assert made.examples[0].startswith("pairs.jsonl:2: ")
    assert any("cannot express" in line for line in made.lines())


def test_unpaired_completions_take_two_rows(file, tmp_path):
    made = tiebreak.convert(file, tmp_path / "a.jsonl", to="thumbs")
    assert (made.num_written, made.num_rows) == (2, 4)
    assert len(tiebreak.read_pairs(tmp_path / "a.jsonl").pairs) == 2


@pytest.mark.parametrize(("form", "words"), [("opneai", "Did you mean 'openai'"), ("votes", "no form that can be")])
def test_a_form_that_cannot_be_written_is_refused(file, tmp_path, form, words):
    with pytest.raises(DataError, match=words):
        tiebreak.convert(file, tmp_path / "a.jsonl", to=form)
    assert list(tmp_path.iterdir()) == [file]


def test_a_file_without_pairs_writes_nothing(tmp_path):
    (tmp_path / "bad.jsonl").write_text("{\n")
    with pytest.raises(DataError, match="no record of the file is usable"):
        tiebreak.convert(tmp_path / "bad.jsonl", tmp_path / "out.jsonl", to="trl")
    assert not (tmp_path / "out.jsonl").exists()
