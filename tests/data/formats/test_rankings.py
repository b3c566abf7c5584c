"""Rows whose completions are ranked."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiebreak.data.formats import Pairing, RowError, detect, read_row
from tiebreak.records import Source

HERE = Source("rows.jsonl", 1)
ROW = {"prompt": "Why?", "completions": ["a", "b", "c"], "ranking": [2, 3, 1]}


def read(row, choose="best_worst"):
    return read_row(row, detect(row), HERE, Pairing(choose))


def sides(reading):
    return [(pair.chosen.content, pair.rejected.content) for pair in reading.pairs]


def test_a_number_is_the_rank_of_its_completion_and_the_lowest_is_the_best():
    assert detect(ROW).name == "ranking"
    assert sides(read(ROW)) == [("c", "b")]
    assert sides(read(ROW, "all")) == [("a", "b"), ("c", "a"), ("c", "b")]


@pytest.mark.parametrize("name", ["ranking", "ranks", "rank"])
def test_the_pairs_of_one_ranking_weigh_as_much_as_one_pair(name):
    pairs = read({"prompt": "Why?", "completions": list("abcd"), name: [1, 2, 3, 4]}, "all").pairs
    assert len(pairs) == 6
    assert sum(pair.preference.weight for pair in pairs) == pytest.approx(1)
    assert pairs[0].preference.chosen_score is None


def test_equal_ranks_are_ties():
    reading = read(ROW | {"ranking": [1, 1, 2]}, "all")
    assert sides(reading) == [("a", "c"), ("b", "c")]
    assert reading.num_ties == 1


def test_ranks_may_stand_in_the_completions_themselves():
    answers = [{"answer": "b", "model": "x", "rank": 2.0}, {"answer": "a", "model": "y", "rank": 1.0}]
    row = {"prompt": "Why?", "answers": answers}
    assert detect(row).name == "ranking"
    assert sides(read(row)) == [("a", "b")]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (ROW | {"ranking": [1, 1, 1]}, "tie"),
        (ROW | {"ranking": [1, 2]}, "wrong_type"),
        (ROW | {"ranking": ["a", "b", "c"]}, "wrong_type"),
        (ROW | {"ranking": [True, False, True]}, "wrong_type"),
        (ROW | {"ranking": "a > b > c"}, "wrong_type"),
        (ROW | {"ranking": [1, None, None]}, "no_completion"),
        (ROW | {"completions": [" ", "b", ""]}, "no_completion"),
    ],
)
def test_what_cannot_be_used_is_refused_with_a_reason(row, reason):
    with pytest.raises(RowError) as refused:
        read(row)
    assert refused.value.reason == reason


@given(st.lists(st.integers(1, 6), min_size=2, max_size=7).filter(lambda ranks: len(set(ranks)) > 1))
def test_no_pair_contradicts_its_ranking(ranks):
    texts = [f"completion {index}" for index in range(len(ranks))]
    row = {"prompt": "Why?", "completions": texts, "ranking": ranks}
    rank_of = dict(zip(texts, ranks, strict=True))
    everything = read(row, "all")
    assert all(rank_of[chosen] < rank_of[rejected] for chosen, rejected in sides(everything))
    assert len(everything.pairs) + everything.num_ties == len(ranks) * (len(ranks) - 1) / 2
    assert set(sides(read(row))) | set(sides(read(row, "best_random"))) <= set(sides(everything))
