"""Rows of two completions and who preferred which."""

from __future__ import annotations

import gzip
import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiebreak.data.formats import Pairing, RowError, detect, read_row
from tiebreak.records import Message, Source, Vote

HERE = Source("rows.jsonl", 1)
PANDALM = {"instruction": "Rewrite.", "input": "A text", "response1": "one", "response2": "two", "votes": [1, 2, 1]}
AB = {"prompt": "Why?", "completion_a": "one", "completion_b": "two", "winner": "b"}


def read(row, pairing=Pairing()):  # noqa: B008
    (pair,) = read_row(row, detect(row), HERE, pairing).pairs
    return pair


def sides(pair):
    return pair.chosen.content, pair.rejected.content


def reason_of(row, pairing=Pairing()):  # noqa: B008
    with pytest.raises(RowError) as refused:
        read(row, pairing)
    return refused.value.reason


def test_the_majority_of_the_votes_decides_and_the_votes_are_kept():
    assert detect(PANDALM).name == "votes"
    pair = read(PANDALM)
    assert sides(pair) == ("one", "two")
    assert pair.prompt == (Message("user", "Rewrite.\nA text"),)
    assert [vote.choice for vote in pair.preference.votes] == ["chosen", "rejected", "chosen"]
    assert pair.preference.soft_label == pytest.approx(2 / 3)
    assert pair.preference.weight == 1


def test_a_tie_of_votes_drops_the_record_and_says_how_they_fell():
    with pytest.raises(RowError, match=r"votes 1:1, 1 tie$") as refused:
        read(PANDALM | {"votes": [1, 2, 0]})
    assert refused.value.reason == "tie"
    with pytest.raises(RowError, match="votes 0:0, 3 ties"):
        read(PANDALM | {"votes": [0, 0, 0]})


@given(st.lists(st.sampled_from([0, 1, 2]), min_size=1, max_size=9))
def test_swapping_the_completions_and_the_votes_gives_the_same_pair(votes):
    row = PANDALM | {"votes": votes}
    swapped = row | {"response1": "two", "response2": "one", "votes": [{0: 0, 1: 2, 2: 1}[vote] for vote in votes]}
    if votes.count(1) == votes.count(2):
        assert reason_of(row) == reason_of(swapped) == "tie"
        return
    assert read(row) == read(swapped)
    assert sides(read(row)) == (("one", "two") if votes.count(1) > votes.count(2) else ("two", "one"))
    ties = [vote.choice for vote in read(row).preference.votes].count("tie")
    assert ties == votes.count(0)


@pytest.mark.parametrize(
    "changes",
    [
        {"winner": "completion_b"}, {"winner": 2}, {"winner": "model_b"},
        {"winner": None, "preference": 2}, {"winner": None, "label": "B"}, {"winner": None, "choice": "right"},
        {"winner": None, "votes": [2]}, {"winner": None, "votes": {"ann": "b", "ben": "b"}},
        {"winner": None, "annotations": [{"annotator": "ann", "choice": "b"}]},
        {"winner": None, "annotator1": 2, "annotator2": 2, "annotator3": 1},
    ],
)  # fmt: skip
def test_verdicts_of_other_names_and_shapes_are_read(changes):
    row = AB | changes
    assert detect(row).name == "votes"
    assert sides(read(row)) == ("two", "one")


@pytest.mark.parametrize(
    ("first", "second"),
    [("response1", "response2"), ("response_a", "response_b"), ("output_1", "output_2"), ("answer_A", "answer_B")],
)
def test_other_names_of_the_two_completions_are_read(first, second):
    row = {"prompt": "Why?", first: "one", second: "two", "winner": 1}
    assert sides(read(row)) == ("one", "two")


def test_annotators_keep_their_names():
    named = AB | {"winner": None, "votes": [{"annotator": "ann", "vote": 1}, {"user_id": 7, "vote": 1}]}
    assert read(named).preference.votes == (Vote("chosen", "ann"), Vote("chosen", "7"))
    assert read(AB | {"annotator": "ann"}).preference.votes == (Vote("chosen", "ann"),)
    beside = AB | {"winner": None, "votes": [2, 1, 2], "annotators": ["x", "y", "z"]}
    assert read(beside).preference.votes == (Vote("chosen", "x"), Vote("rejected", "y"), Vote("chosen", "z"))


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (PANDALM | {"response1": True}, "wrong_type"),
        (PANDALM | {"response1": None}, "no_completion"),
        (PANDALM | {"response1": " "}, "empty_completion"),
        (PANDALM | {"response1": "two"}, "identical"),
        (PANDALM | {"votes": []}, "wrong_type"),
        (PANDALM | {"votes": [1, 3]}, "wrong_type"),
        (PANDALM | {"votes": [1, None]}, "wrong_type"),
        (PANDALM | {"votes": [1] * 10_001}, "wrong_type"),
        (PANDALM | {"input": 3}, "wrong_type"),
        (AB | {"winner": True}, "wrong_type"),
        (AB | {"winner": "tie"}, "tie"),
    ],
)
def test_what_cannot_be_used_is_refused_with_a_reason(row, reason):
    assert reason_of(row) == reason


