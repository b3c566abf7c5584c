"""Verdicts told as objects, and several questions of one row: one verdict is read, or it is asked which counts."""

from __future__ import annotations

import re
import shlex

import pytest

from tiebreak.config import SourceConfig
from tiebreak.data.formats.form import Ambiguous
from tiebreak.data.formats.tallies import refuse_worse
from tiebreak.data.reader import open_files
from tiebreak.data.whole import read_pairs
from tiebreak.errors import DataError

GOOD, BAD = "The good one.", "The bad one."


def two(verdict):
    def make(asked, turned):
        first, second = (BAD, GOOD) if turned else (GOOD, BAD)
        return {"prompt": asked, "response_a": first, "response_b": second, **verdict(turned)}

    return make


def best(turned):
    return "B" if turned else "A"


def worst(turned):
    return "A" if turned else "B"


def is_good(found):
    return [(pair.chosen.content, pair.rejected.content) for pair in found.pairs] == [(GOOD, BAD)] * 12


def printed(question):
    """The mappings that a question prints, in their order."""
    found = re.findall(r"(?:-c (?:'[^']*'|[^ ;,]+) ?)+", question)
    return [dict(word.split("=", 1) for word in shlex.split(options)[1::2]) for options in found]


READ = {
    "whole numbers with a point are votes": two(
        lambda t: {"votes": {"A": 1.0 if t else 2.0, "B": 2.0 if t else 1.0}}
    ),
    "one vote with a point": two(lambda t: {"votes": {"response_a": float(not t), "response_b": float(t)}}),
    "true and false": two(lambda t: {"preference": {"a": not t, "b": t}}),
    "votes in text": two(lambda t: {"votes": {"a": "0" if t else "3", "b": "2" if t else "0"}}),
    "a verdict beside how sure and how hard": two(
        lambda t: {"judgment": {"verdict": best(t), "confidence": 2, "difficulty": 2}}
    ),
    "a verdict and who said it": two(lambda t: {"judgement": {"annotator": "a1", "confidence": 1, "Winner": best(t)}}),
    "a verdict whose other key holds a number": two(lambda t: {"decision": {"label": 3, "winner": best(t)}}),
    "judges with numbers": two(lambda t: {"preference": {"judge_1": best(t), "judge_2": best(t), "judge_3": worst(t)}}),
    "judges of votes": two(lambda t: {"votes": {"ann": best(t), "ben": best(t), "cy": worst(t)}}),
    "other judges in every row": lambda q, t: two(
        lambda t: {"preference": {f"ann {q}": best(t), f"ben {q}": best(t)}}
    )(q, t),
}  # fmt: skip


@pytest.mark.parametrize("make", READ.values(), ids=READ)
def test_an_object_of_one_reading_is_read(alternating, make):
    assert is_good(read_pairs(alternating(make)))


def ranks(first, second):
    return {"response_a": first, "response_b": second}


