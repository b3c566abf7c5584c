"""Two words of a judge agree where they order a couple alike; a tie of one of them is half of that."""

from __future__ import annotations

import random

import pytest

from tiebreak.stations.drift import agreement
from tiebreak.stations.rows import Verdict


def words(*scores):
    return [Verdict(f"prompt{number}", tuple(some)) for number, some in enumerate(scores)]


def slow(first, second):
    """Over all ordered couples, by loops: an ordering that is shared is 1, one that is not is 0, one tie is a half."""
    told = []
    for one, two in zip(first, second, strict=True):
        for a in range(len(one.scores)):
            for b in range(len(one.scores)):
                known = [word.scores[at] for word in (one, two) for at in (a, b)]
                if a == b or None in known:
                    continue
                x, y, u, v = known
                if x == y and u == v:
                    continue
                told.append(0.5 if x == y or u == v else float((x > y) == (u > v)))
    return sum(told) / len(told) if told else None


@pytest.mark.parametrize("seed", range(6))
def test_it_is_that_of_a_slow_loop(seed):
    draw = random.Random(seed)
    first, second = (words(*([draw.choice([None, 0, 1, 2, 3]) for _ in range(5)] for _ in range(7))) for _ in range(2))
    assert agreement(first, second) == pytest.approx(slow(first, second))
    assert agreement(first, second) == agreement(second, first)


def test_the_same_word_agrees_with_itself_and_the_opposite_one_never():
    first = words([1, 2, 3], [0.5, 0.5, 0.1])
    assert agreement(first, first) == 1.0
    assert agreement(first, words([-1, -2, -3], [-0.5, -0.5, -0.1])) == 0.0
    assert agreement(words([1, 2]), words([1, 1])) == 0.5


def test_where_nothing_is_ordered_nothing_is_known():
    assert agreement(words([1, 1]), words([2, 2])) is None
    assert agreement(words([1, None]), words([2, 3])) is None
    assert agreement([], []) is None


def test_words_on_other_answers_are_refused():
    with pytest.raises(ValueError, match="verdicts on other answers"):
        agreement(words([1, 2]), words([1, 2, 3]))
    with pytest.raises(ValueError, match="verdicts on other answers"):
        agreement(words([1, 2]), [Verdict("another", (1, 2))])
