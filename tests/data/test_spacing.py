from __future__ import annotations

import pytest

from tiebreak.data.spacing import num_words, words_of

WORDS = {
    "": [],
    "two words": ["two", "words"],
    "\u5929\u6c14 ok": ["\u5929", "\u6c14", "ok"],
    "iPhone\u5f88\u597d": ["iPhone", "\u5f88", "\u597d"],
    "\u0e14\u0e35": ["\u0e14", "\u0e35"],
    "\uc548\ub155 \uc138\uacc4": ["\uc548\ub155", "\uc138\uacc4"],
    "na\u00efve caf\u00e9": ["na\u00efve", "caf\u00e9"],
}


@pytest.mark.parametrize("text", WORDS)
def test_a_letter_is_a_word_where_no_spaces_are_between_words(text):
    assert words_of(text) == WORDS[text]
    assert num_words(text) == len(WORDS[text])
