"""The part of docs/diagnoses.md about each cause, made of the table of causes.

python tests/diagnoses_page.py        # writes it into the page; the table of what was provoked is provoked.py's
"""

from __future__ import annotations

import re
from pathlib import Path

from tiebreak.diagnosis.causes import CAUSES

PAGE = Path(__file__).parents[1] / "docs" / "diagnoses.md"
_MARKED = r"(<!-- made: causes -->\n).*?(\n<!-- end: causes -->)"


def causes() -> str:
    """A part for each cause: what it means, what is read, what it explains."""
    titles = {one.name: one.title.lower() for one in CAUSES}
    parts = []
    for one in CAUSES:
        effects = ", ".join(titles[name] for name in one.explains)
        lines = [f"### {one.title}", "", f"`{one.name}`. {one.meaning}", "", f"Read: {one.reads}", "", f"Do: {one.do}"]
        lines += ["", f"Explains, where it is at work: {effects}."] if effects else []
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def page(text: str) -> str:
    """The page with its made part as it is now."""
    assert re.search(_MARKED, text, re.S)
    return re.sub(_MARKED, lambda found: f"{found[1]}\n{causes()}\n{found[2]}", text, flags=re.S)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
