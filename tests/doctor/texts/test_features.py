"""The thirteen features: each by cases that can be counted by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bounds import hang_after
from tiebreak.doctor.texts.features import DESCRIPTIONS, NAMES, features_of
from tiebreak.doctor.texts.phrases import agrees, first_person, refuses
from tiebreak.doctor.texts.scripts import other_script_share
from tiebreak.doctor.texts.wordhashes import normalised, words


def table(prompts, completions):
    return features_of(prompts, completions, words([normalised(text) for text in completions]))


def features(prompt, completion):
    return table([prompt], [completion])[0]


def value(name, completion, prompt="What is two and two?"):
    return float(features(prompt, completion)[NAMES.index(name)])


def test_there_are_thirteen_features_and_each_is_described():
    assert len(NAMES) == len(set(NAMES)) == 13
    assert all(DESCRIPTIONS[name] for name in NAMES)
    assert features("a", "b").shape == (13,)


def test_length_is_the_log_of_one_plus_characters():
    assert value("log_length", "four") == pytest.approx(math.log(5))


@pytest.mark.parametrize(
    ("text", "count"),
    [("- a\n- b\n* c", 3), ("1. a\n2) b", 2), ("a - b", 0), ("  \u2022 a", 1), ("-a\n2.5 b", 0), ("text\n\n1. a", 1)],
)
def test_list_items_are_lines_with_a_bullet_or_a_number(text, count):
    assert value("list_items", text) == pytest.approx(math.log1p(count))


@pytest.mark.parametrize(
    ("text", "count"),
    [("# A\n## B\ntext", 2), ("**a** and **b**", 2), ("```py\nx\n```", 1), ("| a | b |\n|---|---|", 2), ("a # b", 0)],
)
def test_markdown_counts_headings_bold_fences_and_table_rows(text, count):
    assert value("markdown", text) == pytest.approx(math.log1p(count))


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that.",
        "I cannot do that.",
        "As an AI language model, I have no view.",
        "I\u2019m not able to answer.",
        "I apologize, but no.",
        "Sorry: I won't help.",
        "I am unable to see it.",
    ],
)
def test_a_refusal_is_told_by_its_phrase(text):
    assert refuses(text)
    assert value("refusal", text) == 1


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry to hear that your cat is ill.",
        "He said that he cannot come.",
        "Of course!",
        "Do not boil it.",
        "",
        "Here is a story. " + "It goes on. " * 40 + "I cannot go on.",
    ],
)
def test_sympathy_and_later_words_are_no_refusal(text):
    assert not refuses(text)


def test_openings_are_told_apart():
    assert first_person("I think so.")
    assert first_person("\u201cI\u2019d say so.")
    assert not first_person("It is so.")
    assert not first_person("In time.")
    assert agrees("Sure, here you go.")
    assert agrees("Certainly! ...")
    assert agrees("Here's how:")
    assert agrees("**Yes**, it is.")
    assert not agrees("Surely not.")
    assert not agrees("Yesterday.")


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("Sure! \U0001f600\U0001f44d", 2),
        (
            "\U0001f469\u200d\U0001f469\u200d\U0001f467 family, \U0001f44b\U0001f3fd hand, \u2764\ufe0f heart",
            3,
        ),
        ("\U0001f1e6\U0001f1f9 one flag, 1\ufe0f\u20e3 one key", 2),
        ("\u2705 done \u26a0\ufe0f", 2),
        ("caf\u00e9 \u2014 \u201cno\u201d \u4f60\u597d 1 # *", 0),
        ("plain", 0),
    ],
)
def test_emoji_are_counted_each_with_what_changes_it(text, count):
    assert value("emoji", text) == pytest.approx(math.log1p(count))


@pytest.mark.parametrize(("text", "before", "after"), [(" \n a b\n", 3, 1), ("a", 0, 0), ("\ta  ", 1, 2)])
def test_blanks_before_and_after_are_counted_apart(text, before, after):
    found = value("leading_blanks", text), value("trailing_blanks", text)
    assert found == pytest.approx((math.log1p(before), math.log1p(after)))


def test_questions_are_counted():
    assert value("questions", "What? When? Now.") == pytest.approx(math.log(3))


@pytest.mark.parametrize(
    ("prompt", "completion", "share"),
    [
        ("hello", "hello there", 0.0),
        ("hello", "\u043f\u0440\u0438\u0432\u0435\u0442", 1.0),
        ("\u043f\u0440\u0438\u0432\u0435\u0442", "hello", 1.0),
        ("hello", "ab\u4f60\u597d", 0.5),
        ("\u4f60\u597d", "\u304f\u3059\u308a\u4f60", 0.0),
        ("hello", "caf\u00e9 \u201cna\u00efve\u201d \u2014 ok \U0001f600 \u20ac5", 0.0),
        ("hello", "\u05e9\u05dc\u05d5\u05dd 123", 1.0),
        ("123", "\u05e9\u05dc\u05d5\u05dd", 0.0),
        ("hello", "\U0001f600 12", 0.0),
    ],
)
def test_the_share_of_other_scripts_is_that_of_letters(prompt, completion, share):
    assert other_script_share(prompt, completion) == pytest.approx(share)


def test_repetition_is_the_share_of_runs_of_three_words_that_came_before():
    assert value("repetition", "a b c d e") == 0
    assert value("repetition", "a b c a b c") == pytest.approx(1 / 4)  # abc bca cab abc
    assert value("repetition", "no no no no no no") == pytest.approx(3 / 4)  # four runs, all the same
    assert value("repetition", "hi") == 0
    assert value("repetition", "") == 0


def test_repetition_is_counted_within_one_completion_only():
    same = ["a b c d e f", "a b c d e f"]
    assert table(["?", "?"], same)[:, NAMES.index("repetition")].tolist() == [0, 0]


@pytest.mark.parametrize(
    ("text", "cut"),
    [("It ends.", 0), ("It goes on and", 1), ("First,", 1), ("Done!\n", 0), ("`x`", 0), ("in 19", 1), ("", 0)],
)
def test_a_text_that_ends_inside_a_sentence_is_unfinished(text, cut):
    assert value("unfinished", text) == cut


def test_a_row_is_that_of_its_own_completion():
    prompts, completions = ["Say it.", "\u4f60", "\u4f60"], ["I can't.", "a\n- b", "\u597d \u597d \u597d \u597d"]
    found = table(prompts, completions)
    assert found.dtype == np.float32
    assert found.shape == (3, 13)
    for row, prompt, completion in zip(found, prompts, completions, strict=True):
        assert np.array_equal(row, features(prompt, completion))


def test_no_pairs_give_no_rows():
    assert table([], []).shape == (0, 13)


@pytest.mark.parametrize("unit", ["\n", "\n- ", "**", "\n#", "|\n", "I'm so ", "a ", "\u4f60", "?", "\n \t", "\ud800"])
def test_time_is_linear_on_a_million_characters(unit):
    text = unit * (1_000_000 // len(unit))
    with hang_after():
        assert np.isfinite(features(text[:1000], text)).all()
