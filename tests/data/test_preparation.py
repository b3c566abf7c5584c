"""From a file to both sides of the split as tokens: every record is accounted for."""

from __future__ import annotations

import copy
import json
from collections import Counter

import pytest

from tiebreak.config import DataConfig
from tiebreak.data.preparation import prepare, render_side
from tiebreak.data.render import Renderer
from tiebreak.data.whole import read_pairs
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
    return prepare(data, Renderer(tokenizer, (tokenizer.eos_token_id,), data))


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
    # 60 usable pairs, a broken record, then two pairs that are too long to render.
    num_records_read = {10: 10, 30: 30, 61: 62}.get(max_pairs, 63)
    assert found.report["num_beyond_max_pairs"] == 63 - num_records_read


def test_what_is_set_aside_is_held_out_and_not_shown_and_changes_nothing_of_training(tokenizer, train_file):
    data = DataConfig(train=train_file, heldout_share=0.5, max_length=128)
    whole, found = (prepared(tokenizer, data.model_copy(update={"set_aside": share})) for share in (0.0, 0.4))
    assert found.train.digest() == whole.train.digest()
    shown, aside = ([pair.pair_id for pair in side.pairs] for side in (found.heldout, found.aside))
    assert shown
    assert aside
    assert sorted(shown + aside) == sorted(pair.pair_id for pair in whole.heldout.pairs)
    assert [one.example_id for one in found.heldout.tokenized] == shown
    assert found.report["num_set_aside_pairs"] == len(aside)
    assert account(found.report) + len(aside) == account(whole.report)
    assert found.fingerprint != whole.fingerprint
    assert not whole.aside.pairs


def test_the_report_states_what_the_sides_hold(tokenizer, train_file):
    found = prepared(tokenizer, DataConfig(train=train_file, heldout_share=0.3, max_length=128))
    report = found.report
    assert report["dropped_by_reason"] == {"too_long": 2, "bad_json": 1}
    assert report["num_train_pairs"] == len(found.train)
    assert report["num_heldout_pairs"] == len(found.heldout.pairs) == len(found.heldout.tokenized)
    tokens = [*found.train, *found.heldout.tokenized]
    assert report["chosen_tokens"]["max"] == max(len(pair.chosen_ids) for pair in tokens)
    assert report["prompt_tokens"]["mean"] == pytest.approx(sum(len(pair.prompt_ids) for pair in tokens) / len(tokens))
    assert report["files"][0]["num_records"] == 63
    json.dumps(report, allow_nan=False)


def test_tokens_and_texts_stay_in_the_same_order(tokenizer, train_file):
    side = prepared(tokenizer, DataConfig(train=train_file, heldout_share=0.3, max_length=128)).heldout
    assert [pair.pair_id for pair in side.pairs] == [tokens.example_id for tokens in side.tokenized]
    assert [pair.prompt_id for pair in side.pairs] == [tokens.prompt_id for tokens in side.tokenized]
    assert side.num_prompts == len(side.pairs)


def test_truncated_pairs_are_counted(tokenizer, train_file):
    data = DataConfig(train=train_file, heldout_share=0.3, max_length=128, truncation="prompt_start")
    report = prepared(tokenizer, data).report
    assert report["num_truncated_pairs"] == 2
    assert report["dropped_by_reason"] == {"bad_json": 1}


@pytest.mark.parametrize("told_apart_by_nobody", ["{} ", "\n{}", "\u200b{}", "{}\ufeff"])
def test_a_held_out_prompt_that_looks_the_same_is_the_same(tokenizer, tmp_path, told_apart_by_nobody):
    train = saved(tmp_path / "train.jsonl", rows(["the cat", "the dog", "the bird"]))
    heldout = saved(tmp_path / "heldout.jsonl", rows([told_apart_by_nobody.format("the cat"), "the fish"]))
    found = prepared(tokenizer, DataConfig(train=train, heldout=heldout, max_dropped_share=0.9))
    assert found.report["dropped_by_reason"] == {"heldout_prompt": 1}


def test_training_pairs_on_held_out_prompts_are_dropped(tokenizer, tmp_path):
    train = saved(tmp_path / "train.jsonl", rows([f"the cat {n % 10}" for n in range(20)]))
    heldout = saved(tmp_path / "heldout.jsonl", rows(["the cat 3", "the cat 4", "the dog"]))
    found = prepared(tokenizer, DataConfig(train=train, heldout=heldout))
    assert found.report["dropped_by_reason"] == {"heldout_prompt": 4}
    assert not {p.prompt_id for p in found.train} & {p.prompt_id for p in found.heldout.pairs}
    assert (len(found.train), len(found.heldout.pairs)) == (16, 3)
    assert found.report["num_records"] == 23 == account(found.report)
    assert [file["path"] for file in found.report["files"]] == [train, heldout]


def test_training_pairs_on_prompts_of_a_file_are_dropped_whatever_they_were_answered(tokenizer, tmp_path):
    ours, theirs = rows(["the mat"], group="g"), rows(["the park"], group="h")
    train = saved(tmp_path / "train.jsonl", [*rows(["the cat", "the dog", "the bird"]), *ours, *theirs])
    asks = [{"prompt": "the cat"}, {"prompt": "the dog "}, {"prompt": "a", "group": "g"}]
    barred = saved(tmp_path / "barred.jsonl", asks)
    heldout = saved(tmp_path / "heldout.jsonl", rows(["the fish"]))
    found = prepared(tokenizer, DataConfig(train=train, heldout=heldout, heldout_prompts=barred))
    assert found.report["dropped_by_reason"] == {"heldout_prompt": 3}
    assert {one.source.line for one in found.dropped} == {1, 2, 4}
    assert len(found.train) == 2
    assert found.report["num_records"] == 6 == account(found.report)
    saved(tmp_path / "barred.jsonl", [{"answer": "a"}])
    with pytest.raises(DataError, match=r"barred\.jsonl:1: "):
        prepared(tokenizer, DataConfig(train=train, heldout=heldout, heldout_prompts=barred))


