"""What the verb is told by its words, before any work."""

from __future__ import annotations

import pytest

from tiebreak.errors import ConfigError
from tiebreak.training.resumption import asked_for


def test_what_may_have_changed_is_named_by_one_word_or_several():
    assert asked_for("auto", "data") == ("data",)
    assert asked_for("never", ["data", "config"]) == ("data", "config")


@pytest.mark.parametrize(
    ("resume", "accept", "words"), [("nver", (), "--resume nver: wanted one of auto, never"), ("auto", "dta", "'data'")]
)
def test_a_word_that_is_mistyped_is_no_leave(resume, accept, words):
    with pytest.raises(ConfigError, match=words):
        asked_for(resume, accept)
