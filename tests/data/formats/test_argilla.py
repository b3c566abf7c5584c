"""Exports of Argilla."""

from __future__ import annotations

import pytest

from tiebreak.data.formats import Pairing, RowError, detect, read_row
from tiebreak.records import Message, Source, Vote

HERE = Source("rows.jsonl", 1)
FIELDS = {"prompt": "Why?", "response-1": "one", "response-2": "two", "response-3": "three"}
TWO = {"prompt": "Why?", "response-1": "one", "response-2": "two"}


def read(row, choose="best_worst"):
    assert detect(row).name == "argilla"
    return read_row(row, detect(row), HERE, Pairing(choose))


def sides(reading):
    return [(pair.chosen.content, pair.rejected.content) for pair in reading.pairs]


def said(*values, status="submitted"):
    return [{"user_id": f"user {place}", "value": value, "status": status} for place, value in enumerate(values)]


def ranks(*numbers):
    return [{"value": f"response-{place}", "rank": rank} for place, rank in enumerate(numbers, 1)]


SHAPES = {
    "version 2, nested": {"id": "1", "fields": FIELDS, "metadata": {}, "suggestions": {}, "vectors": {}, "responses": {
        "rank": [{"value": ["response-2", "response-3", "response-1"], "user_id": "ann"}]}},
    "version 2, flat": FIELDS | {"id": "1", "status": "completed", "rank.responses": [
        ["response-2", "response-3", "response-1"]], "rank.responses.users": ["ann"],
        "rank.responses.status": ["submitted"]},
    "version 1, a list": FIELDS | {"rank": [{"user_id": "ann", "status": "submitted", "value": ranks(3, 1, 2)}]},
    "version 1, lists in columns": FIELDS | {"rank": {"user_id": ["ann"], "status": ["submitted"], "value": [
        {"rank": [3, 1, 2], "value": ["response-1", "response-2", "response-3"]}]}},
    "version 1, its own records": {"fields": FIELDS, "suggestions": [], "responses": [
        {"user_id": "ann", "status": "submitted", "values": {"rank": {"value": ranks(3, 1, 2)}}}]},
}  # fmt: skip


@pytest.mark.parametrize("row", SHAPES.values(), ids=SHAPES)
def test_every_shape_of_a_ranking_gives_the_same_pairs(row):
    reading = read(row, "all")
    assert sides(reading) == [("two", "one"), ("two", "three"), ("three", "one")]
    assert reading.pairs[0].preference.votes == (Vote("chosen", "ann"),)
    assert reading.pairs[0].preference.weight == 1 / 3
    assert reading.pairs[0].prompt == (Message("user", "Why?"),)
    assert sides(read(row)) == [("two", "one")]


def test_several_annotators_are_several_votes():
    row = {"fields": FIELDS, "responses": {"rank": said(ranks(1, 2, 3), ranks(1, 3, 2), ranks(2, 1, 2))}}
    reading = read(row, "all")
    assert sides(reading) == [("one", "two"), ("one", "three"), ("two", "three")]
    votes = {sides: pair.preference.votes for sides, pair in zip(sides(reading), reading.pairs, strict=True)}
    assert [vote.choice for vote in votes["one", "three"]] == ["chosen", "chosen", "tie"]
    assert [vote.choice for vote in votes["two", "three"]] == ["chosen", "rejected", "chosen"]
    assert votes["one", "two"][0].annotator == "user 0"


@pytest.mark.parametrize("status", ["discarded", "draft", "ResponseStatus.draft"])
def test_only_submitted_responses_count(status):
    row = {"fields": TWO, "responses": {"best": said("response-2") + said("response-1", "response-1", status=status)}}
    (pair,) = read(row).pairs
    assert pair.chosen.content == "two"
    assert len(pair.preference.votes) == 1
    row["responses"]["best"] = said("response-1", status=status)
    with pytest.raises(RowError) as refused:
        read(row)
    assert refused.value.reason == "no_completion"


def test_suggestions_of_a_model_are_no_votes():
    row = {"fields": TWO, "responses": {}, "suggestions": {"best": {"value": "response-1", "score": 1.0}}}
    with pytest.raises(RowError) as refused:
        read(row)
    assert refused.value.reason == "no_completion"


@pytest.mark.parametrize("label", ["response-2", "response_2", "Response 2", "2", "B"])
def test_a_label_names_the_better_completion(label):
    row = {"fields": TWO, "responses": {"preference": said(label)}}
    assert sides(read(row)) == [("two", "one")]
    row["responses"]["preference"] = said(label, "tie", "response-1")
    with pytest.raises(RowError, match="votes 1:1, 1 tie") as refused:
        read(row)
    assert refused.value.reason == "tie"


def test_the_best_of_three_is_better_than_each_other_and_says_nothing_of_the_others():
    reading = read({"fields": FIELDS, "responses": {"best": said("response-2")}}, "all")
    assert sides(reading) == [("two", "one"), ("two", "three")]
    assert reading.num_ties == 0


@pytest.mark.parametrize("question", ["rating-{}", "response-{}-rating", "quality_response_{}"])
def test_ratings_of_single_completions_are_scores(question):
    answers = {question.format(1): said(2, 3), question.format(2): said(5, 4), "rating-overall": said(1)}
    (pair,) = read({"fields": TWO, "responses": answers | {"comment": said("fine")}}).pairs
    assert (pair.chosen.content, pair.preference.chosen_score, pair.preference.rejected_score) == ("two", 4.5, 2.5)
    assert pair.preference.votes == (Vote("chosen", "user 0"), Vote("chosen", "user 1"))


def test_annotators_without_a_name_are_not_taken_for_one():
    unnamed = [{"value": 1}, {"value": 5}], [{"value": 4}, {"value": 1}]
    with pytest.raises(RowError, match="votes 1:1, 0 ties"):
        read({"fields": TWO, "responses": {"rating-1": unnamed[0], "rating-2": unnamed[1]}})


def test_questions_that_are_not_of_a_completion_are_no_ratings():
    with pytest.raises(RowError) as refused:
        read({"fields": TWO, "responses": {"question-1": said(1), "question-2": said(5)}})
    assert refused.value.reason == "no_completion"


def test_a_conversation_may_be_the_prompt():
    talk = [
        {"role": "user", "content": "Why?"},
        {"role": "assistant", "content": "So."},
        {"role": "user", "content": "?"},
    ]
    row = {"fields": {"chat": talk, "reply_a": "one", "reply_b": "two"}, "responses": {"best": said("reply_a")}}
    assert len(read(row).pairs[0].prompt) == 3
    assert sides(read(row)) == [("one", "two")]


def test_completions_without_text_take_no_part():
    row = {"fields": FIELDS | {"response-2": None}, "responses": {"rank": said(ranks(3, 1, 2))}}
    assert sides(read(row, "all")) == [("three", "one")]


@pytest.mark.parametrize("name", ["system", "system-prompt", "system_prompt"])
def test_a_field_of_the_system_text_comes_first(name):
    row = {"fields": FIELDS | {name: "Be brief."}, "responses": {"rank": said(["response-2", "response-1"])}}
    assert read(row).pairs[0].prompt == (Message("system", "Be brief."), Message("user", "Why?"))