def test_prompts_that_the_template_makes_the_same_are_not_on_both_sides(tokenizer, tmp_path):
    lowering = copy.deepcopy(tokenizer)
    lowering.chat_template = tokenizer.chat_template.replace("message['content']", "message['content'] | lower")
    file = saved(tmp_path / "train.jsonl", rows([f"{the} cat {n}" for n in range(30) for the in ("the", "The", "THE")]))
    data = DataConfig(train=file, heldout_share=0.3)
    for made, dropped in ((tokenizer, False), (lowering, True)):
        found = prepared(made, data)
        shown, held = ({pair.prompt_ids for pair in side} for side in (found.train, found.heldout.tokenized))
        assert not shown & held
        assert ("heldout_prompt" in found.report["dropped_by_reason"]) is dropped
        assert found.report["num_records"] == 90 == account(found.report)


def test_prompts_that_differ_in_what_nobody_sees_are_on_one_side(tokenizer, tmp_path):
    file = saved(
        tmp_path / "a.jsonl", rows([f"the cat {n}{end}" for n in range(30) for end in ("", " ", "\n", "\u200b")])
    )
    found = prepared(tokenizer, DataConfig(train=file, heldout_share=0.3))
    assert len(found.train) + len(found.heldout.tokenized) == 120
    assert len(found.heldout.tokenized) % 4 == 0
    assert "heldout_prompt" not in found.report["dropped_by_reason"]


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
            [*rows(f"the cat {n}" for n in range(12)), *["{\n"] * 8],
            {"heldout_share": 0.5},
            "40% of the records would be dropped, more than data.max_dropped_share 0.1",
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
    assert found.report["num_beyond_max_pairs"] == 1200 - found.report["num_used_records"]
    assert found.report["dropped_by_reason"]["too_long"] + len(found.train) + len(found.heldout.pairs) == 60


def test_pairs_that_do_not_fit_count_towards_the_share_that_stops_a_run(stories, shared):
    from transformers import AutoTokenizer

    file = shared / "data" / "prefs" / "ultrafeedback_binarized_1200.jsonl.gz"
    data = DataConfig(train=str(file), max_pairs=60, max_length=512)
    with pytest.raises(DataError, match=r"max_dropped_share 0\.1; most often too_long"):
        prepared(AutoTokenizer.from_pretrained(str(stories)), data)


def test_sources_are_mixed_by_weight(tokenizer, tmp_path):
    one = saved(tmp_path / "one.jsonl", rows(f"the cat {n}" for n in range(400)))
    other = saved(tmp_path / "other.jsonl", rows(f"the dog {n}" for n in range(100)))
    mix = [{"path": one, "weight": 0.5}, {"path": other, "weight": 2.5}]
    found = prepared(tokenizer, DataConfig(train=mix, heldout_share=0.2))
    plain = prepared(tokenizer, DataConfig(train=[one, other], heldout_share=0.2))
    times = Counter(pair.example_id for pair in found.train)
    halved = [times[pair_id] for pair_id in ids_of(one) & set(times)]
    assert set(halved) == {1}
    assert 0.35 < len(halved) / 320 < 0.65
    assert {times[pair_id] for pair_id in ids_of(other) & set(times)} == {2, 3}
    assert list(found.heldout.tokenized) == list(plain.heldout.tokenized)
    assert [file["num_records"] for file in found.report["files"]] == [400, 100]


def ids_of(path):
    return {pair.pair_id for pair in read_pairs(path).pairs}


def test_rows_of_a_group_stay_on_one_side(tokenizer, tmp_path):
    made = [one | {"group": n // 10} for n, one in enumerate(rows(f"the cat {n}" for n in range(400)))]
    found = prepared(tokenizer, DataConfig(train=saved(tmp_path / "a.jsonl", made), heldout_share=0.3))
    held = {pair.origin.group for pair in found.heldout.pairs}
    assert len(found.heldout.pairs) == 10 * len(held)
    assert 0 < len(held) < 40


def test_a_prompt_in_two_groups_is_never_on_both_sides(tokenizer, tmp_path):
    made = [one | {"group": n} for n, one in enumerate(rows([f"the cat {n % 50}" for n in range(200)]))]
    found = prepared(tokenizer, DataConfig(train=saved(tmp_path / "a.jsonl", made), heldout_share=0.3))
    assert not {pair.prompt_id for pair in found.train} & {pair.prompt_id for pair in found.heldout.pairs}
    assert found.report["dropped_by_reason"]["heldout_prompt"] == found.report["num_dropped"]
    assert account(found.report) == 200


def test_processes_change_nothing(tokenizer, train_file):
    data = DataConfig(train=train_file, heldout_share=0.3, max_length=128)
    renderer = Renderer(tokenizer, (tokenizer.eos_token_id,), data)
    one, two = prepare(data, renderer, num_workers=1), prepare(data, renderer, num_workers=2)
    assert (one.fingerprint, one.report, one.dropped) == (two.fingerprint, two.report, two.dropped)
    assert list(one.train) == list(two.train)