def arena(winner, *sides):
    sides = sides or ("one", "two")
    talks = [[{"role": "user", "content": "Why?"}, {"role": "assistant", "content": side}] for side in sides]
    return {"model_a": "x", "model_b": "y", "winner": winner, "judge": "ann", "conversation_a": talks[0],
            "conversation_b": talks[1]}  # fmt: skip


def test_an_arena_battle_is_one_vote_between_two_conversations():
    assert detect(arena("model_b")).name == "arena"
    pair = read(arena("model_b"))
    assert sides(pair) == ("two", "one")
    assert pair.preference.votes == (Vote("chosen", "ann"),)
    assert reason_of(arena("tie")) == reason_of(arena("tie (bothbad)")) == "tie"
    longer = arena("model_a")
    for talk in ("conversation_a", "conversation_b"):
        longer[talk] = longer[talk] + [{"role": "user", "content": "And?"}, {"role": "assistant", "content": "So."}]
    assert reason_of(longer) == "prompts_differ"


def helpsteer(strength, **changes):
    row = {"split": "train", "prompt": "Why?", "response_1": "one", "response_2": "two"}
    return row | {"preference_strength": strength} | changes


def test_a_strength_of_preference_is_the_margin_and_its_sign_the_side():
    assert detect(helpsteer(-2)).name == "helpsteer"
    assert sides(read(helpsteer(-2))) == ("one", "two")
    pair = read(helpsteer(3, three_most_similar_preferences=[{"strength": 3}, {"strength": -1}, {"strength": 0}]))
    assert sides(pair) == ("two", "one")
    assert pair.preference.margin == 3
    assert [vote.choice for vote in pair.preference.votes] == ["chosen", "rejected", "tie"]
    assert pair.preference.soft_label == 0.5
    assert pair.origin.split == "train"
    assert reason_of(helpsteer(0)) == "tie"
    assert reason_of(helpsteer(1), Pairing(min_margin=2)) == "tie"
    assert reason_of(helpsteer("much")) == "wrong_type"


def test_helpsteer3_has_a_conversation_for_its_prompt():
    talk = [
        {"role": "user", "content": "Why?"},
        {"role": "assistant", "content": "So."},
        {"role": "user", "content": "?"},
    ]
    row = {"context": talk, "response1": "one", "response2": "two", "overall_preference": -1}
    row["individual_preference"] = [{"score": -2, "reasoning": "…"}, {"score": -1, "reasoning": "…"}]
    pair = read(row)
    assert len(pair.prompt) == 3
    assert pair.preference.soft_label == 1


def test_the_pandalm_votes_give_exact_counts(shared):
    file = shared / "data" / "prefs" / "pandalm_human_testset_votes.jsonl.gz"
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    pairs, reasons, tied = [], Counter(), 0
    for line, row in enumerate(rows, 1):
        try:
            pairs.append((row, *read_row(row, detect(row), Source("votes", line)).pairs))
        except RowError as refused:
            reasons[refused.reason] += 1
            tied += refused.reason == "tie" and refused.detail == "votes 0:0, 3 ties"
    assert len(rows) == 999
    assert sum(vote == 0 for row in rows for vote in row["votes"]) == 326
    assert reasons == {"tie": 85, "wrong_type": 6, "empty_completion": 53}
    assert tied == 85
    assert len(pairs) == 999 - 85 - 6 - 53
    for row, pair in pairs:
        wins, losses = sorted((row["votes"].count(1), row["votes"].count(2)), reverse=True)
        choices = Counter(vote.choice for vote in pair.preference.votes)
        assert (choices["chosen"], choices["rejected"], choices["tie"]) == (wins, losses, row["votes"].count(0))
        better = row["response1"] if row["votes"].count(1) > row["votes"].count(2) else row["response2"]
        assert pair.chosen.content == better
