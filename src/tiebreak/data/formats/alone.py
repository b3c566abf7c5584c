"""Completions on their own to rows, as TRL's unpaired form has them: `writing` for what is not held against another.

Owns which forms have a place for such a completion. A row written here reads back as the same one.
"""

from __future__ import annotations

from typing import Any

from tiebreak.data.formats import detect, read_row
from tiebreak.data.formats.form import Reading, RowError
from tiebreak.records import Source, Thumb

FORMS = ("tiebreak", "thumbs")
"""Forms that can hold them: tiebreak's own has nothing to add to TRL's."""


def write_thumb(thumb: Thumb) -> dict[str, Any]:
    """Return the row of a completion on its own; raises RowError `not_expressible` where it would be another one."""
    row: dict[str, Any] = {"prompt": [message.as_dict() for message in thumb.prompt]}
    row |= {"tools": list(thumb.tools)} if thumb.tools else {}
    row |= {"completion": [thumb.completion.as_dict()], "label": thumb.liked}
    row |= {"weight": thumb.weight} if thumb.weight != 1 else {}
    origin = thumb.origin.as_dict()
    row |= {"license" if name == "licence" else name: value for name, value in origin.items()}
    try:
        form = detect(row)
        reading = read_row(row, form, Source("", 0)) if form else Reading()
    except RowError:
        reading = Reading()
    if [(one.example_id, one.weight, one.origin) for one in reading.thumbs] != [
        (thumb.example_id, thumb.weight, thumb.origin)
    ]:
        raise RowError("not_expressible", "in TRL's unpaired form it would read back as another completion")
    return row
