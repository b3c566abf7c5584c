"""Both orders: what is asked, when it is told, and what a contradiction is worth."""

from __future__ import annotations

import pytest

from tiebreak.engine.answers.answerer import Chat
from tiebreak.evaluation.judges.judge import BothOrders, ByRating, Preference, Question
from tiebreak.records import Message

CHAT = Chat((Message("user", "x"),))


class Scripted:
    """Says what a function says, one question at a time."""

    identity = "scripted"

    def __init__(self, says):
        self.says, self.asked = says, []

    def prefer(self, questions, done=lambda _: None):
        found = []
        for place, question in enumerate(questions):
            self.asked.append((question.first, question.second))
            found.append(Preference(self.says(question.first, question.second)))
            done([(place, found[-1])])
        return found


@pytest.mark.parametrize(
    ("straight", "turned", "first", "flipped", "at_first"),
    [(1.0, 0.0, 1.0, False, 0.5), (1.0, 1.0, 0.5, True, 1.0), (0.0, 0.0, 0.5, True, 0.0), (0.5, 0.5, 0.5, False, 0.5),
     (1.0, 0.5, 0.75, False, 0.75), (0.9, 0.3, 0.8, False, 0.6), (0.6, 0.7, 0.5, True, 0.65)],
)  # fmt: skip
def test_a_contradiction_is_a_tie_and_the_place_that_is_liked_is_known(straight, turned, first, flipped, at_first):
    judge = BothOrders(Scripted(lambda one, two: straight if one == "a" else turned))
    [found] = judge.prefer([Question(CHAT, "a", "b")])
    assert (found.first, found.flipped, found.at_first) == (pytest.approx(first), flipped, pytest.approx(at_first))


@pytest.mark.parametrize(
    ("ratings", "first", "says"),
    [((2.0, 1.0), 1.0, "2 against 1"), (("too_long: 9 tokens", 1.0), None, "too_long: 9 tokens"),
     ((1.0, "too_long: 9 tokens"), None, "too_long: 9 tokens"), ((None, 1.0), None, "not rated"),
     ((None, "too_long: 9 tokens"), None, "too_long: 9 tokens")],
)  # fmt: skip
def test_what_has_no_rating_is_not_judged_and_says_why(ratings, first, says):
    class Rated:
        identity = "rated"

        def rate(self, chats, answers):
            return [ratings["ab".index(answer)] for answer in answers]

    [found] = ByRating(Rated()).prefer([Question(CHAT, "a", "b")])
    assert (found.first, found.says) == (first, says)


@pytest.mark.parametrize("silent", ["a", "b"])
def test_a_verdict_in_one_order_alone_is_none(silent):
    judge = BothOrders(Scripted(lambda one, two: None if one == silent else 1.0))
    assert judge.prefer([Question(CHAT, "a", "b")])[0].first is None


def test_the_same_text_twice_is_a_tie_without_a_question_and_places_stay_right():
    scripted, told = Scripted(lambda one, two: float(one > two)), []
    questions = [Question(CHAT, "x", "x"), Question(CHAT, "b", "a"), Question(CHAT, "x", "x"), Question(CHAT, "a", "b")]
    found = BothOrders(scripted).prefer(questions, told.extend)
    assert [one.first for one in found] == [0.5, 1.0, 0.5, 0.0]
    assert dict(told) == dict(enumerate(found))
    assert scripted.asked == [("b", "a"), ("a", "b"), ("a", "b"), ("b", "a")]
    assert BothOrders(scripted).prefer([Question(CHAT, "x", "x")])[0].first == 0.5
    assert len(scripted.asked) == 4
