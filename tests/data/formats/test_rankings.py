"""Rows whose completions are ranked."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiebreak.data.formats import Pairing, RowError, detect, read_row
from tiebreak.data.whole import read_pairs
from tiebreak.errors import DataError
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


def saved(tmp_path, lists, name="ranking"):
    path = tmp_path / "rows.jsonl"
    rows = [{"prompt": f"{n}?", "completions": list("abcd"[: len(one)]), name: one} for n, one in enumerate(lists)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("told", [int, float, str])
def test_a_ranking_that_may_be_places_is_asked_about_and_read_as_either(tmp_path, first, told):
    # To one reading b is the best, then c, then a; to the other c is the best, then a, then b.
    path = saved(tmp_path, [[told(place + first) for place in (2, 0, 1)], [told(place + first) for place in (0, 1)]])
    with pytest.raises(
        DataError, match=rf"counts from {first} .* For ranks: .* -c ranking=ranking; for places: .* -c ord"
    ):
        read_pairs(path)
    mapping = {"prompt": "prompt", "completions": "completions"}
    for key, sides_of_first in (("ranking", ("b", "a")), ("order", ("c", "b"))):
        pair = read_pairs(path, columns=mapping | {key: "ranking"}).pairs[0]
        assert (pair.chosen.content, pair.rejected.content) == sides_of_first


RANKS = {
    "both readings are the same": ("ranking", [[2, 1, 3], [1, 2], [3, 2, 1]]),
    "a tie proves ranks": ("ranking", [[2, 3, 1], [1, 1, 2]]),
    "a gap proves ranks": ("ranking", [[2, 3, 1], [1, 2, 4]]),
    "a completion without a rank": ("ranking", [[2, 3, 1], [1, None, 2]]),
    "a column of ranks": ("ranks", [[2, 3, 1], [3, 1, 2]]),
    "a column of each rank": ("rank", [[2, 3, 1], [3, 1, 2]]),
}


@pytest.mark.parametrize(("name", "lists"), RANKS.values(), ids=RANKS)
def test_what_can_only_be_ranks_is_read(tmp_path, name, lists):
    pairs = read_pairs(saved(tmp_path, lists, name)).pairs
    for pair, ranks in zip(pairs, lists, strict=True):
        known = {text: rank for text, rank in zip("abcd", ranks, strict=False) if rank is not None}
        assert known[pair.chosen.content] == min(known.values())
        assert known[pair.rejected.content] == max(known.values())
