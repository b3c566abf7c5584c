"""docs/objectives.md says what the table of objectives says, and what the tests hold."""

from __future__ import annotations

import objectives_page
from tiebreak.maths.objectives import OBJECTIVES


def test_the_page_is_that_of_the_table():
    text = objectives_page.PAGE.read_text(encoding="utf-8")
    assert objectives_page.page(text) == text, "run python tests/objectives_page.py"


def test_each_objective_has_a_part_of_it():
    text = objectives_page.PAGE.read_text(encoding="utf-8")
    assert [name for name in OBJECTIVES if f"\n### {name}\n" not in text] == []
    assert set(objectives_page.WITH_TRL) <= set(OBJECTIVES)
