"""Two completions and how strongly one is preferred: HelpSteer's signed strengths, and those without a sign.

Owns what a sign means, and when it cannot be known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from tiebreak.data.formats.annotations import number
from tiebreak.data.formats.candidates import (
    completion,
    completions_of,
    has_prompt,
    is_paired,
    names_of_sides,
    prompt_in,
    sides_of,
)
from tiebreak.data.formats.cells import column_in, kind_of, shown, value_in
from tiebreak.data.formats.form import Ambiguous, Format, Pairing, Reading, Row, RowError, as_options
from tiebreak.data.formats.messages import tools_of
from tiebreak.data.formats.naming import mapping_of_prompt
from tiebreak.data.formats.pairing import soft_label, vote_of
from tiebreak.data.formats.proportions import nearly_all
from tiebreak.data.formats.tallies import MAX_VOTES
from tiebreak.data.formats.verdicts import replaced, side_of
from tiebreak.data.formats.votes import STRENGTHS, VERDICTS, VOTES, names_sides, settled_votes
from tiebreak.records import Pair, Preference, Vote

_PROMPTS = ("prompt", "context", "instruction", "question", "query")
_SINGLE = (("individual_preference", "score"), ("three_most_similar_preferences", "strength"))


def _is_helpsteer(row: Row) -> bool:
    has_prompt_column = has_prompt(row) or row.get("context") is not None
    strength = value_in(row, STRENGTHS)
    is_stated = number(strength) is not None or (strength is not None and not names_sides(row))
    return is_stated and len(completions_of(row)) == 2 and has_prompt_column and not is_paired(row)


def _read_helpsteer(row: Row, pairing: Pairing) -> Reading:
    """HelpSteer2 and 3 (Wang et al. 2024): strength -3 (the first is much better) to 3; its size is the margin."""
    name, value = column_in(row, STRENGTHS)
    strength = number(value)
    if strength is None:
        raise RowError("wrong_type", f"'{name}' is a number, found {kind_of(value)}")
    sides = sides_of(row) or ("", "")
    first, second = (completion(row[side], side) for side in sides)
    prompt = prompt_in(row, _PROMPTS)
    if strength == 0 or abs(strength) < pairing.min_margin:
        raise RowError("tie", f"'{name}' is {strength:g}")
    sign = 1 if strength > 0 else -1
    votes: list[Vote] = []
    for column, key in _SINGLE:
        items = row[column][:MAX_VOTES] if isinstance(row.get(column), list) else []
        single = [number(item.get(key)) for item in items if isinstance(item, Mapping)]
        votes += [vote_of(sign * one) for one in single if one is not None]
    label = soft_label(votes) if votes else None
    preference = Preference(margin=abs(strength), votes=tuple(votes), soft_label=label)
    chosen, rejected = (first, second) if strength < 0 else (second, first)
    return Reading((Pair(prompt, chosen, rejected, tools_of(row.get("tools")), None, preference),))


def _settled_strengths(form: Format, rows: Sequence[Row]) -> Format:
    """Take the winner that rows state beside a strength without a sign; refuse a sign that nobody can know.

    Strengths above zero alone, or but for a slip, and no winner, may say that the second is always better, or how
    strong a preference for nobody knows whom.
    """
    judged = [row for row in rows if _is_helpsteer(row)]
    name = column_in(judged[0], STRENGTHS)[0] if judged else ""
    told = [(row, strength) for row in judged if (strength := number(value_in(row, STRENGTHS)))]
    winner = _winner_column([row for row, _ in told])
    sides = sides_of(judged[0]) or ("", "") if judged else ("", "")
    prompt = mapping_of_prompt(judged, _PROMPTS) if judged else {}
    stated = prompt | {"completion_a": sides[0], "completion_b": sides[1]}
    num_below = sum(strength < 0 for _, strength in told)
    is_unsigned = num_below < _SIGNED * len(told)
    if winner is None and is_unsigned and len(told) >= _ENOUGH:
        share = f"{len(told) - num_below} of" if num_below else "all of"
        raise Ambiguous(
            f"'{name}' is above zero in {share} the first {len(told)} rows, and no column says who won: name "
            f"the column that does (winner=…), or say that its sign is meant (below zero: the first): "
            f"{as_options(stated | {'strength': name})}"
        )
    if winner is None:
        return form
    if is_unsigned:
        return settled_votes(VOTES, rows)
    stated_sides = [(side_of(_named(row, row.get(winner))), strength) for row, strength in told]
    decided = [(side, strength) for side, strength in stated_sides if side in ("first", "second")]
    agree = [(side == "first") == (strength < 0) for side, strength in decided]
    if decided and not nearly_all(agree):
        apart = agree.count(False)
        raise Ambiguous(
            f"'{winner}' and the sign of '{name}' (below zero the first is better) name different sides in {apart} of "
            f"{len(decided)} rows. To go by the first: {as_options(stated | {'winner': winner})}; by the second: "
            f"{as_options(stated | {'strength': name})}"
        )
    return replace(form, read=partial(_read_agreeing, winner))


_ENOUGH = 3
"""Rows whose strengths are all above zero, after which it is asked what that means."""
_SIGNED = 0.05
"""Of the strengths, as many have to be below zero before they say that a sign is meant; fewer are slips."""


def _winner_column(rows: Sequence[Row]) -> str | None:
    """Return the column that names the better side in all rows, or a tie; a signed number does not."""
    names = [name for name in VERDICTS if any(row.get(name) is not None for row in rows)]
    return next((name for name in names if nearly_all(side_of(_named(row, row.get(name))) for row in rows)), None)


def _named(row: Row, value: Any) -> Any:
    return replaced(value, names_of_sides(row, sides_of(row) or ("", "")))


def _read_agreeing(winner: str, row: Row, pairing: Pairing) -> Reading:
    """Read a signed strength, and refuse a row whose stated winner is the other side."""
    reading = _read_helpsteer(row, pairing)
    strength = number(value_in(row, STRENGTHS)) or 0.0
    if side_of(_named(row, row.get(winner))) == ("second" if strength < 0 else "first"):
        told = shown(row.get(winner))
        raise RowError("wrong_type", f"'{winner}' is {told}, and the sign of the strength says otherwise")
    return reading


def _why_strength(row: Row) -> str:
    name, value = column_in(row, STRENGTHS)
    return f"{name} {shown(value)}: below zero the first is better"


HELPSTEER = Format(
    "helpsteer",
    "HelpSteer2-preference, HelpSteer3",
    '{"prompt": …, "response_1": …, "response_2": …, "preference_strength": -2}',
    _is_helpsteer,
    _read_helpsteer,
    _settled_strengths,
    _why_strength,
)
