"""Judged completions to pairs: who wins, what is a tie, what `Pairing` takes, what pairs weigh."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiebreak.data.formats import Pairing, RowError
from tiebreak.data.formats.pairing import MAX_COMPLETIONS, Ballot, Judged, pairs_of, soft_label
from tiebreak.records import Message, Vote

PROMPT = (Message("user", "Why?"),)
ALL = Pairing("all")


def judged(*ballots, texts=None, **kinds):
    ballots = [ballot if isinstance(ballot, Ballot) else Ballot(tuple(ballot)) for ballot in ballots]
    texts = texts or [f"completion {index}" for index in range(len(ballots[0].scores))]
    return Judged(PROMPT, tuple(Message("assistant", text) for text in texts), tuple(ballots), **kinds)


def sides(reading):
    return [(pair.chosen.content[-1], pair.rejected.content[-1]) for pair in reading.pairs]


SCORES = st.lists(st.integers(-5, 5).map(float), min_size=2, max_size=7)
BALLOTS = st.integers(2, 5).flatmap(
    lambda width: st.lists(
        st.lists(st.none() | st.integers(0, 3).map(float), min_size=width, max_size=width), min_size=1, max_size=5
    )
)


@given(SCORES)
def test_every_pair_of_unequal_scores_is_won_and_every_equal_one_is_a_tie(scores):
    couples = list(combinations(scores, 2))
    ties = sum(one == other for one, other in couples)
    if ties == len(couples):
        with pytest.raises(RowError) as refused:
            pairs_of(judged(scores, is_scored=True), ALL)
        assert refused.value.reason == "tie"
        return
    reading = pairs_of(judged(scores, is_scored=True), ALL)
    assert len(reading.pairs) == len(couples) - ties
    assert reading.num_ties == ties
    for pair in reading.pairs:
        stated = pair.preference
        assert stated.chosen_score > stated.rejected_score
        assert stated.margin == stated.chosen_score - stated.rejected_score
        assert scores[int(pair.chosen.content[-1])] == stated.chosen_score
        assert scores[int(pair.rejected.content[-1])] == stated.rejected_score


@given(st.lists(st.integers(-100, 100).map(float), min_size=2, max_size=8, unique=True))
def test_k_different_scores_give_k_times_k_minus_1_over_2_pairs_that_weigh_one(scores):
    pairs = pairs_of(judged(scores, is_scored=True), ALL).pairs
    assert len(pairs) == len(scores) * (len(scores) - 1) / 2
    assert sum(pair.preference.weight for pair in pairs) == pytest.approx(1)
    assert len({pair.preference.weight for pair in pairs}) == 1


@given(
    SCORES.filter(lambda scores: len(set(scores)) > 1), st.sampled_from(["best_worst", "best_second", "best_random"])
)
def test_a_single_pair_is_one_of_all_pairs_and_has_the_best_completion(scores, choose):
    everything = pairs_of(judged(scores, is_scored=True), ALL)
    reading = pairs_of(judged(scores, is_scored=True), Pairing(choose))
    (pair,) = reading.pairs
    assert pair.pair_id in {other.pair_id for other in everything.pairs}
    assert reading.num_ties == everything.num_ties
    assert pair.preference.chosen_score == max(scores)
    assert pair.chosen.content == f"completion {scores.index(max(scores))}"
    assert pair.preference.weight == 1
    if choose == "best_worst":
        assert pair.rejected.content == f"completion {scores.index(min(scores))}"
    if choose == "best_second":
        second = max(score for score in scores if score < max(scores))
        assert pair.rejected.content == f"completion {scores.index(second)}"


@given(BALLOTS, st.sampled_from(["best_worst", "best_second", "best_random", "all"]))
def test_no_pair_is_against_the_majority_of_its_ballots(ballots, choose):
    try:
        reading = pairs_of(judged(*ballots, is_voted=True), Pairing(choose))
    except RowError as refused:
        assert refused.reason in ("tie", "no_completion")
        return
    for pair in reading.pairs:
        chosen, rejected = int(pair.chosen.content[-1]), int(pair.rejected.content[-1])
        both = [row for row in ballots if row[chosen] is not None and row[rejected] is not None]
        wins = sum(row[chosen] > row[rejected] for row in both)
        losses = sum(row[chosen] < row[rejected] for row in both)
        assert wins > losses
        assert [vote.choice for vote in pair.preference.votes].count("chosen") == wins
        assert [vote.choice for vote in pair.preference.votes].count("rejected") == losses
        assert len(pair.preference.votes) == len(both)
        assert pair.preference.soft_label == pytest.approx((wins + (len(both) - wins - losses) / 2) / len(both))
        assert pair.preference.soft_label > 0.5


@given(BALLOTS)
def test_pairs_and_ties_add_up_to_the_comparisons_that_somebody_made(ballots):
    made = sum(
        any(row[one] is not None and row[other] is not None for row in ballots)
        for one, other in combinations(range(len(ballots[0])), 2)
    )
    try:
        reading = pairs_of(judged(*ballots), ALL)
    except RowError as refused:
        assert refused.reason == ("tie" if made else "no_completion")
        return
    assert len(reading.pairs) + reading.num_ties == made


@given(BALLOTS)
def test_the_order_of_the_completions_changes_no_preference(ballots):
    turned = [row[::-1] for row in ballots]
    texts = [f"completion {index}" for index in range(len(ballots[0]))]
    try:
        pairs = pairs_of(judged(*ballots, is_voted=True), ALL).pairs
    except RowError as refused:
        with pytest.raises(RowError) as again:
            pairs_of(judged(*turned, texts=texts[::-1], is_voted=True), ALL)
        assert again.value.reason == refused.reason
        return
    others = pairs_of(judged(*turned, texts=texts[::-1], is_voted=True), ALL).pairs
    assert {(pair.pair_id, pair.preference) for pair in pairs} == {(pair.pair_id, pair.preference) for pair in others}


def test_the_first_of_several_best_and_of_several_worst_is_taken():
    scores = [1.0, 5.0, 5.0, 1.0]
    assert sides(pairs_of(judged(scores, is_scored=True), Pairing())) == [("1", "0")]
    assert pairs_of(judged(scores, is_scored=True), Pairing()).num_ties == 2


def test_a_random_other_is_worse_than_the_best_and_the_same_each_time():
    scores = [float(score) for score in range(9)]
    found = {}
    for number in range(40):
        record = judged(scores, is_scored=True)
        record = Judged((Message("user", f"prompt {number}"),), record.completions, record.ballots, is_scored=True)
        found[number] = sides(pairs_of(record, Pairing("best_random")))
        assert found[number] == sides(pairs_of(record, Pairing("best_random")))
        assert found[number][0][0] == "8"
    assert len({other for ((_, other),) in found.values()}) > 4


def test_a_difference_below_the_smallest_margin_is_a_tie_and_one_equal_to_it_is_none():
    scores = [0.3, 0.1, 0.0]
    reading = pairs_of(judged(scores, is_scored=True), Pairing("all", min_margin=0.2))
    assert sides(reading) == [("0", "1"), ("0", "2")]
    assert reading.num_ties == 1
    with pytest.raises(RowError, match=r"nobody won by 0\.5: 3 of 3 comparisons are ties") as refused:
        pairs_of(judged(scores, is_scored=True), Pairing(min_margin=0.5))
    assert refused.value.reason == "tie"


def test_the_smallest_margin_says_nothing_of_ranks_and_votes():
    assert len(pairs_of(judged([-1.0, -2.0]), Pairing(min_margin=5)).pairs) == 1
    assert len(pairs_of(judged([1.0, 0.0], is_voted=True), Pairing(min_margin=5)).pairs) == 1


def test_completions_that_are_the_same_make_no_pair():
    reading = pairs_of(judged([3.0, 2.0, 1.0], texts=["a", "a", "b"], is_scored=True), ALL)
    assert sides(reading) == [("a", "b"), ("a", "b")]
    assert reading.num_ties == 1
    best = pairs_of(judged([3.0, 2.0, 1.0], texts=["a", "b", "a"], is_scored=True), Pairing())
    assert sides(best) == [("a", "b")]
    with pytest.raises(RowError) as refused:
        pairs_of(judged([3.0, 2.0], texts=["a", "a"], is_scored=True), Pairing())
    assert refused.value.reason == "identical"


def test_more_wins_than_losses_decide_and_ties_count_to_neither():
    votes = [[1.0, 0.0], [0.0, 0.0], [0.0, 0.0]]
    (pair,) = pairs_of(judged(*votes, is_voted=True), Pairing()).pairs
    assert sides(pairs_of(judged(*votes, is_voted=True), Pairing())) == [("0", "1")]
    assert [vote.choice for vote in pair.preference.votes] == ["chosen", "tie", "tie"]
    assert pair.preference.soft_label == pytest.approx(2 / 3)
    with pytest.raises(RowError, match="votes 1:1, 1 tie") as refused:
        pairs_of(judged([1.0, 0.0], [0.0, 1.0], [0.0, 0.0], is_voted=True), Pairing())
    assert refused.value.reason == "tie"


def test_a_majority_against_the_mean_score_decides_nothing():
    with pytest.raises(RowError) as refused:
        pairs_of(judged([2.0, 1.0], [2.0, 1.0], [1.0, 9.0], is_scored=True, is_voted=True), Pairing())
    assert refused.value.reason == "tie"


def test_scores_of_several_judges_are_averaged_over_those_who_compared_both():
    record = judged([4.0, 2.0], [5.0, 2.0], [None, 5.0], is_scored=True, is_voted=True)
    (pair,) = pairs_of(record, Pairing()).pairs
    assert (pair.preference.chosen_score, pair.preference.rejected_score, pair.preference.margin) == (4.5, 2.0, 2.5)
    assert len(pair.preference.votes) == 2


def test_votes_keep_the_names_of_who_cast_them():
    record = judged(Ballot((1.0, 0.0), "ann"), Ballot((0.0, 0.0), "ben"), is_voted=True)
    (pair,) = pairs_of(record, Pairing()).pairs
    assert pair.preference.votes == (Vote("chosen", "ann"), Vote("tie", "ben"))


def test_ranks_and_votes_are_no_scores():
    (pair,) = pairs_of(judged([-1.0, -2.0]), Pairing()).pairs
    assert pair.preference.chosen_score is None
    assert pair.preference.margin is None
    assert pair.preference.votes == ()


def test_one_judged_completion_is_no_comparison():
    with pytest.raises(RowError) as refused:
        pairs_of(judged([3.0], is_scored=True), Pairing())
    assert refused.value.reason == "no_completion"


def test_a_record_with_too_many_completions_is_refused():
    with pytest.raises(RowError) as refused:
        pairs_of(judged([float(score) for score in range(MAX_COMPLETIONS + 1)], is_scored=True), Pairing())
    assert refused.value.reason == "too_many_completions"


def test_a_tie_is_half_a_vote():
    assert soft_label([Vote("chosen"), Vote("tie"), Vote("rejected"), Vote("chosen")]) == 0.625
