"""A verdict or scores beside what says who won already: ties are dropped, and who contradicts is asked about."""

from __future__ import annotations

import json
import re
import shlex

import pytest

from asked import answers
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


NUMBERS = {"from zero": (0, 1), "texts": ("0", "1"), "from one": (1, 2), "signs": (-1, 1), "floats": (0.0, 1.0)}
BARE = {
    "two texts": lambda n, first, second: pair(first, second),
    "of other names": lambda n, first, second: pair(first, second, ("chosen_response", "rejected_response")),
    "OpenAI's form": lambda n, first, second: {
        "prompt": None,
        "input": {"messages": [{"role": "user", "content": f"Is it {n}?"}]},
        "preferred_output": [{"role": "assistant", "content": first}],
        "non_preferred_output": [{"role": "assistant", "content": second}],
    },
}


@pytest.mark.parametrize("numbers", [*NUMBERS.values(), (False, True)], ids=str)
@pytest.mark.parametrize("make", BARE.values(), ids=BARE)
def test_numbers_beside_a_pair_that_may_name_its_sides_are_asked_about_and_each_is_read(saved, make, numbers):
    path = saved(lambda n: make(n, *((BAD, GOOD) if n % 3 else (GOOD, BAD))) | {"label": numbers[n % 3 == 0]})
    with pytest.raises(DataError, match="may say which of") as asked:
        read_pairs(path)
    as_it_is, high, low = (read_pairs(path, columns=columns) for columns in answers(asked.value))
    assert texts(as_it_is) == {(GOOD, BAD), (BAD, GOOD)}
    assert texts(high) == {(GOOD, BAD)}
    assert texts(low) == {(BAD, GOOD)}


def test_a_number_for_a_tie_is_asked_about_as_one(saved):
    for numbers in ((0, 1, 2), (0, 1, -1)):
        path = saved(lambda n, told=numbers: pair() | {"preference": told[n % 3]})
        with pytest.raises(DataError, match="may say which of") as asked:
            read_pairs(path)
        _, *ways = (read_pairs(path, columns=columns) for columns in answers(asked.value))
        assert {str(way.reasons) for way in ways} == {"{'tie': 4}"}
        ties = {columns["winner.tie"] for columns in answers(asked.value)[1:]}
        assert ties == ({"0", "2"} if 2 in numbers else {"0"})


def test_dialogues_and_texts_without_a_prompt_are_asked_about_too(saved):
    def said(text):
        return [{"role": "user", "content": "Is it?"}, {"role": "assistant", "content": text}]

    path = saved(lambda n: pair(said(GOOD), said(BAD)) | {"prompt": None, "label": n % 2})
    with pytest.raises(DataError, match="may say which of") as asked:
        read_pairs(path)
    (as_it_is,) = (read_pairs(path, columns=columns) for columns in answers(asked.value))
    assert texts(as_it_is) == {(GOOD, BAD)}
    turns = [f"\n\nHuman: Is it?\n\nAssistant: {text}" for text in (GOOD, BAD)]
    with pytest.raises(DataError, match="leave it out of the file"):
        read_pairs(saved(lambda n: pair(*turns) | {"prompt": None, "label": n % 2}))


SETTLED = {
    "always the same": lambda n: pair() | {"label": 1},
    "more numbers than sides": lambda n: pair() | {"label": n % 5},
    "scores of both": lambda n: pair() | {"label": n % 2, "chosen_score": 5, "rejected_score": 1},
    "the texts once more": lambda n: pair() | sides(n % 2) | {"preference": 1 + n % 2},
    "the texts, from zero": lambda n: pair() | sides(n % 2) | {"preference": n % 2},
    "another name": lambda n: pair() | {"fold": n % 2},
}


@pytest.mark.parametrize("make", SETTLED.values(), ids=SETTLED)
def test_numbers_that_say_nothing_new_are_left_alone(saved, make):
    assert texts(read_pairs(saved(make))) == {(GOOD, BAD)}


@pytest.mark.parametrize("more", [{"label": 1}, {"winner": "rejected"}], ids=str)
def test_what_is_pasted_forgets_nothing_of_the_prompt(saved, more):
    before = {"system": "Be kind.", "history": [["Hi", "Hello"]]}
    path = saved(
        lambda n: before | pair() | (more if n % 2 else dict.fromkeys(more, 0 if "label" in more else "chosen"))
    )
    with pytest.raises(DataError) as asked:
        read_pairs(path)
    for columns in answers(asked.value):
        prompt = read_pairs(path, columns=columns).pairs[0].prompt
        assert [message.content for message in prompt] == ["Be kind.", "Hi", "Hello", "Is it 0?"]
