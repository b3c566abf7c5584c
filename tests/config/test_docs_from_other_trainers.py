"""The page about other trainers says what the table says."""

from __future__ import annotations

from pathlib import Path

from tiebreak.config.foreign import NAMES

PAGE = Path(__file__).parents[2] / "docs" / "from-other-trainers.md"


def rows() -> list[str]:
    """The rows of both tables of the page."""
    taken = [
        f"| `{name.ours}` | {', '.join(f'`{one}`' for one in name.theirs)} | {name.why} |"
        for name in NAMES
        if name.ours
    ]
    none = [f"| {name.why} | {', '.join(f'`{one}`' for one in name.theirs)} |" for name in NAMES if not name.ours]
    return [*taken, *none]


def test_the_page_has_every_row_of_the_table_in_its_order():
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line.startswith("| ") and "`" in line] == rows()
