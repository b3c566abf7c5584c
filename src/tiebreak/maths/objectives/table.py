"""The table of objectives: every row by its name, in the order in which people read them.

Whoever needs to know something of an objective asks its row; no name of an objective stands anywhere else.
"""

from __future__ import annotations

from collections.abc import Mapping

from tiebreak.maths.objectives import gaps, next_token, sides, steps, sums, thumbs
from tiebreak.maths.objectives.formula import Formula

OBJECTIVES: Mapping[str, Formula] = {
    name: row
    for rows in (gaps.ROWS, next_token.ROWS, sides.ROWS, steps.ROWS, thumbs.ROWS, sums.ROWS)
    for name, row in rows.items()
}
