"""docs/gate.md is true: its rules are the default ones, its examples are read, its numbers of prompts are computed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tiebreak.config import MEASURES, GateConfig, build_config
from tiebreak.config.gate import DEFAULT_RULES
from tiebreak.errors import EXIT_FAILED, EXIT_INCONCLUSIVE
from tiebreak.maths.power import clusters_to_decide, pairs_for_win_rate

PAGE = (Path(__file__).parents[2] / "docs" / "gate.md").read_text(encoding="utf-8")
ROWS = [[cell.strip() for cell in row.strip("|").split("|")] for row in re.findall(r"^\|.+\|$", PAGE, re.MULTILINE)]


def _row_of(name, num_cells):
    return [row for row in ROWS if row[0] == f"`{name}`" and len(row) == num_cells and not row[1][0].isdigit()]


@pytest.mark.parametrize("name", DEFAULT_RULES)
def test_the_page_shows_every_default_rule_as_it_is(name):
    rule = DEFAULT_RULES[name]
    [[_, measure, asked, _]] = _row_of(name, 4)
    number = rule.value if rule.margin is None else rule.margin
    assert measure == f"`{rule.measure}`"
    assert asked.startswith(rule.kind)
    assert re.search(r"\d[\d.]*", asked)[0] == f"{number:g}"
    assert ("where measured" in asked) == (not rule.required)


def test_the_page_names_every_measure_and_exit_code():
    listed = re.search(r"^Measures: (.+?)\n\n", PAGE, re.MULTILINE | re.DOTALL)[1]
    assert set(re.findall(r"`([\w/]+)`", listed)) - {"capability/NAME"} == set(MEASURES)
    codes = {row[0]: row[2] for row in ROWS if row[0] in ("pass", "fail", "inconclusive")}
    assert codes == {"pass": "0", "fail": str(EXIT_FAILED), "inconclusive": str(EXIT_INCONCLUSIVE)}


def test_the_configuration_on_the_page_is_read_as_it_says():
    [text] = re.findall(r"```yaml\n(.+?)```", PAGE, re.DOTALL)
    gate = build_config(yaml.safe_load(text)).gate
    assert gate.rules["repetition"].margin == 0.1
    assert gate.rules["distinct"] is None
    assert gate.rules["budget"].value == 10
    assert gate.rules["accuracy"] == DEFAULT_RULES["accuracy"]
    assert gate.overrides.keys() == {"longer"}


def test_the_numbers_of_prompts_on_the_page_are_what_the_formulas_give():
    guards = [row for row in ROWS if len(row) == 4 and row[3].isdigit()]
    assert len(guards) >= 7
    for name, margin, spread, num in guards:
        rule = GateConfig().rules[name.strip("`")]
        assert rule.margin == float(margin)
        # A spread is rounded to three digits.
        wanted = clusters_to_decide(rule.margin, float(spread.split()[0]), 1.0)
        assert int(num) == pytest.approx(wanted, rel=0.01)
    assert f"+10 points of win rate by a rule take {pairs_for_win_rate(0.1)} prompts" in PAGE
    assert f"+5 points {pairs_for_win_rate(0.05)} (" in PAGE
    assert "they take {} and {}.".format(*(pairs_for_win_rate(gain, twice=True) for gain in (0.1, 0.05))) in PAGE
