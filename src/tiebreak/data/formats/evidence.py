"""Words that stand beside a pair and say who won: nobody, or the other side than its columns do.

Owns when such a word is evidence. It knows no form that reads verdicts itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, Literal

from tiebreak.data.formats.candidates import is_paired, names_of_sides, sides_of
from tiebreak.data.formats.form import Ambiguous, Format, Pairing, Reading, Row, RowError, as_options
from tiebreak.data.formats.guesses import proposed_columns
from tiebreak.data.formats.proportions import NEARLY_ALL
from tiebreak.data.formats.verdicts import is_number, replaced, side_of, word_of
from tiebreak.data.formats.votes import VERDICTS
from tiebreak.records import Pair

Told = Literal["tie", "chosen", "rejected"]
_COLUMNS = (*VERDICTS, "status", "outcome", "result")


def agreeing(form: Format, rows: Sequence[Row], *, are_named: bool = False) -> Format:
    """Return a form of pairs that drops what a word beside the pair calls a tie, and a row that it contradicts.

    Raises Ambiguous where the words of a column name the rejected side in more than a few rows. `are_named` is that the
    user has said which column is which side: then there is nothing to ask, and a few contradictions alone are slips.
    """
    mapping = dict(form.mapping)
    if are_named and not {"chosen", "rejected"} <= mapping.keys():
        return form
    rows = [row for row in rows if form.name == "columns" or is_paired(row)]
    held = {name for row in rows for name in _COLUMNS if isinstance(row.get(name), str)}
    held -= {*mapping.values()} if are_named else set()
    found: dict[str, Counter[Told | None]] = {name: Counter() for name in _COLUMNS if name in held}
    for row in rows if found else ():
        with suppress(RowError):
            pairs = form.read(row, Pairing()).pairs if form.matches(row) else ()
            for name, told in found.items():
                told.update(_told(row, name, pair) for pair in pairs[:1])
    apart = [name for name, told in found.items() if told["chosen"] < NEARLY_ALL * (told["chosen"] + told["rejected"])]
    for name in apart if not are_named else ():
        raise Ambiguous(_question(next(row for row in rows if row.get(name)), name, found[name]))
    columns = {name: name not in apart for name, told in found.items() if any(key is not None for key in told)}
    return replace(form, read=partial(_read_agreeing, form, columns)) if columns else form


def _told(row: Row, column: str, pair: Pair) -> Told | None:
    """Return what a word says of a pair, None where it says nothing; numbers may be anything."""
    value: Any = row.get(column)
    if not isinstance(value, str) or is_number(value) or value in (pair.chosen.content, pair.rejected.content):
        return None
    word, sides = word_of(value), sides_of(row)
    if word in ("chosen", "rejected"):
        return "chosen" if word == "chosen" else "rejected"
    side = side_of(value if sides is None else replaced(value, names_of_sides(row, sides)))
    if side is None or side == "tie" or sides is None:
        return "tie" if side == "tie" else None
    text = row[sides[side == "second"]]
    return "chosen" if text == pair.chosen.content else "rejected" if text == pair.rejected.content else None


def _question(row: Row, column: str, told: Counter[Told | None]) -> str:
    start, sides = proposed_columns(row), sides_of(row)
    prompt = {ours: start[ours] for ours in ("prompt", "input") if ours in start}
    own = {"chosen": start.get("chosen", "COLUMN"), "rejected": start.get("rejected", "COLUMN")}
    verdict = {"completion_a": own["chosen"], "completion_b": own["rejected"], "winner": column}
    verdict |= {"winner.first": "chosen", "winner.second": "rejected"}
    if word_of(row[column]) not in ("chosen", "rejected") and sides is not None:
        verdict = {"completion_a": sides[0], "completion_b": sides[1], "winner": column}
    return (
        f"'{column}' names the rejected side in {told['rejected']} of {told['chosen'] + told['rejected']} rows. To go "
        f"by the sides: {as_options(prompt | own)}; by '{column}': {as_options(prompt | verdict)}"
    )


def _read_agreeing(form: Format, columns: Mapping[str, bool], row: Row, pairing: Pairing) -> Reading:
    """Read a pair, unless one of the columns calls it a tie, or one that may do so contradicts it."""
    reading = form.read(row, pairing)
    for name, may_contradict in columns.items() if reading.pairs else ():
        told = _told(row, name, reading.pairs[0])
        if told == "tie":
            raise RowError("tie", f"'{name}' is {row[name]!r:.40}")
        if told == "rejected" and may_contradict:
            raise RowError("wrong_type", f"'{name}' is {row[name]!r:.40}, and names the rejected side")
    return reading
