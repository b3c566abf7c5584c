from __future__ import annotations

import math
import random

import pytest

from tiebreak.evaluation.diversity import distinct_n, self_bleu, shared_length, unfinished_share, words

DRAW = random.Random(5)
TEXTS = [" ".join(DRAW.choices(["sun", "moon", "star", "sea", "tree"], k=DRAW.randint(6, 14))) for _ in range(9)]


def _oracle_distinct(texts: list[str], n: int, length: int) -> float:
    seen, total = [], 0
    for text in texts:
        cut = text.split()
        if len(cut) < length:
            continue
        for start in range(length - n + 1):
            total += 1
            if cut[start : start + n] not in seen and start + n <= length:
                seen.append(cut[start : start + n])
    return len(seen) / total


def _oracle_self_bleu(texts: list[str], length: int) -> float:
    cut = [text.split()[:length] for text in texts if len(text.split()) >= length]
    scores = []
    for index, text in enumerate(cut):
        others = cut[:index] + cut[index + 1 :]
        product = 1.0
        for n in (1, 2, 3, 4):
            clipped, count = 0, lambda run, of, n=n: sum(of[i : i + n] == run for i in range(length - n + 1))
            seen = []
            for start in range(length - n + 1):
                run = text[start : start + n]
                if run not in seen:
                    seen.append(run)
                    clipped += min(count(run, text), max(count(run, other) for other in others))
            added = 1 if n > 1 else 0
            product *= (clipped + added) / (length - n + 1 + added)
        scores.append(product ** (1 / 4))
    return sum(scores) / len(scores)


@pytest.mark.parametrize("length", [6, 9])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_distinct_n_equals_a_slow_count(n, length):
    assert distinct_n(TEXTS, n, length) == pytest.approx(_oracle_distinct(TEXTS, n, length))


@pytest.mark.parametrize("length", [6, 9])
def test_self_bleu_equals_a_slow_count(length):
    assert self_bleu(TEXTS, length) == pytest.approx(_oracle_self_bleu(TEXTS, length))


def test_self_bleu_is_one_where_all_texts_are_the_same_and_zero_where_no_word_is_shared():
    assert self_bleu(["the cat sat on the mat"] * 3, 6) == pytest.approx(1.0)
    assert self_bleu(["a b c d e", "f g h i j", "k l m n o"], 5) == 0.0


def test_length_decides_nothing():
    longer = [text + " sun moon sun moon sun moon" for text in TEXTS]
    assert distinct_n(longer[:4], 2, 6) == distinct_n(TEXTS[:4], 2, 6)
    assert self_bleu(longer, 6) == self_bleu(TEXTS, 6)


def test_words_are_told_apart_in_scripts_without_blanks_and_marks_are_words():
    assert words("Don't stop, 12 o'clock!") == ("don", "'", "t", "stop", ",", "12", "o", "'", "clock", "!")
    assert words("猫が好き。") == ("猫", "が", "好", "き", "。")
    assert words("हिन्दी भाषा") == ("हिन्दी", "भाषा")


def test_the_shared_length_is_one_that_three_quarters_of_each_side_have():
    one, two = ["a " * num for num in (4, 8, 9, 10)], ["b " * num for num in (1, 5, 6, 7)]
    assert shared_length(one) == 8
    assert shared_length(one, two) == 5
    assert shared_length(one, two, share=1.0) == 1
    assert shared_length(one, []) == shared_length() == 0


def test_what_cannot_be_compared_is_refused():
    for work in (
        lambda: distinct_n(["a b"], 2, 3),
        lambda: distinct_n(["a b"], 3, 2),
        lambda: distinct_n(["a b"], 1, 0),
        lambda: self_bleu(["a b c", "a b"], 3),
        lambda: unfinished_share([]),
    ):
        with pytest.raises(ValueError, match=r"word|answers"):
            work()


def test_unfinished_answers_are_those_that_did_not_end_by_themselves():
    assert unfinished_share([True, False, False, True, True]) == pytest.approx(0.4)
    assert math.isclose(unfinished_share([True]), 0.0)
