"""Numbers that are written as text with a point in them, which may stand before decimals or mark thousands.

Owns when a column of them admits two readings that order its numbers otherwise. It knows no form.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from tiebreak.data.formats.form import Ambiguous, Row

_SCORE = re.compile(
    r"(?:.*[_-])?(?:score|rating|reward|elo|points|upvotes|likes|votes)s?(?:[_-]?\w{1,20})?", re.IGNORECASE
)
_POINTED = re.compile(r"-?[1-9]\d{0,2}\.\d{3}")
_PLAIN = re.compile(r"-?\d{1,3}")
_LARGEST = 100
"""Shares of a hundred may have three decimals; whole numbers above it beside them speak for thousands."""


def refuse_thousands(rows: Sequence[Row], named: Sequence[str] = ()) -> None:
    """Raise Ambiguous where columns of scores, or those that are `named` so, may tell thousands by a point.

    All their cells are text: whole numbers of up to three digits, some of them above 100, and numbers such as 1.234.
    """
    names = {name: None for row in rows for name in row if _SCORE.fullmatch(name) or name in named}
    cells = [
        row[name].strip() for row in rows for name in names if isinstance(row.get(name), str) and row[name].strip()
    ]
    pointed = next((cell for cell in cells if _POINTED.fullmatch(cell)), None)
    plain = max((cell for cell in cells if _PLAIN.fullmatch(cell)), key=int, default="0")
    if pointed is None or int(plain) <= _LARGEST:
        return
    if all(_POINTED.fullmatch(cell) or _PLAIN.fullmatch(cell) for cell in cells):
        raise Ambiguous(
            f"{', '.join(map(repr, names))[:200]} hold numbers such as {pointed} beside {plain}, which may be "
            f"{pointed.replace('.', '')} or a little over {pointed.partition('.')[0]}: write thousands without a point "
            f"and decimals with as many digits as there are ({plain}.000)"
        )
