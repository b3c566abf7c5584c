"""docs/objectives.md says what the table of objectives says, and what the tests hold."""

from __future__ import annotations

from cases import OF_FUNCTIONS, OF_KTO, OF_PAIRS

import objectives_page
from tiebreak.config.losses import SECTIONS, meant_by
from tiebreak.maths.objectives import OBJECTIVES


def test_the_page_is_that_of_the_table():
    text = objectives_page.PAGE.read_text(encoding="utf-8")
    assert objectives_page.page(text) == text, "run python tests/objectives_page.py"


def test_each_objective_has_a_part_of_it():
    text = objectives_page.PAGE.read_text(encoding="utf-8")
    assert [name for name in OBJECTIVES if f"\n### {name}\n" not in text] == []


def test_the_table_of_proofs_has_no_gap_and_names_none_that_is_no_objective():
    rows = [line.strip("| ").split(" | ") for line in objectives_page.proofs().splitlines()[2:]]
    assert [row[0] for row in rows] == list(SECTIONS)
    assert [row[0] for row in rows if not (row[1] and row[2] and row[4]) or row[-1] != "same bits"] == []
    assert all(int(row[-2]) >= 4 for row in rows), "some examples at once and one, packed and plain"
    told = {meant_by(name.replace(",", " ").split()[0])[0] for name in (*OF_PAIRS, *OF_KTO, *OF_FUNCTIONS)}
    assert told <= set(OBJECTIVES)
