"""Completions judged one at a time, and how they find partners."""

from __future__ import annotations

import gzip
import json
from collections import Counter, defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiebreak.data.formats import Pairing, RowError, detect, read_row
from tiebreak.data.formats.thumbs import paired_thumbs
from tiebreak.records import Message, Origin, Source, Thumb

HERE = Source("rows.jsonl", 1)
ROW = {"prompt": "Why?", "completion": "Because.", "label": True}
TALK = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}]


def read(row):
    (thumb,) = read_row(row, detect(row), HERE).thumbs
    return thumb


@pytest.mark.parametrize(
    "row",
    [
        ROW,
        ROW | {"label": 1}, ROW | {"label": "desirable"}, ROW | {"label": "1"},
        {"prompt": [TALK[0]], "completion": [TALK[1]], "label": True},
        {"question": "Why?", "answer": "Because.", "liked": True},
        {"instruction": "Why?", "input": "", "output": "Because.", "kto_tag": True},
        {"messages": TALK, "label": True},
        {"conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "Because."}], "kto_tag": True},
    ],
)  # fmt: skip
def test_every_form_of_a_thumb_gives_the_same(row):
    assert read(row) == Thumb((Message("user", "Why?"),), Message("assistant", "Because."), True, source=HERE)
    label = next(name for name in ("label", "liked", "kto_tag") if name in row)
    assert read(row | {label: False}).liked is False
    assert read(row | {label: 0}).liked is False


def test_what_a_thumb_weighs_is_kept_where_it_is_a_weight():
    assert read(ROW | {"weight": 0.5}).weight == 0.5
    assert read(ROW | {"weight": "2"}).weight == 2.0
    assert [read(ROW | {"weight": odd}).weight for odd in (-1, "heavy", None, True)] == [1.0] * 4
    columns = {"prompt": "q", "completion": "a", "label": "ok", "weight": "w"}
    row = {"q": "Why?", "a": "Because.", "ok": True, "w": 3}
    assert read_row(row, detect(row, columns), HERE).thumbs[0].weight == 3.0


def test_what_stands_beside_a_thumb_is_kept():
    thumb = read(ROW | {"group": "7", "split": "train", "system": "Be brief."})
    assert thumb.origin == Origin(split="train", group="7")
    assert thumb.prompt[0] == Message("system", "Be brief.")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (ROW | {"label": "perhaps"}, "wrong_type"),
        (ROW | {"label": 2}, "wrong_type"),
        (ROW | {"label": []}, "wrong_type"),
        (ROW | {"completion": 3}, "wrong_type"),
        (ROW | {"completion": " "}, "empty_completion"),
        (ROW | {"prompt": ""}, "empty_turn"),
        ({"messages": TALK[:1], "label": True}, "no_completion"),
        ({"messages": TALK[1:], "label": True}, "no_prompt"),
        ({"messages": [], "label": True}, "no_completion"),
    ],
)
def test_what_cannot_be_used_is_refused_with_a_reason(row, reason):
    with pytest.raises(RowError) as refused:
        read(row)
    assert refused.value.reason == reason


def thumb(prompt, text, verdict, line=None):
    source = None if line is None else Source("log", line)
    return Thumb((Message("user", prompt),), Message("assistant", text), verdict, source=source)


def texts(pairs):
    return [(pair.chosen.content, pair.rejected.content) for pair in pairs]


LOG = [
    thumb("p", "a", True, 1), thumb("q", "x", True, 2), thumb("p", "b", False, 3), thumb("p", "c", True, 4),
    thumb("p", "d", True, 5), thumb("p", "e", False, 6),
]  # fmt: skip


@pytest.mark.parametrize("choose", ["best_worst", "best_second", "best_random"])
def test_thumbs_of_a_prompt_are_paired_one_to_one_in_the_order_of_the_file(choose):
    pairs, dropped, num_ties = paired_thumbs(LOG, Pairing(choose))
    assert texts(pairs) == [("a", "b"), ("c", "e")]
    assert [pair.source.line for pair in pairs] == [1, 4]
    assert [(item.source.line, item.reason) for item in dropped] == [(2, "unpaired"), (5, "unpaired")]
    assert {pair.preference.weight for pair in pairs} == {1}
    assert num_ties == 0


def test_every_liked_is_paired_with_every_disliked_and_weighs_as_much_as_one_to_one():
    pairs, dropped, _ = paired_thumbs(LOG, Pairing("all"))
    assert texts(pairs) == [("a", "b"), ("a", "e"), ("c", "b"), ("c", "e"), ("d", "b"), ("d", "e")]
    assert sum(pair.preference.weight for pair in pairs) == pytest.approx(2)
    assert [item.source.line for item in dropped] == [2]


