"""Completions that were judged one at a time, from a file to tokens, with no partner looked for."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import pytest

from tiebreak.config import DataConfig, build_config
from tiebreak.data.formats import Pairing
from tiebreak.data.preparation import prepare
from tiebreak.data.render import Renderer
from tiebreak.data.spool import line_of, pair_of
from tiebreak.data.tokens import TokenTable
from tiebreak.data.whole import read_pairs
from tiebreak.errors import ConfigError, DataError
from tiebreak.progress import Silent
from tiebreak.records import Message, Origin, Source, Thumb, TokenizedThumb
from tiebreak.training.settled import check_settings
from tiny import token_thumbs

THUMB = Thumb((Message("user", "the cat"),), Message("assistant", "sat"), True)


def saved(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def thumbs(num, label=lambda number: number % 3 > 0):
    return [{"prompt": f"the cat {n}", "completion": f"yes the dog {n}", "label": label(n)} for n in range(num)]


def apart(path) -> list[tuple[str, bool]]:
    found = read_pairs(path, pairing=Pairing("none"))
    assert not found.pairs
    return [(one.completion.content, one.liked) for one in found.unpaired]


def test_thumbs_of_one_prompt_stay_apart(tmp_path):
    rows = [
        {"prompt": "a", "completion": text, "label": good} for text, good in (("x", True), ("y", False), ("z", True))
    ]
    assert apart(saved(tmp_path / "t.jsonl", rows)) == [("x", True), ("y", False), ("z", True)]


def test_pairs_fall_apart_each_completion_once_in_a_record(tmp_path):
    rows = [
        {"prompt": "a", "chosen": "x", "rejected": "y"},
        {"prompt": "b", "chosen": "x", "rejected": "z"},
    ]
    assert apart(saved(tmp_path / "p.jsonl", rows)) == [("x", True), ("y", False), ("x", True), ("z", False)]


_PAIR = {"prompt": "a", "chosen": "x", "rejected": "y"}
_RATED = {"prompt": "a", "completions": ["x", "y"]}


@pytest.mark.parametrize(
    ("tied", "decided"),
    [
        (_PAIR | {"chosen_score": 4, "rejected_score": 4}, _PAIR | {"chosen_score": 4, "rejected_score": 2}),
        (_PAIR | {"soft_label": 0.5}, _PAIR | {"soft_label": 0.8}),
        (_RATED | {"scores": [3, 3]}, _RATED | {"scores": [4, 3]}),
    ],
    ids=["scores", "votes", "ratings"],
)
def test_what_ties_has_no_good_one_and_is_dropped_by_its_name(tied, decided, tmp_path):
    found = read_pairs(saved(tmp_path / "t.jsonl", [tied, decided | {"prompt": "b"}]), pairing=Pairing("none"))
    assert found.reasons == {"tie": 1}
    assert [(one.completion.content, one.liked) for one in found.unpaired] == [("x", True), ("y", False)]


def test_a_demonstration_is_what_was_called_chosen_whatever_scores_say(tmp_path):
    row = _PAIR | {"chosen_score": 4, "rejected_score": 4}
    found = read_pairs(saved(tmp_path / "g.jsonl", [row]), pairing=Pairing("good"))
    assert [one.completion.content for one in found.unpaired] == ["x"]


@pytest.mark.parametrize("choose", ["best_worst", "none"])
def test_rows_of_one_completion_and_a_score_tie_by_that_name(choose, tmp_path):
    rows = [
        {"prompt": prompt, "completion": text, "score": score}
        for prompt, text, score in (("a", "x", 3), ("a", "y", 3), ("b", "x", 3), ("b", "y", 1), ("c", "x", 3))
    ]
    found = read_pairs(saved(tmp_path / "s.jsonl", rows), pairing=Pairing(choose))
    assert found.reasons == {"tie": 2, "unpaired": 1}


def test_of_scored_completions_the_best_and_the_worst_are_taken(tmp_path):
    rows = [{"prompt": "a", "completion": text, "score": score} for text, score in (("x", 1), ("y", 3), ("z", 2))]
    found = apart(saved(tmp_path / "s.jsonl", rows))
    assert sorted(found) == [("x", False), ("y", True)]


def test_everything_is_accounted_for_and_prompts_are_held_out_whole(tokenizer, tmp_path):
    more = {"prompt": "the cat 1", "completion": "no the dog", "label": False}
    rows = [*thumbs(60), more, {"prompt": "a"}]
    data = DataConfig(train=saved(tmp_path / "t.jsonl", rows), pairing="none", heldout_share=0.4)
    found = prepare(data, Renderer(tokenizer, (tokenizer.eos_token_id,), data))
    report = found.report
    assert report["num_records"] == 62
    assert report["num_train_pairs"] + report["num_heldout_pairs"] + report["num_dropped"] == 62
    assert not set(found.train.prompt_ids()) & {one.prompt_id for one in found.heldout.tokenized}
    assert all(isinstance(one, TokenizedThumb) for one in (*found.train, *found.heldout.tokenized))
    assert Counter(one.liked for one in (*found.train, *found.heldout.tokenized)) == {True: 40, False: 21}
    assert [one.liked for one in found.heldout.pairs] == [one.liked for one in found.heldout.tokenized]
    assert report["chosen_tokens"]["mean"] > report["rejected_tokens"]["mean"] > 0


def test_a_weight_and_its_verdict_are_part_of_what_a_run_is_of(tokenizer, tmp_path):
    def fingerprint(rows):
        data = DataConfig(train=saved(tmp_path / "t.jsonl", rows), pairing="none", heldout_share=0.4)
        return prepare(data, Renderer(tokenizer, (tokenizer.eos_token_id,), data)).fingerprint

    rows = thumbs(40)
    turned = [row | {"label": not row["label"]} if number == 1 else row for number, row in enumerate(rows)]
    assert fingerprint(rows) == fingerprint(rows) != fingerprint(turned)


@pytest.mark.parametrize("label", [True, False])
def test_completions_of_one_verdict_are_refused(label, tokenizer, tmp_path):
    data = DataConfig(train=saved(tmp_path / "t.jsonl", thumbs(40, lambda _: label)), pairing="none")
    with pytest.raises(DataError, match=f"every completion to train on is {'good' if label else 'bad'}"):
        prepare(data, Renderer(tokenizer, (tokenizer.eos_token_id,), data))


def test_a_table_gives_back_what_was_put_in():
    made = [replace(one, example_id=f"{at:064x}", prompt_id=f"{at:064x}") for at, one in enumerate(token_thumbs(9))]
    made[3] = replace(made[3], weight=0.5, num_truncated=4)
    table = TokenTable.of(made)
    assert list(table) == made
    assert table.longest_completions.tolist() == [len(one.completion_ids) for one in made]
    assert table.lengths_of(good=True).tolist() == [len(one.completion_ids) for one in made if one.liked]
    assert table.digest() != TokenTable.of([replace(one, liked=True) for one in made]).digest()


def test_a_spool_gives_back_what_was_put_in():
    whole = replace(THUMB, liked=False, weight=2.0, source=Source("a", 3), origin=Origin(group="g"), tools=({"a": 1},))
    assert [pair_of(line_of(one)) for one in (THUMB, whole)] == [THUMB, whole]


@pytest.mark.parametrize(
    "thumb",
    [
        THUMB,
        replace(THUMB, liked=False, tools=({"type": "function", "function": {"name": "f"}},)),
        replace(THUMB, completion=Message("assistant", " so \n", reasoning="because")),
        replace(
            THUMB,
            prompt=(Message("system", "be brief"), Message("user", "a"), Message("assistant", "b"), THUMB.prompt[0]),
        ),
    ],
)
def test_a_held_out_file_is_read_as_what_was_held_out(thumb, tmp_path):
    found = read_pairs(saved(tmp_path / "h.jsonl", [thumb.as_dict()]), pairing=Pairing("none")).unpaired
    assert [replace(one, source=None) for one in found] == [thumb]
    assert found[0].example_id == thumb.example_id


def test_the_loss_decides_and_what_contradicts_it_is_refused():
    assert build_config({"loss": "kto"}).data.pairing == "none"
    assert build_config({"loss": "sft_unpaired"}).data.pairing == "good"
    assert build_config({"loss": "dpo"}).data.pairing == "best_worst"
    for settings, told in (
        ({"loss": "kto", "data": {"pairing": "all"}}, "data.pairing all: kto learns from completions, each on its own"),
        ({"loss": "dpo", "data": {"pairing": "none"}}, "data.pairing none: dpo learns from pairs; of losses, kto, "),
        (
            {"loss": "kto", "data": {"pairing": "good"}},
            "data.pairing good: kto learns from completions, each on its own",
        ),
        (
            {"loss": "sft_unpaired", "data": {"pairing": "none"}},
            "sft_unpaired learns from good completions, each on its",
        ),
        ({"loss": "sft", "data": {"pairing": "good"}}, "sft learns from pairs; of losses, sft_unpaired learn so"),
        ({"data": {"turns": "all"}}, "data.turns all: is read where demonstrations are"),
        ({"loss": "kto", "training": {"pairs_per_step": 1}}, "kto compares with completions of other prompts"),
    ):
        with pytest.raises(ConfigError, match=told):
            check_settings(build_config(settings), Silent())
    with pytest.raises(ConfigError, match="kto learns from completions on their own, terms of a sum from pairs"):
        build_config({"loss": {"terms": ["dpo", "kto"]}})


# ------------------------------------------------------------------------------------------------------ demonstrations

TURNS = [
    {"role": role, "content": text}
    for role, text in (("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"))
]
SHOWN = [
    ({"prompt": "a", "completion": "b"}, [(("a",), "b")]),
    ({"messages": TURNS}, [(("a", "b", "c"), "d")]),
    ({"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}, [(("a",), "b")]),
    ({"messages": [{"role": "system", "content": "s"}, *TURNS[:2]]}, [(("s", "a"), "b")]),
    ({"prompt": "a", "chosen": "b", "rejected": "c"}, [(("a",), "b")]),
    ({"prompt": "a", "completion": "b", "label": True}, [(("a",), "b")]),
]


@pytest.mark.parametrize(("row", "wanted"), SHOWN)
def test_what_is_to_be_imitated_is_read_of_every_form(row, wanted, tmp_path):
    found = read_pairs(saved(tmp_path / "d.jsonl", [row] * 2), pairing=Pairing("good")).unpaired
    said = [(tuple(message.content for message in one.prompt), one.completion.content) for one in found]
    assert said == wanted * 2
    assert all(one.liked for one in found)


def test_every_turn_of_a_dialogue_is_one_example_and_all_are_held_out_or_none(tmp_path):
    rows = [{"messages": [TURNS[0] | {"content": f"a {number}"}, *TURNS[1:]]} for number in range(20)]
    found = read_pairs(saved(tmp_path / "d.jsonl", rows), pairing=Pairing("good", turns="all")).unpaired
    assert [len(one.prompt) for one in found] == [1, 3] * 20
    for first, second in zip(found[::2], found[1::2], strict=True):
        assert first.split_key == second.split_key == first.prompt_id != second.prompt_id


def test_bad_completions_are_left_out_and_counted(tmp_path):
    found = read_pairs(saved(tmp_path / "t.jsonl", thumbs(9)), pairing=Pairing("good"))
    assert (len(found.unpaired), found.reasons) == (6, {"not_good": 3})


def test_a_row_that_says_nothing_is_no_demonstration_anywhere_else(tmp_path):
    path = saved(tmp_path / "d.jsonl", [{"messages": TURNS}, {"messages": TURNS}])
    for choose in ("best_worst", "none"):
        with pytest.raises(DataError):
            read_pairs(path, pairing=Pairing(choose))


def test_demonstrations_need_no_bad_side(tokenizer, tmp_path):
    rows = [{"messages": [TURNS[0] | {"content": f"a {number}"}, *TURNS[1:]]} for number in range(40)]
    data = DataConfig(train=saved(tmp_path / "d.jsonl", rows), pairing="good", heldout_share=0.3, turns="all")
    found = prepare(data, Renderer(tokenizer, (tokenizer.eos_token_id,), data))
    assert found.report["num_train_pairs"] + found.report["num_heldout_pairs"] == 80
    assert found.report["rejected_tokens"]["max"] == 0 < found.report["chosen_tokens"]["max"]
