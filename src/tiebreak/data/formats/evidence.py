"""What stands beside a pair and says who won: nobody, or the other side than its columns do.

Owns when such a word is evidence, and when a number is asked about. It knows no form that reads verdicts itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, Literal

from tiebreak.data.formats.annotations import annotated
from tiebreak.data.formats.candidates import is_paired, names_of_sides, sides_of
from tiebreak.data.formats.form import Ambiguous, Format, Pairing, Reading, Row, RowError, as_options
from tiebreak.data.formats.guesses import proposed_columns
from tiebreak.data.formats.naming import prompt_named
from tiebreak.data.formats.proportions import NEARLY_ALL
from tiebreak.data.formats.verdicts import is_number, replaced, side_of, word_of
from tiebreak.data.formats.votes import VERDICTS
from tiebreak.records import Pair

Told = Literal["tie", "chosen", "rejected"]
_COLUMNS = (*VERDICTS, "status", "outcome", "result")


def agreeing(form: Format, rows: Sequence[Row], *, are_named: bool = False) -> Format:
    """Return a form of pairs that drops what a word beside the pair calls a tie, and a row that it contradicts.

    Raises Ambiguous where the words of a column name the rejected side in more than a few rows, or its numbers may say
    which of the two is the better one. `are_named` is that the user has said which column is which side: then there is
    nothing to ask, and a few contradictions alone are slips.
    """
    mapping = dict(form.mapping)
    if (are_named or mapping) and not {"chosen", "rejected"} <= mapping.keys():
        return form
    rows = [row for row in rows if form.name == "columns" or is_paired(row)]
    if not are_named:
        _refuse_numbers(form, rows)
    held = {name for row in rows for name in _COLUMNS if isinstance(row.get(name), str)}
    held -= {*mapping.values()} if are_named else set()
    found: dict[str, Counter[Told | None]] = {name: Counter() for name in _COLUMNS if name in held}
    for row in rows if found else ():
        with suppress(RowError):
            pairs = form.read(row, Pairing()).pairs if form.matches(row) else ()
            for name, told in found.items():
                told.update(_told(row, name, pair) for pair in pairs[:1])
    apart = [
        name
        for name, told in found.items()
        if told["chosen"] < NEARLY_ALL * (told["chosen"] + told["rejected"])
        and (are_named or told["rejected"] > (1 - NEARLY_ALL) * len(rows))
    ]
    for name in apart if not are_named else ():
        row = next(row for row in rows if row.get(name))
        raise Ambiguous(_question(row, name, found[name], _own_sides(form, row), prompt_named(form, rows)))
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


def _question(
    row: Row, column: str, told: Counter[Told | None], own: Mapping[str, str], prompt: Mapping[str, str]
) -> str:
    sides = sides_of(row)
    verdict = {"completion_a": own["chosen"], "completion_b": own["rejected"], "winner": column}
    verdict |= {"winner.first": "chosen", "winner.second": "rejected"}
    if word_of(row[column]) not in ("chosen", "rejected") and sides is not None:
        verdict = {"completion_a": sides[0], "completion_b": sides[1], "winner": column}
    return (
        f"'{column}' names the rejected side in {told['rejected']} of {told['chosen'] + told['rejected']} rows. To go "
        f"by the sides: {as_options({**prompt, **own})}; by '{column}': {as_options({**prompt, **verdict})}"
    )


def _own_sides(form: Format, row: Row) -> dict[str, str]:
    """Return a mapping of the two sides as a form reads them; `COLUMN` where no name tells."""
    stated, start = dict(form.mapping), proposed_columns(row)
    openai = {"chosen": "preferred_output", "rejected": "non_preferred_output"}
    known = stated if "chosen" in stated else openai if openai["chosen"] in row else start
    return {side: known.get(side, "COLUMN") for side in ("chosen", "rejected")}


_NUMBERED = (*VERDICTS, "labels")
_PLACES = ({"0", "1"}, {"1", "2"}, {"-1", "1"}, {"false", "true"}, {"0", "1", "2"}, {"-1", "0", "1"})
"""What a column holds whose numbers may say which side is the better one; one that is always the same says nothing."""


def _refuse_numbers(form: Format, rows: Sequence[Row]) -> None:
    """Raise Ambiguous where the numbers of a column beside pairs may name sides."""
    for name in (name for name in _NUMBERED if name not in dict(form.mapping).values()):
        told = Counter(word_of(row[name]) for row in rows if isinstance(row.get(name), str | int | float))
        if set(told) in _PLACES and not _are_known(form, rows, name):
            raise Ambiguous(_question_of_numbers(form, rows, name, told))


def _are_known(form: Format, rows: Sequence[Row], column: str) -> bool:
    """Whether the sides are known in nearly all rows: their scores say so, or the numbers of a column name other
    columns that hold the same texts.
    """
    num_pairs = num_scored = 0
    named: Counter[tuple[str, bool]] = Counter()
    for row in rows:
        with suppress(RowError):
            for pair in form.read(row, Pairing()).pairs[:1] if form.matches(row) else ():
                said, sides = annotated(pair, row).preference, sides_of(row)
                num_pairs += 1
                if said.chosen_score is not None and said.rejected_score is not None:
                    num_scored += said.chosen_score > said.rejected_score
                if sides is not None:
                    named[word_of(row.get(column)), row[sides[0]] == pair.chosen.content] += 1
    num_agreeing = sum(max(named[word, True], named[word, False]) for word in {word for word, _ in named})
    return max(num_scored, num_agreeing) > NEARLY_ALL * num_pairs


def _question_of_numbers(form: Format, rows: Sequence[Row], column: str, told: Counter[str]) -> str:
    own, prompt = _own_sides(form, rows[0]), prompt_named(form, rows)
    counts = ", ".join(f"{word} in {told[word]} rows" for word in sorted(told))
    asked = f"'{column}' is {counts}, and may say which of '{own['chosen']}' and '{own['rejected']}' is the better one"
    is_named = prompt.get("prompt", "COLUMN") != "COLUMN"
    if not is_named and not isinstance(rows[0].get(own["chosen"]), list):
        return f"{asked}: leave it out of the file where it does not; where it does, exchange the sides that it says"
    keep = as_options({**(prompt if is_named else {}), **own})
    if not is_named:
        return f"{asked}. Where it does not: {keep}; where it does, exchange the sides that it says"
    verdict = {**prompt, "completion_a": own["chosen"], "completion_b": own["rejected"], "winner": column}
    # Who counts from zero has the tie after both sides, who counts from one before them.
    ties = ("0", "2") if told.keys() == {"0", "1", "2"} else ("0",) if len(told) == 3 else ("",)
    ways = []
    for tie in ties:
        low, high = sorted(told.keys() - {tie})
        beside = f", and {tie} for a tie" if len(ties) > 1 else ""
        for one, other in ((high, low), (low, high)):
            words = {"winner.first": one, "winner.second": other} | ({"winner.tie": tie} if tie else {})
            ways.append(f"where {one} stands for '{own['chosen']}'{beside}: {as_options(verdict | words)}")
    return f"{asked}. Where it does not: {keep}; {'; '.join(ways)}"


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
