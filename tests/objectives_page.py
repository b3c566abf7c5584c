"""The tables of docs/objectives.md, made of the table of objectives and of what the tests hold.

python tests/objectives_page.py        # writes them into the page
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import tiebreak
from tiebreak.config.losses import SECTIONS
from tiebreak.maths.objectives import Objective

sys.path[:0] = [str(Path(__file__).parent / folder) for folder in ("", "parity", "maths/objectives")]
PAGE = Path(__file__).parents[1] / "docs" / "objectives.md"
WITH_TRL = {
    "dpo": "20 steps",
    "dpo_norm": "20 steps",
    "ipo": "20 steps, mean",
    "bco": "3 steps, δ 0",
    "apo_zero": "3 steps, less TRL's 1",
    "apo_down": "3 steps, less TRL's 1",
    "simpo": "its function",
    "alphapo": "its function",
    "cpo": "its function, α 0",
    "orpo": "its odds",
    "sft": "differs: TRL divides by the tokens of a micro-batch",
} | dict.fromkeys(
    ("hinge", "robust", "exo", "nca", "sppo_hard", "aot", "aot_unpaired", "discopop"), "3 steps"
)  # fmt: skip
"""What tests/parity/test_trl_objectives.py compares; TRL 1.16 has no other one of these."""


def sections() -> str:
    """A part for each objective: formula, when, source, settings."""
    parts = []
    for one in tiebreak.losses():
        needs = [
            *(["completions on their own"] if one.learns_from == "completions" else one.facts),
            *([] if one.reference else ["no reference"]),
            *(["the whole step"] if one.whole_step else []),
        ]
        lines = [
            f"### {one.name}",
            "",
            f"{one.title}.",
            "",
            f"    {one.formula}",
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
    """Loss × check: what the tests hold each objective to."""
    from test_formulas import AT_START, LIMITS, SETTINGS

    lines = [
        "| objective | settings tried | start value | limit that is its parent | TRL 1.16 |",
        "|---|---|---|---|---|",
    ]
    for name, section in SECTIONS.items():
        value = AT_START.get(name)
        limits = [
            f"{parent} ({', '.join(f'{k} {v:g}' for k, v in said.items())})"
            for n, said, parent, _ in LIMITS.values()
            if n == name
        ]
        start = "of the data" if value is None else f"{value:.6g}"
        if not Objective.of(section()).formula.asks_reference:
            start = "no reference"
        cells = [name, str(len(SETTINGS.get(name, [{}]))), start, "; ".join(limits), WITH_TRL.get(name, "")]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


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
