"""Convert: one form to another, everything counted."""

from __future__ import annotations

import json

import pytest

import tiebreak
from tiebreak.data.formats import Pairing
from tiebreak.data.formats.writing import WRITERS
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
    assert (made.num_records, made.num_dropped, made.num_judged, made.num_written) == (3, 1, 2, 2)
    assert [pair.pair_id for pair in after.pairs] == [pair.pair_id for pair in before.pairs]


def test_what_a_form_has_no_place_for_is_counted(file, tmp_path):
    assert tiebreak.convert(file, tmp_path / "a.jsonl", to="openai").left_out == {"preference": 1}
    assert tiebreak.convert(file, tmp_path / "b.jsonl", to="tiebreak").left_out == {}


def test_what_a_form_cannot_say_is_left_out_and_told(file, tmp_path):
    made = tiebreak.convert(file, tmp_path / "a.jsonl", to="trl_text")
    assert (made.num_judged, made.num_written, made.num_not_expressible) == (2, 1, 1)
    assert made.examples[0].startswith("pairs.jsonl:2: ")
    assert any("cannot express" in line for line in made.lines())


ASK = [{"role": "user", "content": "Rome?"}]
SAY = [{"role": "assistant", "content": "Yes."}]


def with_tools(*tools, **changes):
    return {"prompt": ASK, "chosen": SAY, "rejected": [{"role": "assistant", "content": "No."}]} | {
        "tools": [{"type": "function", "function": one} for one in tools],
        **changes,
    }


def called(**arguments):
    calls = [{"id": "1", "type": "function", "function": {"name": "f", "arguments": arguments}}]
    return {"chosen": [{"role": "assistant", "content": "", "tool_calls": calls}]}


TOOLED = [
    with_tools({"name": "f", "parameters": {"properties": {"city": {"n": 1}}}}, **called(tools=["a"])),
    with_tools({"name": "g", "parameters": {"properties": {"ticker": {"n": 2.5}}}}),
    with_tools({"name": "h", "parameters": {"properties": {}, "maximum": 10**20}}),
    with_tools({"name": "h", "description": None, "parameters": {"n": 1.0}}, {"name": "i"}),
    with_tools(),
]
WITH_TOOLS = [name for name, writer in WRITERS.items() if {"tools", "tool_calls", "call_ids"} <= writer.carries]


@pytest.mark.parametrize("form", WITH_TOOLS)
def test_tools_come_back_from_parquet_to_the_last_digit(tmp_path, form):
    rows = [one | {"prompt": [{"role": "user", "content": f"Rome {n}?"}]} for n, one in enumerate(TOOLED)]
    before = tiebreak.read_pairs(saved(tmp_path / "a.jsonl", rows))
    tiebreak.convert(tmp_path / "a.jsonl", tmp_path / "a.parquet", to=form)
    after = tiebreak.read_pairs(tmp_path / "a.parquet")
    assert [pair.pair_id for pair in after.pairs] == [pair.pair_id for pair in before.pairs]


@pytest.mark.parametrize("form", ["sharegpt", "alpaca", "rejected_response"])
def test_tools_alone_come_back_from_parquet_in_forms_without_call_ids(tmp_path, form):
    before = tiebreak.read_pairs(saved(tmp_path / "a.jsonl", TOOLED[1:]))
    tiebreak.convert(tmp_path / "a.jsonl", tmp_path / "a.parquet", to=form)
    after = tiebreak.read_pairs(tmp_path / "a.parquet")
    assert [pair.pair_id for pair in after.pairs] == [pair.pair_id for pair in before.pairs]


def saved(path, rows):
    path.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    return path


def compared(better, worse, prompt="Which?", **beside):
    return {"prompt": prompt, "chosen": better, "rejected": worse} | beside


def test_the_middle_of_a_ranking_is_not_both_liked_and_disliked(tmp_path):
    rows = [compared("a", "b"), compared("b", "c"), compared("a", "c"), compared("a", "b", "Alone?")]
    made = tiebreak.convert(saved(tmp_path / "a.jsonl", rows), tmp_path / "b.jsonl", to="thumbs")
    assert (made.num_written, made.num_rows, made.num_not_expressible) == (3, 5, 1)
    assert made.examples == ("a.jsonl:2: in the 'thumbs' form one completion would be both liked and disliked",)
    assert made.left_out == {"pairing": 2}
    assert any("2  pairs lose their pairing (who was compared with whom)" in line for line in made.lines())
    after = tiebreak.read_pairs(tmp_path / "b.jsonl", pairing=Pairing("all"))
    assert [(pair.chosen.content, pair.rejected.content) for pair in after.pairs] == [
        ("a", "b"), ("a", "c"), ("a", "b"),
    ]  # fmt: skip
    assert after.dropped == ()


