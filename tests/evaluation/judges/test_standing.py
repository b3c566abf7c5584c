"""How answers to a prompt stand: against a slow tournament, with equal texts, ties and silence, told in any order."""

from __future__ import annotations

import random
from itertools import combinations

import pytest

from tiebreak.engine.answers.answerer import Answer, Chat
from tiebreak.evaluation.judges.judge import BothOrders, ByRating, Preference, Standing, by_comparing, by_rating
from tiebreak.maths.pairing import rates_of_scores
from tiebreak.records import Message

CHAT = Chat((Message("user", "x"),))


def drawn(*texts: str) -> list[Answer]:
    return [Answer(text, (1, 2), finished=True) for text in texts]


def chats(num: int) -> list[Chat]:
    return [Chat((Message("user", f"prompt {number}"),)) for number in range(num)]


class Scripted:
    """Says what a function says, and tells it in an order of its own."""

    identity = "scripted"

    def __init__(self, says, seed=None):
        self.says, self.seed, self.asked = says, seed, []

    def prefer(self, questions, done=lambda _: None):
        found = []
        for question in questions:
            self.asked.append((question.first, question.second))
            said = self.says(question.first, question.second)
            found.append(said if isinstance(said, Preference) else Preference(said))
        told = list(enumerate(found))
        if self.seed is not None:
            random.Random(self.seed).shuffle(told)
        for one in told:
            done([one])
        return found


def slow_rates(answers, probability):
    """The mean probability of each answer to win against the other answers, by loops over them."""
    rates = []
    for place, one in enumerate(answers):
        won = [
            0.5 if other.text == one.text else probability(one.text, other.text)
            for number, other in enumerate(answers)
            if number != place
        ]
        rates.append(sum(won) / len(won))
    return rates


def leans(one: str, two: str) -> float:
    return (len(one) + 1) / (len(one) + len(two) + 2)


