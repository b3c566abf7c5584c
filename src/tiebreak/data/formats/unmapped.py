"""Verdicts in forms that no mapping of columns reaches: exports of labelling tools, battles of whole conversations.

Owns how these are asked about. It knows no form.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tiebreak.data.formats.candidates import counts_from
from tiebreak.data.formats.cells import shown
from tiebreak.data.formats.form import Ambiguous
from tiebreak.data.formats.tallies import refuse_objects
from tiebreak.data.formats.votes import refuse_words

Told = Sequence[tuple[Any, Mapping[str, str]]]
"""Votes, or the cells that hold them, with the row's own words for its sides."""


def refuse_unmapped(column: str, votes: Told, sides: tuple[str, str], cells: Told = ()) -> None:
    """Raise Ambiguous where verdicts on two columns admit two readings, as words or as the objects of `cells`."""
    try:
        refuse_objects(column, {}, cells)
        refuse_words(column, {}, votes, counts_from(sides))
    except Ambiguous:
        words = ", ".join(dict.fromkeys(shown(vote) for vote, _ in cells or votes))[:100]
        raise Ambiguous(
            f"what '{column}' holds ({words}) admits two readings; write '{sides[0]}', '{sides[1]}' or tie in its "
            "place, as each is meant"
        ) from None
