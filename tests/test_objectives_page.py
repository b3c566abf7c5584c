"""docs/objectives.md says what the table of objectives says, and what the tests hold."""

from __future__ import annotations

import re

import pytest
from cases import OF_FUNCTIONS, OF_KTO, OF_PAIRS

import objectives_page
import tiebreak
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


SYMBOLS = {
    "beta": (r"\beta", "r_w", "(r"),
    "label_smoothing": r"\varepsilon",
    "soft_labels": "soft label",
    "tau": r"\tau",
    "length": "(mean)",
    "delta": r"\delta",
    "alpha": r"\alpha",
    "scale": r"\log \Delta s",
    "eta": r"\eta",
    "gamma": r"\gamma",
    "penalty": r"\lambda",
    "shift": r"\lambda",
    "sft_weight": (r"\lambda", "w_3"),
    "beta_prime": r"\beta'",
    "dpo_weight": "w_1",
    "bco_weight": "w_2",
    "desirable_weight": r"\lambda_D",
    "undesirable_weight": r"\lambda_U",
    "phi": r"\varphi",
    "kept_share": r"\kappa",
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_formula_is_one_that_every_reader_of_latex_can_set(name):
    from matplotlib.mathtext import MathTextParser

    tex = tiebreak.losses(name)[0].tex
    assert tex == OBJECTIVES[name].tex, "as the verb tells it"
    assert tex and tex == tex.strip(), "none, or a blank beside it"
    assert "\n" not in tex
    # Markdown eats a backslash before punctuation, and a blank line or a dollar ends the block.
    assert re.findall(r"\\[^a-zA-Z]|[$<>&*]", tex) == []
    assert tex.count(r"\left") == tex.count(r"\right")
    for opening, closing in ("{}", "()"):
        plain = tex.replace("_{(i)}", "").replace("^{ref}", "")
        depths = [plain[: at + 1].count(opening) - plain[: at + 1].count(closing) for at in range(len(plain))]
        assert min(depths) >= 0, plain
        assert depths[-1] == 0, plain
    _, _, depth, *_ = MathTextParser("path").parse(f"${tex}$")
    assert depth >= 0
    assert f"\n$$\n{tex}\n$$\n" in objectives_page.PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_formula_has_every_setting_of_its_objective_in_it_and_its_own_symbols_alone(name):
    [one] = tiebreak.losses(name)
    own = {setting.name for setting in one.settings} - {*one.modifiers}
    asked = {key: SYMBOLS[key] if isinstance(SYMBOLS[key], tuple) else (SYMBOLS[key],) for key in own}
    assert [key for key, symbols in asked.items() if not any(symbol in one.tex for symbol in symbols)] == []
    allowed = " ".join(symbol for symbols in asked.values() for symbol in symbols)
    letters = set(re.findall(r"\\(?:alpha|beta|gamma|delta|varepsilon|eta|tau|lambda|varphi|kappa)", one.tex))
    assert letters <= set(re.findall(r"\\[a-z]+", allowed))


def test_what_the_page_calls_not_yet_there_is_no_objective_of_the_table():
    text = objectives_page.PAGE.read_text(encoding="utf-8")
    told = text.partition("## Not yet")[2].partition("\n## ")[0]
    assert [name for name in SECTIONS if f"`{name}`" in told] == []


def test_the_formula_of_beta_dpo_says_which_pairs_and_how_many():
    [found] = [one for one in tiebreak.losses() if one.name == "beta_dpo"]
    assert r"K \sim e^{-\frac{1}{2} ((D_i - M_0) / \max(\sigma, 10^{-3}))^2}" in found.tex
    assert r"\max(1, \lfloor \kappa N \rfloor)" in found.tex
    text = objectives_page.PAGE.read_text(encoding="utf-8")
    assert "κN, rounded down and one at least" in text
    assert "rounded down, one at least; 1: all" in text
