"""The forms of judged completions beside all others: one form a row, and no row that breaks a reader."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bounds import hang_after
from tiebreak.data.formats import FORMATS, Pairing, RowError, read_row
from tiebreak.data.formats.candidates import completion, score_of, sides_of
from tiebreak.records import Message, Source

HERE = Source("rows.jsonl", 1)
USER, GOOD = {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}
ROWS = {
    "labelstudio": {"data": {"prompt": "Why?", "answer1": "a", "answer2": "b"},
                    "annotations": [{"result": [{"value": {"selected": "left"}}]}]},
    "labelstudio_min": {"prompt": "Why?", "answer1": "a", "answer2": "b", "comparison": [{"selected": "left"}]},
    "argilla": {"fields": {"prompt": "Why?", "response-1": "a", "response-2": "b"},
                "responses": {"best": [{"value": "response-1"}]}},
    "ultrafeedback": {"instruction": "Why?", "completions": [{"response": "a", "fine-grained_score": 2.0},
                                                             {"response": "b", "fine-grained_score": 1.0}]},
    "distilabel": {"instruction": "Why?", "generations": ["a", "b"], "ratings": [2, 1]},
    "ratings": {"prompt": "Why?", "completions": ["a", "b"], "scores": [2, 1]},
    "ranking": {"prompt": "Why?", "completions": ["a", "b"], "ranking": [1, 2]},
    "arena": {"conversation_a": [USER, GOOD], "conversation_b": [USER, GOOD | {"content": "b"}], "winner": "model_a"},
    "helpsteer": {"prompt": "Why?", "response_1": "a", "response_2": "b", "preference_strength": -1},
    "votes": {"instruction": "Why?", "input": "", "response1": "a", "response2": "b", "votes": [1]},
    "thumbs": {"prompt": "Why?", "completion": "a", "label": True},
    "labelled_dialogue": {"messages": [USER, GOOD], "label": False},
    "chatlog": {"messages": [USER, GOOD | {"feedback": "up"}]},
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_no_other_form_takes_a_row_of_this_one(name):
    assert [form.name for form in FORMATS.values() if form.matches(ROWS[name])] == [name]
    reading = read_row(ROWS[name], FORMATS[name], HERE)
    assert len(reading.pairs) + len(reading.thumbs) == 1
    assert pickle.loads(pickle.dumps(FORMATS[name])) == FORMATS[name]


@pytest.mark.parametrize("name", ROWS)
def test_a_row_that_names_its_chosen_and_rejected_is_never_a_row_of_judged_completions(name):
    row = ROWS[name] | {"chosen": "yes", "rejected": "no"}
    assert not FORMATS[name].matches(row)


COLUMNS = sorted(
    {key for row in ROWS.values() for key in row} | {"answers", "rank", "output", "tools", "system", "turns"}
)
INNER = ["role", "content", "from", "value", "feedback", "regenerations", "edited", "original", "rank", "score", "text",
         "response", "annotations", "overall_score", "selected", "result", "was_cancelled", "ranker", "user_id",
         "status", "response-1", "response-2", "annotator", "vote", "id"]  # fmt: skip
WORDS = ["Why?", "", " ", "user", "assistant", "human", "gpt", "tie", "left", "up", "submitted", "response-1", "\ud800"]
SCALARS = st.none() | st.booleans() | st.integers(-3, 5) | st.floats() | st.sampled_from(WORDS)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(INNER), inner, max_size=4),
    max_leaves=12,
)
MUTATED = st.sampled_from(sorted(ROWS)).flatmap(
    lambda name: st.dictionaries(st.sampled_from(sorted(ROWS[name])), VALUES, max_size=3).map(
        lambda changes: ROWS[name] | changes
    )
)


@settings(max_examples=300)
@given(st.dictionaries(st.sampled_from(COLUMNS), VALUES, max_size=6) | MUTATED, st.sampled_from(["best_worst", "all"]))
def test_every_row_is_read_or_refused_with_a_reason(row, choose):
    for form in FORMATS.values():
        if form.name in ROWS and form.matches(row):
            try:
                reading = read_row(row, form, HERE, Pairing(choose))
            except RowError as refused:
                assert refused.reason
                continue
            assert reading.pairs or reading.thumbs


def test_long_text_is_read_in_linear_time():
    long = "-_ a1 " * 200_000
    for name in ("votes", "labelstudio_min", "thumbs"):
        row = {key: long if isinstance(value, str) and value else value for key, value in ROWS[name].items()}
        row |= {long: 1, "winner": long, "label": long}
        with hang_after(), pytest.raises(RowError):
            read_row(row, FORMATS[name], HERE)
    row = ROWS["argilla"] | {"fields": {"prompt": long, "response-1": "a", "response-2": "b", long: long}}
    row["responses"] = {long: [{"value": long}], "best": [{"value": "response-1"}]}
    with hang_after():
        assert read_row(row, FORMATS["argilla"], HERE).pairs


@pytest.mark.parametrize("value", ["a", {"text": "a"}, {"content": "a"}, {"role": "assistant", "content": "a"}])
def test_a_completion_is_text_or_an_object_or_a_message(value):
    assert completion(value, "x") == Message("assistant", "a")


def test_a_score_is_a_finite_number_however_it_is_told():
    told = {3: 3.0, "4.5": 4.5, True: 1.0, " 7 ": 7.0, "N/A": None, "nan": None, "inf": None, "": None, 1e300: None}
    assert {value: score_of(value) for value in told} == told
    assert score_of([1]) is score_of(None) is score_of(10**400) is score_of("9" * 5000) is None


def test_the_two_completions_have_matching_names():
    assert sides_of({"response_1": "", "response_b": ""}) is None
    assert sides_of({"response_b": "", "response_a": ""}) == ("response_a", "response_b")
