"""Answers on a page: what differs, what is worse, and how much text there is room for."""

from __future__ import annotations

import pytest

from tiebreak.reporting.answers import MOST_TEXT, MOST_WORDS, compared, courses, differences, marks_of


def _marked(pieces):
    return "".join(f"[{text}]" if differs else text for text, differs in pieces)


@pytest.mark.parametrize(
    ("before", "after", "left", "right"),
    [
        ("a b c", "a x c", "a [b] c", "a [x] c"),
        ("a b", "a b", "a b", "a b"),
        ("", "new words", "", "[new words]"),
        ("a b", "a  b\n", "a b", "a  b\n"),
        ("one two", "one", "one [two]", "one"),
    ],
)
def test_words_that_the_other_lacks_are_marked_and_white_space_is_not(before, after, left, right):
    one, other = differences(before, after)
    assert (_marked(one), _marked(other)) == (left, right)


def test_pieces_are_the_whole_text_and_very_long_ones_are_left_unmarked():
    text = " ".join(map(str, range(MOST_WORDS)))
    assert differences(text, "other") == ([(text, False)], [("other", False)])


def _sample(before="a", after="b", name="p", **more):
    side = {"num_tokens": 3, "finished": True, "looping": False}
    prompt = [{"role": "user", "content": "Why?"}]
    sides = {"before": {**side, "text": before}, "after": {**side, "text": after, **more}}
    return {"prompt_id": name, "prompt": prompt, **sides}


@pytest.mark.parametrize(
    ("sample", "preferred", "marks"),
    [
        (_sample("a", "a"), 0.5, []),
        (_sample(), 0.5, ["changed"]),
        (_sample(), 1, ["changed", "better"]),
        (_sample(), 0, ["changed", "worse"]),
        (_sample(), None, ["changed"]),
        (_sample(looping=True), 1, ["changed", "worse"]),
    ],
)
def test_better_and_worse_are_what_was_said_and_circles_are_worse(sample, preferred, marks):
    assert marks_of(sample, preferred) == marks


def test_where_nobody_judged_the_rule_says_what_is_worse():
    sample = _sample(matches_rule=False)
    sample["before"]["matches_rule"] = True
    assert marks_of(sample, None) == ["changed", "worse"]


def test_long_texts_are_cut_and_what_has_no_room_is_counted():
    samples = [_sample("a" * 10 * MOST_TEXT, "\u202e" * MOST_TEXT, f"p{n}") for n in range(100)]
    shown, left_out = compared(samples, [])
    assert 0 < len(shown) < 100
    assert len(shown) + left_out == 100
    assert shown[0].before.num_left_out == 9 * MOST_TEXT
    assert shown[0].after.num_left_out == 0


def test_the_course_of_a_prompt_holds_each_answer_against_the_one_before():
    looks = [(step, [{**_sample(), "text": text}]) for step, text in ((1, "a b"), (2, "a c"), (3, "a c"))]
    [course], left_out = courses(looks)
    assert left_out == 0
    assert [(step, _marked(side.pieces)) for step, side in course.answers] == [(1, "a b"), (2, "a [c]"), (3, "a c")]
