"""The tables of docs/objectives.md, made of the table of objectives and of what the tests hold.

python tests/objectives_page.py        # writes them into the page
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import tiebreak
from tiebreak.config.losses import SECTIONS, meant_by
from tiebreak.maths.objectives import Objective

FOLDERS = ("parity", "maths/objectives", "training")
sys.path[:0] = [str(Path(__file__).parent / folder) for folder in ("", *FOLDERS)]
PAGE = Path(__file__).parents[1] / "docs" / "objectives.md"


def sections() -> str:
    """A part for each objective: formula, when, source, settings."""
    parts = []
    for one in tiebreak.losses():
        needs = [
            *(one.facts if one.learns_from == "pairs" else [f"{one.learns_from} on their own"]),
            *([] if one.reference else ["no reference"]),
            *(["the whole step"] if one.whole_step else []),
        ]
        lines = [
            f"### {one.name}",
            "",
            f"{one.title}.",
            "",
            "$$",
            one.tex,
            "$$",
            "",
            f"{one.use}",
            "",
            f"Watch: {one.watch}",
            "",
        ]
        lines += [f"Source: {one.source}." + (f" Also called {', '.join(one.aliases)}." if one.aliases else "")]
        lines += [f"Needs: {', '.join(needs)}."] if needs else []
        own = [setting for setting in one.settings if setting.name not in one.modifiers]
        if own:
            lines += ["", *_table(own)]
        if one.modifiers:
            lines += ["", f"Modifiers: {', '.join(f'`{name}`' for name in one.modifiers)}."]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def modifiers() -> str:
    """A row for each modifier, and which objectives read them."""
    described = tiebreak.losses()
    found = {setting.name: setting for one in described for setting in one.settings if setting.name in one.modifiers}
    read: dict[str, list[str]] = {}
    for name in found:
        readers = ", ".join(one.name for one in described if name in one.modifiers)
        read.setdefault(readers, []).append(f"`{name}`")
    lines = [f"{', '.join(names)}: read by {readers}." for readers, names in read.items()]
    return "\n".join([*_table(list(found.values())), "", "\n\n".join(lines)])


def _table(settings: list[Any]) -> list[str]:
    rows = [f"| `{s.name}` | {s.default} | {s.range} | {s.safe} | {s.description} |" for s in settings]
    return ["| setting | default | range | safe | |", "|---|---|---|---|---|", *rows]


def proofs() -> str:
    """Loss × check: what the tests hold each objective to, from the tables that these tests run over."""
    from test_every_objective import test_a_run_that_was_killed_ends_with_the_same_bits as resumed
    from test_formulas import AT_START, CASES, LIMITS
    from test_formulas import test_its_gradient_is_the_slope_of_the_loop as slope

    heads = ("objective", "value, gradient", "start value", "limit", "TRL 1.16", "cuts of a step", "resume")
    tried, goes_on, cuts = _ran_over(slope), _ran_over(resumed), _cuts()
    assert tried == CASES
    rows = []
    for name, section in SECTIONS.items():
        value = AT_START.get(name)
        start = "of the data" if value is None else f"{value:.6g}"
        if not Objective.of(section()).formula.asks_reference:
            start = "no reference"
        limits = [
            f"{parent} ({', '.join(f'{key} {number:g}' for key, number in said.items())})"
            for of, said, parent, _ in LIMITS.values()
            if of == name
        ]
        settings = sum(of == name for of, _ in tried)
        last = "same bits" if name in goes_on else ""
        rows.append((name, _counted(settings, "setting"), start, "; ".join(limits), _trl(name), str(cuts[name]), last))
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (heads, ["---"] * len(heads), *rows))


def _trl(name: str) -> str:
    """What of TRL an objective is compared with: steps of a trainer, a function, and what TRL means otherwise."""
    from cases import OF_FUNCTIONS, OF_KTO, OF_PAIRS

    alike: dict[str, list[str]] = {}
    for case, steps in (OF_PAIRS | OF_KTO).items():
        if meant_by(steps.loss["name"])[0] == name:
            notes = [f"less TRL's {steps.added:g}"] if steps.added else []
            told = ", ".join(filter(None, [_counted(steps.num, "step"), *notes, steps.note]))
            alike.setdefault(told, []).append(case.removeprefix(name).strip(" ,"))
    found = []
    for told, variants in alike.items():
        named = ", ".join(filter(None, variants))
        found.append(f"{told}, also {named}" if named and "" in variants else f"{named}: {told}" if named else told)
    found += ["its function in float64"] if name in OF_FUNCTIONS else []
    return "; ".join(found) or "has none"


def _cuts() -> Counter[str]:
    """How many cuts of a step equal the undivided one: budgets and layouts, for each setting and modifier tried."""
    from test_step import test_a_step_equals_the_undivided_one as cut

    ways = {mark.args[0]: mark.args[1] for mark in cut.pytestmark if mark.name == "parametrize"}
    each = len(ways["budget"]) * len(ways["layout"])
    tried = Counter(objective.name for objective in ways["objective"])
    return Counter({name: each * num for name, num in tried.items()})


def _ran_over(test: Any) -> list[Any]:
    """The cases of a test that runs over one table."""
    [mark] = [mark for mark in test.pytestmark if mark.name == "parametrize"]
    return list(mark.args[1])


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number > 1 else ''}"


TABLES = {"modifiers": modifiers, "objectives": sections, "proofs": proofs}


def page(text: str) -> str:
    """The page with its made parts as they are now."""
    for name, made in TABLES.items():
        block = rf"(<!-- made: {name} -->\n).*?(\n<!-- end: {name} -->)"
        assert re.search(block, text, re.S), name
        text = re.sub(block, lambda found, made=made: found[1] + "\n" + made() + "\n" + found[2], text, flags=re.S)
    return text


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