@pytest.mark.parametrize("seed", range(8))
def test_rates_are_those_of_a_slow_tournament_whatever_comes_first(seed):
    draw = random.Random(seed)
    answers = [drawn(*("w" * draw.randint(0, 6) + "ab"[draw.randrange(2)] for _ in range(6))) for _ in range(5)]
    found = by_comparing(Scripted(leans, seed).prefer, chats(5), answers)
    for said, some in zip(found, answers, strict=True):
        assert said.rates == said.scores == pytest.approx(slow_rates(some, leans))
        num = len({one.text for one in some})
        assert (said.num_compared, said.num_flipped, said.reasons) == (num * (num - 1) // 2, 0, ())


@pytest.mark.parametrize("seed", [None, 1, 2, 3])
def test_each_standing_is_told_once_and_is_what_is_returned_to_the_last_bit(seed):
    told = []
    answers = [drawn("a", "bb", "ccc"), drawn("x", "x"), drawn("p", "qq")]
    judge = BothOrders(Scripted(lambda one, two: 0.1 + 0.7 * (one < two), seed))
    found = judge.stand(chats(3), answers, told.extend)
    assert sorted(place for place, _ in told) == [0, 1, 2]
    assert dict(told) == dict(enumerate(found))
    assert found == BothOrders(Scripted(lambda one, two: 0.1 + 0.7 * (one < two))).stand(chats(3), answers)


def test_equal_texts_are_asked_about_once_stand_alike_and_are_ties_among_each_other():
    scripted = Scripted(lambda one, two: float(len(one) > len(two)))
    [found] = BothOrders(scripted).stand([CHAT], [drawn("long one", "s", "long one", "s", "s")])
    rates = (0.875, 0.25, 0.875, 0.25, 0.25)  # 3.5 and 1 of 4
    assert (found.scores, found.reasons, found.rates, found.num_compared) == (rates, (), rates, 1)
    assert found.wins[0] == (None, 1.0, 0.5, 1.0, 1.0)
    assert found.wins[3] == (0.0, 0.5, 0.0, None, 0.5)
    assert scripted.asked == [("long one", "s"), ("s", "long one")]


@pytest.mark.parametrize("seed", range(40))
def test_a_judge_that_compares_gives_the_rates_of_a_rule_of_the_same_preferences(seed):
    """P(y_i beats a sample of the policy) is one quantity, whoever told which of two is better."""
    draw = random.Random(seed)
    answers = drawn(*(draw.choice("aabbcd") for _ in range(draw.randint(1, 9))))
    worth = {text: float(draw.randint(0, 2)) for text in "abcd"}

    def says(one, two):
        return 0.5 if worth[one] == worth[two] else float(worth[one] > worth[two])

    [found] = BothOrders(Scripted(says, seed)).stand([CHAT], [answers])
    assert list(found.rates) == rates_of_scores([worth[one.text] for one in answers])


def test_of_three_equal_answers_the_best_does_not_win_always():
    [found] = BothOrders(Scripted(lambda one, two: float(one < two))).stand([CHAT], [drawn("a", "a", "a", "b", "c")])
    assert found.rates == (0.75, 0.75, 0.75, 0.25, 0.0)


def test_a_text_without_any_verdict_has_no_rate_for_being_drawn_twice():
    def says(one, two):
        return Preference(None, says="no answer: busy") if "c" in one + two else float(one < two)

    [found] = BothOrders(Scripted(says)).stand([CHAT], [drawn("a", "b", "c", "c")])
    assert (found.rates, found.wins[2]) == ((1.0, 0.0, None, None), (None,) * 4)


def test_the_same_answer_again_and_again_is_a_tie_and_one_alone_has_no_rate():
    scripted = Scripted(lambda one, two: 1.0)
    same, alone, empty = BothOrders(scripted).stand(chats(3), [drawn("a", "a"), drawn("a"), drawn()])
    assert same == Standing((0.5, 0.5), (), (0.5, 0.5), wins=((None, 0.5), (0.5, None)))
    assert (alone.scores, alone.reasons[0].partition(":")[0]) == ((None,), "alone")
    assert empty == Standing(())
    assert scripted.asked == []


def test_a_judge_that_contradicts_itself_makes_ties_that_are_counted():
    [found] = BothOrders(Scripted(lambda one, two: 1.0)).stand([CHAT], [drawn("a", "b", "c")])
    assert (found.scores, found.num_compared, found.num_flipped) == ((0.5, 0.5, 0.5), 3, 3)


def test_what_was_not_judged_does_not_count_and_an_answer_without_any_verdict_has_no_rate():
    def says(one, two):
        return Preference(None, says="no answer: busy") if "c" in one + two else float(one < two)

    [found] = BothOrders(Scripted(says)).stand([CHAT], [drawn("a", "b", "c")])
    assert (found.rates, found.reasons) == ((1.0, 0.0, None), ("no answer: busy",) * 2)
    assert (found.scores, found.num_compared, found.num_flipped) == (found.rates, 3, 0)


def test_a_chain_asks_only_neighbours():
    scripted = Scripted(lambda one, two: float(one < two))
    [found] = by_comparing(
        scripted.prefer,
        [CHAT],
        [drawn("a", "b", "c")],
        couples=lambda num: zip(range(num), range(1, num), strict=False),
    )
    assert scripted.asked == [("a", "b"), ("b", "c")]
    assert found.rates == (1.0, 0.5, 0.0)


def test_ratings_are_asked_for_once_of_each_text_all_in_one_call():
    calls = []

    class Rated:
        identity = "rated"

        def rate(self, chats, answers):
            calls.append([(chat.messages[0].content, answer) for chat, answer in zip(chats, answers, strict=True)])
            return [{"bad": "too_long: 9 tokens", "dumb": None}.get(answer, float(len(answer))) for answer in answers]

    answers = [drawn("aa", "b", "aa"), drawn("bad", "dumb", "ccc", "bad")]
    one, two = ByRating(Rated()).stand(chats(2), answers)
    assert one == Standing((2.0, 1.0, 2.0))
    assert two == Standing((None, None, 3.0, None), ("too_long: 9 tokens", "not rated: nothing is said of it"))
    prompts = ["prompt 0"] * 2 + ["prompt 1"] * 3
    assert calls == [list(zip(prompts, ["aa", "b", "bad", "dumb", "ccc"], strict=True))]


def test_a_rating_of_the_same_text_is_that_of_its_own_prompt():
    found = by_rating(
        lambda chats, answers: [float(chat.messages[0].content[-1]) for chat in chats], chats(3), [drawn("a", "b")] * 3
    )
    assert [one.scores for one in found] == [(0.0, 0.0), (1.0, 1.0), (2.0, 2.0)]


def test_wins_of_all_texts_add_up_to_the_number_of_couples():
    texts = ["a", "bb", "ccc", "dddd"]
    [found] = by_comparing(Scripted(leans).prefer, [CHAT], [drawn(*texts)])
    assert sum(rate * 3 for rate in found.rates) == pytest.approx(len(list(combinations(texts, 2))))
