"""From a file to both sides of the split as tokens: every record is accounted for."""

from __future__ import annotations

import json

import pytest

from tiebreak.config import DataConfig
from tiebreak.data.preparation import prepare, read_split, render_side
from tiebreak.data.render import Renderer
from tiebreak.errors import DataError
from tiebreak.records import Message, Pair


def rows(prompts, **more):
    return [{"prompt": p, "chosen": f"yes {i}", "rejected": "no"} | more for i, p in enumerate(prompts)]


def saved(path, made):
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in made), encoding="utf-8")
    return str(path)


@pytest.fixture
def train_file(tmp_path):
    long = rows(["the cat " * 200])
    return saved(tmp_path / "train.jsonl", [*rows(f"the dog {n}" for n in range(60)), "{\n", *long, *long])


def prepared(tokenizer, data: DataConfig):
    return prepare(data, read_split(data), Renderer(tokenizer, (tokenizer.eos_token_id,), data))


def account(report) -> int:
    return (
        report["num_train_pairs"] + report["num_heldout_pairs"] + report["num_dropped"] + report["num_beyond_max_pairs"]
    )


@pytest.mark.parametrize("max_pairs", [None, 10, 30, 61, 1000])
def test_every_record_is_accounted_for(tokenizer, train_file, max_pairs):
    data = DataConfig(train=train_file, heldout_share=0.5, max_length=128, max_pairs=max_pairs, max_dropped_share=0.5)
    found = prepared(tokenizer, data)
    assert found.report["num_records"] == 63 == account(found.report)
    assert sum(found.report["dropped_by_reason"].values()) == found.report["num_dropped"] == len(found.dropped)
    assert found.report["num_beyond_max_pairs"] == max(0, 62 - (max_pairs or 62))


def test_the_report_states_what_the_sides_hold(tokenizer, train_file):
    found = prepared(tokenizer, DataConfig(train=train_file, heldout_share=0.3, max_length=128))
    report = found.report
    assert report["dropped_by_reason"] == {"too_long": 2, "bad_json": 1}
    assert report["num_train_pairs"] == len(found.train.pairs) == len(found.train.tokenized)
    assert report["num_heldout_pairs"] == len(found.heldout.pairs) == len(found.heldout.tokenized)
    tokens = [*found.train.tokenized, *found.heldout.tokenized]
    assert report["chosen_tokens"]["max"] == max(len(pair.chosen_ids) for pair in tokens)
    assert report["prompt_tokens"]["mean"] == pytest.approx(sum(len(pair.prompt_ids) for pair in tokens) / len(tokens))
    assert report["files"][0]["num_records"] == 63
    json.dumps(report, allow_nan=False)


def test_tokens_and_texts_stay_in_the_same_order(tokenizer, train_file):
    found = prepared(tokenizer, DataConfig(train=train_file, heldout_share=0.3, max_length=128))
    for side in (found.train, found.heldout):
        assert [pair.pair_id for pair in side.pairs] == [tokens.pair_id for tokens in side.tokenized]
        assert [pair.prompt_id for pair in side.pairs] == [tokens.prompt_id for tokens in side.tokenized]
        assert side.num_prompts == len(side.pairs)


def test_truncated_pairs_are_counted(tokenizer, train_file):
    data = DataConfig(train=train_file, heldout_share=0.3, max_length=128, truncation="prompt_start")
    report = prepared(tokenizer, data).report
    assert report["num_truncated_pairs"] == 2
    assert report["dropped_by_reason"] == {"bad_json": 1}


def test_training_pairs_on_held_out_prompts_are_dropped(tokenizer, tmp_path):
    train = saved(tmp_path / "train.jsonl", rows([f"the cat {n % 10}" for n in range(20)]))
    heldout = saved(tmp_path / "heldout.jsonl", rows(["the cat 3", "the cat 4", "the dog"]))
    found = prepared(tokenizer, DataConfig(train=train, heldout=heldout))
    assert found.report["dropped_by_reason"] == {"heldout_prompt": 4}
    assert not {p.prompt_id for p in found.train.pairs} & {p.prompt_id for p in found.heldout.pairs}
    assert (len(found.train.pairs), len(found.heldout.pairs)) == (16, 3)
    assert found.report["num_records"] == 23 == account(found.report)
    assert [file["path"] for file in found.report["files"]] == [train, heldout]


def test_the_fingerprint_follows_the_pairs_and_not_the_file(tokenizer, tmp_path):
    made = rows(f"the dog {n}" for n in range(30))
    one = DataConfig(train=saved(tmp_path / "one.jsonl", made), heldout_share=0.3)
    other = DataConfig(train=saved(tmp_path / "other.jsonl", ["\n", *made]), heldout_share=0.3)
    fewer = DataConfig(train=saved(tmp_path / "fewer.jsonl", made[1:]), heldout_share=0.3)
    found = [prepared(tokenizer, data).fingerprint for data in (one, other, fewer)]
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize(
    ("made", "changes", "words"),
    [
        (rows(["the cat"] * 3), {"heldout_share": 0.01}, "no pair is held out to measure on: raise data.heldout_share"),
        (rows(["the cat"] * 3), {"heldout_share": 0.999}, "no pair is left to train on"),
        (rows(["the cat " * 99] * 3), {"max_length": 20}, r"The first dropped: a\.jsonl:1: \d+ tokens, more than"),
        (
            [*rows(["the cat"] * 3), "{\n", "{\n"],
            {},
            "2 of 5 records are unusable, more than data.max_dropped_share 0.1",
        ),
    ],
)
def test_a_side_that_stays_empty_stops_the_run(tokenizer, tmp_path, made, changes, words):
    with pytest.raises(DataError, match=words):
        prepared(tokenizer, DataConfig(train=saved(tmp_path / "a.jsonl", made), **changes))


def test_pairs_given_in_python_are_dropped_with_a_source_too(tokenizer):
    pair = Pair((Message("user", "x" * 99),), Message("assistant", "yes"), Message("assistant", "no"))
    side, dropped = render_side([pair], Renderer(tokenizer, (tokenizer.eos_token_id,), DataConfig(max_length=8)))
    assert not side.pairs
    assert (str(dropped[0].source), dropped[0].reason) == ("(given in Python):0", "too_long")


def test_real_pairs_are_all_accounted_for(stories, shared):
    from transformers import AutoTokenizer

    file = shared / "data" / "prefs" / "ultrafeedback_binarized_1200.jsonl.gz"
    data = DataConfig(train=str(file), max_pairs=60, max_length=512, max_dropped_share=1.0)
    found = prepared(AutoTokenizer.from_pretrained(str(stories)), data)
    assert account(found.report) == 1200
    assert found.report["num_beyond_max_pairs"] == 1193 - 60
    assert found.report["dropped_by_reason"]["too_long"] + len(found.train.pairs) + len(found.heldout.pairs) == 60


def test_pairs_that_do_not_fit_count_towards_the_share_that_stops_a_run(stories, shared):
    from transformers import AutoTokenizer

    file = shared / "data" / "prefs" / "ultrafeedback_binarized_1200.jsonl.gz"
    data = DataConfig(train=str(file), max_pairs=60, max_length=512)
    with pytest.raises(DataError, match=r"max_dropped_share 0\.1; most often too_long"):
        prepared(AutoTokenizer.from_pretrained(str(stories)), data)
