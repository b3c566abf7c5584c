"""A verdict or scores beside what says who won already: ties are dropped, and who contradicts is asked about."""

from __future__ import annotations

import json
import re
import shlex

import pytest

from tiebreak.data.whole import read_pairs
from tiebreak.errors import DataError

GOOD, BAD = "The good one.", "The bad one."


@pytest.fixture
def saved(tmp_path):
    def save(make, num=12):
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps({"prompt": f"Is it {n}?"} | make(n)) + "\n" for n in range(num)))
        return path

    return save


def pair(chosen=GOOD, rejected=BAD, keys=("chosen", "rejected")):
    return dict(zip(keys, (chosen, rejected), strict=True))


def sides(turned):
    return pair(*((BAD, GOOD) if turned else (GOOD, BAD)), keys=("response_a", "response_b"))


def texts(found):
    return {(pair.chosen.content, pair.rejected.content) for pair in found.pairs}


TIES = {
    "a status": lambda n: pair() | {"status": "tie" if n % 2 else "unchanged"},
    "a winner": lambda n: pair() | {"winner": "tie" if n % 2 else "model_a"},
    "words": lambda n: pair() | {"verdict": "No preference" if n % 2 else "chosen"},
    "other columns": lambda n: pair(keys=("preferred", "dispreferred")) | {"label": "draw" if n % 2 else "x"},
    "an instruction": lambda n: pair() | {"prompt": None, "instruction": f"{n}?", "outcome": "tie" if n % 2 else ""},
}  # fmt: skip


@pytest.mark.parametrize("make", TIES.values(), ids=TIES)
def test_what_is_called_a_tie_beside_the_pair_is_dropped_as_one(saved, make):
    found = read_pairs(saved(make))
    assert (len(found.pairs), texts(found), found.reasons) == (6, {(GOOD, BAD)}, {"tie": 6})


def printed(question):
    found = re.findall(r"(?:-c (?:'[^']*'|[^ ;,]+) ?)+", question)
    return [dict(word.split("=", 1) for word in shlex.split(options)[1::2]) for options in found]


APART = {
    "the word rejected": lambda n: (
        pair(*((BAD, GOOD) if n % 2 else (GOOD, BAD))) | {"preference": "rejected" if n % 2 else "chosen"}
    ),
    "a letter of a side": lambda n: (
        pair(*((BAD, GOOD) if n % 2 else (GOOD, BAD))) | sides(n % 3) | {"winner": "B" if n % 3 else "A"}
    ),
    "a model": lambda n: (
        pair(*((BAD, GOOD) if n % 2 else (GOOD, BAD)))
        | sides(n % 3)
        | {"model_a": "x1", "model_b": "x2", "winner": "x2" if n % 3 else "x1"}
    ),
}


@pytest.mark.parametrize("make", APART.values(), ids=APART)
def test_a_verdict_for_the_rejected_side_is_asked_about_and_either_is_read(saved, make):
    path = saved(make)
    with pytest.raises(DataError, match="names the rejected side in 6 of 12 rows") as asked:
        read_pairs(path)
    by_sides, by_verdict = printed(str(asked.value))
    assert texts(read_pairs(path, columns=by_sides)) == {(GOOD, BAD), (BAD, GOOD)}
    assert texts(read_pairs(path, columns=by_verdict)) == {(GOOD, BAD)}


def test_one_row_that_contradicts_is_refused_for_itself(saved):
    found = read_pairs(saved(lambda n: pair() | {"preference": "rejected" if n == 5 else "chosen"}))
    assert (len(found.pairs), found.reasons) == (11, {"wrong_type": 1})


BESIDE = {
    "numbers": {"label": 0}, "numbers as text": {"label": "0"}, "other words": {"status": "swapped"},
    "a letter of nothing": {"winner": "B"}, "the text": {"best": GOOD}, "a comment": {"judgement": "both? " * 20},
}  # fmt: skip


@pytest.mark.parametrize("more", BESIDE.values(), ids=BESIDE)
def test_what_says_nothing_of_the_pair_is_left_alone(saved, more):
    assert len(read_pairs(saved(lambda _: pair() | more)).pairs) == 12


def test_of_two_verdicts_that_seldom_disagree_the_first_is_read(saved):
    def make(n):
        return sides(n % 2) | {"winner": "B" if n % 2 else "A", "choice": "B" if n % 2 or n == 4 else "A"}

    found = read_pairs(saved(make))
    assert (len(found.pairs), texts(found)) == (12, {(GOOD, BAD)})


def against(turned):
    return {"score_a": 9 if turned else 1, "score_b": 1 if turned else 9}


def test_scores_against_the_winner_are_asked_about_and_either_is_read(saved):
    path = saved(lambda n: sides(n % 2) | {"winner": "B" if n % 2 else "A"} | against(n % 2))
    with pytest.raises(DataError, match=r"'winner' and the higher one of 'score_a' and 'score_b' .* 12 of 12") as asked:
        read_pairs(path)
    by_winner, by_scores = printed(str(asked.value))
    assert texts(read_pairs(path, columns=by_winner)) == {(GOOD, BAD)}
    assert texts(read_pairs(path, columns=by_scores)) == {(BAD, GOOD)}


def test_scores_beside_a_winner_stand_on_the_pair_also_where_one_is_against_it(saved):
    path = saved(lambda n: sides(n % 2) | {"winner": "B" if n % 2 else "A"} | against(n % 2 if n == 3 else not n % 2))
    found = read_pairs(path)
    scores = [(pair.preference.chosen_score, pair.preference.rejected_score) for pair in found.pairs]
    assert (scores[3], set(scores[:3] + scores[4:]), texts(found)) == ((1, 9), {(9, 1)}, {(GOOD, BAD)})
