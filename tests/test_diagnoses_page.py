"""docs/diagnoses.md says what the table of causes says, and every cause was provoked."""

from __future__ import annotations

import re

import diagnoses_page
import provoked
from tiebreak.diagnosis.causes import CAUSES

WITHOUT_A_MODEL = {"cut_short"}
"""What no training has to go wrong for: tests/verbs/test_why.py."""


def _rows() -> dict[str, list[str]]:
    text = diagnoses_page.PAGE.read_text(encoding="utf-8")
    found = re.search(provoked.MARKED, text, re.S)
    assert found
    lines = [line for line in found[0].splitlines() if line.startswith("|")][2:]
    return {cells[0]: cells for cells in ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)}


def test_the_page_is_that_of_the_table():
    text = diagnoses_page.PAGE.read_text(encoding="utf-8")
    assert diagnoses_page.page(text) == text, "run python tests/diagnoses_page.py"


def test_what_is_provoked_is_every_cause_and_nothing_else():
    assert {one.name for one in CAUSES} - WITHOUT_A_MODEL == set(provoked.PLANTED)


def test_the_page_has_a_row_for_all_that_is_provoked_and_for_every_healthy_run():
    assert set(_rows()) == {*provoked.PLANTED, *(f"healthy: {name}" for name in provoked.HEALTHY)}


def test_what_was_planted_is_named_first_and_no_healthy_run_is_accused():
    wrong = [
        cells
        for name, cells in _rows().items()
        if cells[2] != f"{'nothing' if name.startswith('healthy') else name} {cells[1]}"
    ]
    assert wrong == []