def test_a_completion_that_is_liked_and_disliked_is_a_tie_and_in_no_pair():
    log = [thumb("p", "a", True, 1), thumb("p", "a", False, 2), thumb("p", "b", False, 3), thumb("p", "c", True, 4)]
    pairs, dropped, num_ties = paired_thumbs(log, Pairing("all"))
    assert texts(pairs) == [("c", "b")]
    assert num_ties == 1
    assert [(item.source.line, item.reason) for item in dropped] == [
        (1, "contradictory_thumbs"),
        (2, "contradictory_thumbs"),
    ]


def test_a_record_of_several_thumbs_is_dropped_once_and_only_if_none_is_in_a_pair():
    log = [thumb("p", "a", True, 1), thumb("q", "x", True, 1), thumb("r", "y", True, 2), thumb("s", "z", False, 2)]
    pairs, dropped, _ = paired_thumbs([*log, thumb("p", "b", False, 3)], Pairing())
    assert texts(pairs) == [("a", "b")]
    assert [item.source.line for item in dropped] == [2]


def test_prompts_with_other_tools_are_other_prompts():
    tools = ({"type": "function"},)
    one = Thumb((Message("user", "p"),), Message("assistant", "a"), True, tools)
    pairs, dropped, _ = paired_thumbs([one, thumb("p", "b", False)], Pairing())
    assert not pairs
    assert len(dropped) == 2


THUMBS = st.lists(
    st.tuples(st.sampled_from("pqr"), st.sampled_from("abcdefgh"), st.booleans()), min_size=1, max_size=30
)


@given(THUMBS, st.sampled_from(["best_worst", "best_second", "best_random", "all"]))
def test_each_record_is_in_a_pair_or_dropped_and_no_pair_contradicts_a_thumb(told, choose):
    log = [thumb(*item, line) for line, item in enumerate(told, 1)]
    pairs, dropped, num_ties = paired_thumbs(log, Pairing(choose))
    verdicts = defaultdict(set)
    for prompt, text, verdict in told:
        verdicts[prompt, text].add(verdict)
    assert num_ties == sum(len(found) == 2 for found in verdicts.values())
    for pair in pairs:
        assert verdicts[pair.prompt[0].content, pair.chosen.content] == {True}
        assert verdicts[pair.prompt[0].content, pair.rejected.content] == {False}
    lost = {item.source.line for item in dropped}
    assert len(lost) == len(dropped)
    clear = [item for item in told if len(verdicts[item[:2]]) == 1]
    expected = used = 0
    for prompt in "pqr":
        good = sum(verdict for asked, _, verdict in clear if asked == prompt)
        bad = sum(not verdict for asked, _, verdict in clear if asked == prompt)
        expected += good * bad if choose == "all" else min(good, bad)
        used += (good + bad if good and bad else 0) if choose == "all" else 2 * min(good, bad)
    assert len(pairs) == expected
    assert len(told) == used + len(dropped)


def real_thumbs(file, names=()):
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        rows = [{dict(names).get(key, key): value for key, value in json.loads(line).items()} for line in lines]
    return [
        found
        for line, row in enumerate(rows, 1)
        for found in read_row(row, detect(row), Source(file.name, line)).thumbs
    ]


def test_the_gsm8k_solutions_give_exact_counts(shared):
    names = {"question": "prompt", "solution": "completion", "is_correct": "label"}
    thumbs = real_thumbs(shared / "data" / "unpaired" / "gsm8k_model_solutions.jsonl.gz", names)
    assert Counter(item.liked for item in thumbs) == {True: 2001, False: 3275}
    count = Counter((item.prompt_id, item.liked) for item in thumbs)
    good_and_bad = [(count[prompt, True], count[prompt, False]) for prompt in {key for key, _ in count}]
    pairs, dropped, num_ties = paired_thumbs(thumbs, Pairing())
    assert len(pairs) == sum(min(both) for both in good_and_bad) == 967
    assert Counter(item.reason for item in dropped) == {"unpaired": 5276 - 2 * 967}
    assert num_ties == 0
    everything, rest, _ = paired_thumbs(thumbs, Pairing("all"))
    assert len(everything) == sum(good * bad for good, bad in good_and_bad) == 2429
    assert len(rest) == 2352


def test_the_kto_demo_is_nearly_all_unpaired(shared):
    thumbs = real_thumbs(shared / "data" / "unpaired" / "llamafactory_kto_en_demo.jsonl.gz")
    pairs, dropped, num_ties = paired_thumbs(thumbs, Pairing())
    assert (len(thumbs), len(pairs), len(dropped), num_ties) == (300, 1, 298, 0)
