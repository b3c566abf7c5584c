"""The vocabulary of judgements."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiebreak.data.formats import RowError
from tiebreak.data.formats.verdicts import liked, side_of, stated_side

FIRST = [1, 1.0, "1", "a", "A", "[[A]]", "model_a", "Response 1", "response_a", "left", "first", 1.2, "completion-1"]
SECOND = [2, 2.0, "2", "b", "model_b", "answer2", "Right", "second", 1.7, "Assistant B", "option_2"]
TIE = [0, "0", "tie", "tie (bothbad)", "Tie ", "both", "neither", "equal", 1.5]
NEITHER = [None, True, False, 3, -1, 0.5, "c", "good", "", "response", [], {}, float("nan"), "a" * 100, 10**400]


@pytest.mark.parametrize(("words", "side"), [(FIRST, "first"), (SECOND, "second"), (TIE, "tie"), (NEITHER, None)])
def test_a_verdict_names_one_side_or_a_tie_or_nothing(words, side):
    assert {repr(word): side_of(word) for word in words} == {repr(word): side for word in words}


@pytest.mark.parametrize("value", NEITHER)
def test_what_is_no_verdict_is_refused_where_one_is_needed(value):
    with pytest.raises(RowError) as refused:
        stated_side(value, "winner")
    assert refused.value.reason == "wrong_type"
    assert len(refused.value.detail) < 200


@pytest.mark.parametrize(
    "word",
    [
        "B is worse",
        "Response B is much worse",
        "B is worse than A",
        "A is not better",
        "B isn't better",
        "A lost",
        "The worst is A",
        "B loses",
        "A is inferior to B",
        "B is the lesser",
    ],
)
def test_a_word_for_the_worse_side_is_refused_and_it_is_said_how_to_map_it(word):
    assert side_of(word) is None
    with pytest.raises(RowError, match=r"winner.first=WORD .* the other side is the worse one"):
        stated_side(word, "winner")


LIKED = [True, 1, 1.0, "up", "👍", "thumbs_up", "Thumbs-Up", "+1", "1", "like", "liked", "TRUE", "good", "desirable"]
LIKED += ["👍🏽", "👍\ufe0f", "👍🏿\ufe0f", " 👍🏻 "]
DISLIKED = [False, -1, "down", "👎", "thumbs_down", "-1", "dislike", "false", "bad", "undesirable"]
DISLIKED += ["👎🏿", "👎\ufe0f", "👎🏼"]
SILENT = [None, 0, 2, 0.5, "", "none", "I liked the first part", [], {}, "x" * 1000, float("nan")]


@pytest.mark.parametrize(("words", "verdict"), [(LIKED, True), (DISLIKED, False), (SILENT, None)])
def test_a_thumb_is_up_or_down_or_absent(words, verdict):
    assert {repr(word): liked(word) for word in words} == {repr(word): verdict for word in words}


@given(st.text() | st.floats() | st.integers() | st.booleans())
def test_no_value_is_too_odd_to_look_at(value):
    assert side_of(value) in ("first", "second", "tie", None)
    assert liked(value) in (True, False, None)
