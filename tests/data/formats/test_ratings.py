"""Rows whose completions have scores."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiebreak.data.formats import Pairing, RowError, detect, read_row
from tiebreak.records import Message, Source

HERE = Source("rows.jsonl", 1)


def read(row, choose="best_worst", min_margin=0.0):
    return read_row(row, detect(row), HERE, Pairing(choose, min_margin))


def facts(pair):
    return pair.chosen.content, pair.rejected.content, pair.preference.chosen_score, pair.preference.rejected_score


def reason_of(row, **pairing):
    with pytest.raises(RowError) as refused:
        read(row, **pairing)
    return refused.value.reason


def aspects(*ratings):
    names = ("instruction_following", "honesty", "truthfulness", "helpfulness")
    return {name: {"Rating": rating, "Rationale": "…"} for name, rating in zip(names, ratings, strict=False)}


def ultrafeedback(*completions):
    return {"source": "sharegpt", "instruction": "Why?", "models": ["a", "b"], "completions": list(completions)}


def test_the_overall_score_of_ultrafeedback_comes_first():
    row = ultrafeedback(
        {
            "model": "a",
            "response": "good",
            "overall_score": 8.0,
            "fine-grained_score": 1.0,
            "annotations": aspects("1"),
        },
        {"model": "b", "response": "bad", "overall_score": 2.5, "fine-grained_score": 5.0, "annotations": aspects("5")},
    )
    assert detect(row).name == "ultrafeedback"
    (pair,) = read(row).pairs
    assert facts(pair) == ("good", "bad", 8.0, 2.5)
    assert pair.preference.margin == 5.5
    assert pair.prompt == (Message("user", "Why?"),)
    assert pair.origin.dataset == "sharegpt"
    assert pair.source == HERE


def test_the_fine_grained_score_and_the_mean_of_the_aspects_stand_in_for_it():
    fine = {"response": "fine", "fine-grained_score": 3.5, "annotations": aspects("1", "1")}
    mean = {"response": "mean", "annotations": aspects("5", "4", "N/A", "4")}
    (pair,) = read(ultrafeedback(fine, mean)).pairs
    assert facts(pair) == ("mean", "fine", pytest.approx(13 / 3), 3.5)


def test_completions_without_text_or_without_a_score_take_no_part():
    row = ultrafeedback(
        {"response": "good", "overall_score": 8.0},
        {"response": " ", "overall_score": 1.0},
        {"response": "unjudged", "overall_score": None, "annotations": aspects("N/A")},
        {"response": "bad", "overall_score": 2.0},
    )
    assert [facts(pair)[:2] for pair in read(row, "all").pairs] == [("good", "bad")]
    row["completions"] = row["completions"][:3]
    assert reason_of(row) == "no_completion"


LISTS = {"prompt": "Why?", "completions": ["a", "b", "c", "d"], "scores": [3, 1, 3, 2]}


def test_lists_of_completions_and_scores_are_read():
    assert detect(LISTS).name == "ratings"
    reading = read(LISTS)
    assert [facts(pair) for pair in reading.pairs] == [("a", "b", 3.0, 1.0)]
    assert reading.num_ties == 1
    pairs = read(LISTS, "all").pairs
    assert [facts(pair)[:2] for pair in pairs] == [("a", "b"), ("a", "d"), ("c", "b"), ("c", "d"), ("d", "b")]
    assert {pair.preference.weight for pair in pairs} == {1 / 5}


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Why?", "responses": ["a", "b"], "ratings": ["4", "2.5"]},
        {"question": "Why?", "answers": ["b", "a"], "rewards": [-1.5, 0.25]},
        {"prompt": [{"role": "user", "content": "Why?"}], "completions": [
            [{"role": "assistant", "content": "a"}], {"role": "assistant", "content": "b"}], "scores": [True, False]},
        {"prompt": "Why?", "candidates": [{"text": "a", "score": 2}, {"text": "b", "score": 1}]},
        {"prompt": "Why?", "completions": [{"content": "b", "rating": 1}, {"content": "a", "rating": 5}]},
    ],
)  # fmt: skip
def test_other_names_and_shapes_of_the_same_lists_are_read(row):
    assert detect(row).name == "ratings"
    assert facts(read(row).pairs[0])[:2] == ("a", "b")
    assert read(row).pairs[0].prompt == (Message("user", "Why?"),)


def test_distilabel_skips_ratings_and_generations_that_are_null():
    row = {
        "instruction": "Why?", "system_prompt": "Be brief.", "generation_models": ["x", "y", "z", "w"],
        "generations": ["good", "bad", "lost", None], "ratings": [5.0, 2.0, None, 1.0],
    }  # fmt: skip
    assert detect(row).name == "distilabel"
    reading = read(row, "all")
    assert [facts(pair) for pair in reading.pairs] == [("good", "bad", 5.0, 2.0)]
    assert reading.pairs[0].prompt == (Message("system", "Be brief."), Message("user", "Why?"))
    assert detect(row | {"chosen": [], "rejected": []}).name == "trl"


def test_an_instruction_goes_with_its_input():
    row = {"instruction": "Translate.", "input": "Bonjour", "completions": ["a", "b"], "scores": [1, 2]}
    assert read(row).pairs[0].prompt == (Message("user", "Translate.\nBonjour"),)


def test_scores_that_are_all_equal_are_a_tie():
    assert reason_of(LISTS | {"scores": [2, 2, 2, 2]}) == "tie"
    assert reason_of(LISTS, min_margin=2.5) == "tie"


def test_tools_stay_with_the_prompt():
    tools = [{"type": "function", "function": {"name": "look_up"}}]
    assert read(LISTS | {"tools": tools}).pairs[0].tools == tuple(tools)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (LISTS | {"scores": [1, 2]}, "wrong_type"),
        (LISTS | {"scores": "high"}, "wrong_type"),
        (LISTS | {"completions": [True, "b", "c", "d"]}, "wrong_type"),
        (LISTS | {"completions": [["a"], "b", "c", "d"]}, "wrong_type"),
        (LISTS | {"completions": [[{"role": "user", "content": "a"}], "b", "c", "d"]}, "no_completion"),
        (LISTS | {"completions": ["a"], "scores": [1]}, "no_completion"),
        (LISTS | {"scores": [float("nan"), float("inf"), 10**400, 1]}, "no_completion"),
        (LISTS | {"prompt": 3}, "wrong_type"),
        (LISTS | {"prompt": ""}, "empty_turn"),
    ],
)
def test_what_cannot_be_used_is_refused_with_a_reason(row, reason):
    assert reason_of(row) == reason


@given(st.lists(st.floats() | st.none() | st.integers() | st.text(max_size=5), min_size=2, max_size=6))
def test_any_scores_give_finite_preferences_or_a_reason(scores):
    row = {"prompt": "Why?", "completions": [f"completion {i}" for i in range(len(scores))], "scores": scores}
    try:
        pairs = read(row, "all").pairs
    except RowError as refused:
        assert refused.reason in ("tie", "no_completion")
        return
    for pair in pairs:
        assert pair.preference.chosen_score > pair.preference.rejected_score
        assert pair.preference.margin > 0