def test_a_completion_is_written_again_only_where_something_else_stands_beside_it(tmp_path):
    rows = [compared("a", "b"), compared("a", "b"), compared("a", "b", split="test"), compared("b", "a", "Other?")]
    made = tiebreak.convert(saved(tmp_path / "a.jsonl", rows), tmp_path / "b.jsonl", to="thumbs")
    assert (made.num_written, made.num_rows, made.left_out) == (4, 6, {"pairing": 3})
    splits = [json.loads(line).get("split") for line in (tmp_path / "b.jsonl").read_text().splitlines()]
    assert splits == [None, None, "test", "test", None, None]


def test_calls_of_the_same_text_are_completions_of_their_own(tmp_path):
    rows = [with_tools(**called(n=1)), with_tools(rejected=called(n=1)["chosen"], **called(n=2))]
    made = tiebreak.convert(saved(tmp_path / "a.jsonl", rows), tmp_path / "b.jsonl", to="thumbs")
    assert (made.num_written, made.num_not_expressible) == (1, 1)
    rows = [with_tools(**called(n=1)), with_tools(**called(n=2))]
    made = tiebreak.convert(saved(tmp_path / "c.jsonl", rows), tmp_path / "d.jsonl", to="thumbs")
    assert (made.num_written, made.num_rows) == (2, 3)


def test_other_forms_keep_who_was_compared_with_whom(tmp_path):
    file = saved(tmp_path / "a.jsonl", [compared("a", "b"), compared("b", "c"), compared("a", "b")])
    for form in set(WRITERS) - {"thumbs"}:
        made = tiebreak.convert(file, tmp_path / f"{form}.jsonl", to=form)
        assert (made.num_written, made.num_rows, made.left_out) == (3, 3, {})


def test_where_no_pair_can_be_written_no_file_is(tmp_path):
    file = saved(tmp_path / "a.jsonl", [with_tools({"name": "f"})] * 2)
    with pytest.raises(DataError) as refusal:
        tiebreak.convert(file, tmp_path / "b.jsonl", to="hh")
    line = str(refusal.value)
    assert line.startswith("a.jsonl:1: the 'hh' form has no place for tools (")
    assert "no pair of 2 can be written as 'hh'" in line
    assert "\n" not in line
    assert list(tmp_path.iterdir()) == [file]


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


TALK = [{"role": "user", "content": "Rome?"}]
ALONE = [
    {"prompt": "Why?", "completion": " Because.\n", "label": True, "weight": 0.0, "dataset": "d"},
    {"prompt": "Why?", "completion": "No.", "label": False},
    {"prompt": TALK, "completion": [{"role": "assistant", "content": "Yes.", "reasoning_content": "Hm."}], "label": 0},
    {"prompt": TALK, "completion": [{"role": "assistant", "content": "Yes."}], "label": True, "tools": [
        {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]},
]  # fmt: skip


@pytest.mark.parametrize("form", ["thumbs", "tiebreak"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_completions_on_their_own_read_back_as_the_same(tmp_path, form, name):
    file = tmp_path / "thumbs.jsonl"
    file.write_text("".join(json.dumps(one) + "\n" for one in ALONE), encoding="utf-8")
    made = tiebreak.convert(tiebreak.DataConfig(train=str(file), pairing="none"), tmp_path / name, to=form)
    assert (made.unit, made.num_judged, made.num_written, made.num_rows) == ("completions", 4, 4, 4)
    assert made.as_dict()["num_completions"] == 4
    before, after = (tiebreak.read_pairs(one, pairing=Pairing("none")) for one in (file, tmp_path / name))
    told = [[(one.example_id, one.weight, one.origin) for one in found.unpaired] for found in (before, after)]
    assert told[0] == told[1]
    assert len(told[0]) == 4


def test_pairs_are_taken_apart_where_that_is_asked_for(file, tmp_path):
    made = tiebreak.convert(tiebreak.DataConfig(train=str(file), pairing="none"), tmp_path / "a.jsonl", to="thumbs")
    assert (made.num_judged, made.num_rows) == (4, 4)
    labels = [json.loads(line)["label"] for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert labels == [True, False, True, False]
    with pytest.raises(DataError, match="--to openai: its rows are pairs"):
        tiebreak.convert(tiebreak.DataConfig(train=str(file), pairing="none"), tmp_path / "b.jsonl", to="openai")
    assert not (tmp_path / "b.jsonl").exists()