ASKED = {
    "ranks from one": (two(lambda t: {"preference": ranks(2, 1) if t else ranks(1, 2)}), "ranks", 1),
    "ranks from one under letters": (two(lambda t: {"judgement": {"A": 1 + t, "B": 2 - t}}), "ranks", 1),
    "ranks from zero": (two(lambda t: {"verdict": {"A": int(t), "B": int(not t)}}), "ranks", 1),
    "votes that may be ranks": (two(lambda t: {"preference": ranks(float(not t), float(t))}), "votes", 0),
    "shares": (two(lambda t: {"votes": ranks(0.25, 0.75) if t else ranks(0.75, 0.25)}), "counts no votes", 0),
    "scores below zero": (two(lambda t: {"preference": ranks(-3, 1) if t else ranks(2, -1)}), "counts no votes", 0),
    "aspects in words": (
        two(lambda t: {"judgment": {"overall": best(t), "length": worst(t), "fluency": worst(t)}}),
        "several questions", 0,
    ),
    "an aspect beside numbers": (
        two(lambda t: {"judgment": {"overall": best(t), "confidence": 2}}), "several questions", 0,
    ),
    "two verdicts": (two(lambda t: {"decision": {"winner": worst(t), "label": best(t)}}), "several questions", 0),
    "judges that may be questions": (
        two(lambda t: {"preference": {"ann": best(t), "ben": best(t), "cy": worst(t)}}), "judges", 1,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("make", "words", "right"), ASKED.values(), ids=ASKED)
def test_an_object_of_two_readings_is_asked_about_and_the_right_answer_reads_it(alternating, make, words, right):
    path = alternating(make)
    with pytest.raises(DataError, match=words) as asked:
        read_pairs(path)
    assert is_good(read_pairs(path, columns=printed(str(asked.value))[right]))


@pytest.mark.parametrize("key", ["winner", "votes"])
def test_a_mapping_to_ranks_is_asked_about_too(alternating, key):
    path = alternating(two(lambda t: {"how": ranks(2, 1) if t else ranks(1, 2)}))
    columns = {"prompt": "prompt", "completion_a": "response_a", "completion_b": "response_b", key: "how"}
    with pytest.raises(DataError, match="ranks"):
        read_pairs(path, columns=columns)


def test_what_is_no_number_for_a_side_is_no_judge(alternating):
    with pytest.raises(DataError, match="found an object"):
        read_pairs(alternating(two(lambda _: {"preference": {"A": "B", "B": "B"}})))


def test_answers_to_several_questions_in_a_list_are_no_voters(alternating):
    answers = [{"aspect": "length", "choice": "B"}, {"aspect": "overall", "choice": "A"}]
    with pytest.raises(DataError, match=r"several questions \(length, overall\)"):
        read_pairs(alternating(two(lambda _: {"annotations": answers})))


def argilla(answers):
    def make(asked, turned):
        first, second = (BAD, GOOD) if turned else (GOOD, BAD)
        names = ("response_2", "response_1") if turned else ("response_1", "response_2")
        told = {question: [{"value": said(*names), "user_id": "u"}] for question, said in answers.items()}
        return {"fields": {"prompt": asked, "response_1": first, "response_2": second}, "responses": told}

    return make


def test_several_questions_of_argilla_are_refused_with_their_names(alternating):
    with pytest.raises(DataError, match="'better', 'longer'"):
        read_pairs(alternating(argilla({"better": lambda one, _: one, "longer": lambda _, other: other})))


def test_a_ranking_of_argilla_decides_beside_labels(alternating):
    path = alternating(argilla({"longer": lambda _, other: other, "order": lambda one, other: [one, other]}))
    assert is_good(read_pairs(path))
    (file,) = open_files(SourceConfig(path=str(path)))
    assert file.look.first.why.startswith("order ")


def labelstudio(control, value):
    def make(asked, turned):
        first, second = (BAD, GOOD) if turned else (GOOD, BAD)
        result = [{"from_name": control, "value": value(turned)}]
        return {
            "data": {"prompt": asked, "answer1": first, "answer2": second},
            "annotations": [{"completed_by": 1, "result": result}],
        }

    return make


WORSE = {
    "a question of Argilla": argilla({"which_is_worse": lambda _, other: other}),
    "a choice of Label Studio": labelstudio("Worst answer", lambda t: {"choices": ["Answer 1" if t else "Answer 2"]}),
    "a selection of Label Studio": labelstudio("loser", lambda t: {"selected": "left" if t else "right"}),
    "a column of Label Studio": lambda q, t: {
        "prompt": q, "answer1": BAD if t else GOOD, "answer2": GOOD if t else BAD,
        "least_helpful": {"selected": "left" if t else "right"},
    },
}  # fmt: skip


@pytest.mark.parametrize("make", WORSE.values(), ids=WORSE)
def test_a_name_that_asks_for_the_worse_one_is_asked_about(alternating, make):
    with pytest.raises(DataError, match="asks for the worse side"):
        read_pairs(alternating(make))


@pytest.mark.parametrize("name", ["weaker_answer", "beaten", "who_loses", "isWorse", "losers", "least helpful"])
def test_every_word_for_the_worse_one_is_asked_about_as_a_name(name):
    with pytest.raises(Ambiguous, match="asks for the worse side"):
        refuse_worse(name)


@pytest.mark.parametrize("name", ["closer_to_the_truth", "at_pleasure", "closest", "unbeatable", "winner"])
def test_a_word_within_another_asks_for_nothing(name):
    refuse_worse(name)


def test_a_mapped_column_of_losers_is_asked_about_with_both_answers(alternating):
    path = alternating(two(lambda t: {"worse": worst(t)}))
    columns = {"prompt": "prompt", "completion_a": "response_a", "completion_b": "response_b", "winner": "worse"}
    with pytest.raises(DataError, match="asks for the worse side") as asked:
        read_pairs(path, columns=columns)
    worse, better = printed(str(asked.value))
    assert is_good(read_pairs(path, columns=worse))
    assert {pair.chosen.content for pair in read_pairs(path, columns=better).pairs} == {BAD}


def test_the_first_record_tells_the_control(alternating):
    (file,) = open_files(SourceConfig(path=str(alternating(labelstudio("pick", lambda t: {"selected": "right"})))))
    assert file.look.first.why == "pick 'right'"
