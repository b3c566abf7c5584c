"""Rows that hold three completions or more, in columns that count on, and which of them is the best.

Owns this shape: the best one is better than each of the others, of which nothing is said. Two completions are `votes`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from tiebreak.data.formats.candidates import completion, completions_of, has_prompt, has_scores, is_paired, prompt_in
from tiebreak.data.formats.cells import shown
from tiebreak.data.formats.form import Ambiguous, Format, Pairing, Reading, Row, RowError
from tiebreak.data.formats.messages import tools_of
from tiebreak.data.formats.pairing import Ballot, Judged, pairs_of
from tiebreak.data.formats.proportions import nearly_all, not_few
from tiebreak.data.formats.tallies import MAX_VOTES
from tiebreak.data.formats.verdicts import counter_of, is_number, place_named, side_of, word_of
from tiebreak.data.formats.votes import VERDICTS, told_votes


def _is_best(row: Row) -> bool:
    if len(completions_of(row)) < 3 or not has_prompt(row) or is_paired(row):
        return False
    held = [name for name in VERDICTS if row.get(name) is not None]
    return any(_places(row, name) is not None for name in held) or (bool(held) and not has_scores(row))


def _is_several(row: Row) -> bool:
    return len(completions_of(row)) > 1 and has_prompt(row) and not is_paired(row)


def _place(row: Row, value: Any) -> int | None:
    """Return the place of the completion that a verdict names, -1 where it says that none is better, else None."""
    columns = completions_of(row)
    same = [place for place, name in enumerate(columns) if isinstance(value, str) and row[name] == value]
    found = same[0] if same else place_named(value, columns, None)
    models = [] if same else [word_of(row[name]) for name in _models_of(row, columns)]
    if isinstance(value, str) and models.count(word_of(value)) == 1:
        model = models.index(word_of(value))
        return model if found in (None, model) else None  # the name of one, and the word for another
    return -1 if found is None and not is_number(value) and side_of(value) == "tie" else found


_MODEL = re.compile(r"(?:model|generator)[_ -]?(?:[0-9]{1,3}|[a-z])", re.IGNORECASE)


def _models_of(row: Row, columns: Sequence[str]) -> list[str]:
    """Return the columns that name the model behind each completion, as they count; [] where they are not as many."""
    found = [name for name in row if _MODEL.fullmatch(name) and isinstance(row[name], str) and name not in columns]
    return sorted(found, key=lambda name: (len(name), name)) if len(found) == len(columns) else []


def _places(row: Row, column: str) -> list[int] | None:
    """Return the places that the votes of a column name, None where one of them names none."""
    found = [_place(row, value) for value, *_ in _told(row, column)]
    places = [place for place in found if place is not None]
    return places if places and len(places) == len(found) else None


def _told(row: Row, column: str) -> list[tuple[Any, str, str]]:
    verdict = row.get(column)
    if isinstance(verdict, Mapping) and any(place_named(key, completions_of(row), None) is not None for key in verdict):
        return [(verdict, column, "")]  # numbers of what, nobody says
    return list(told_votes(row, column))


def _columns_of(rows: Sequence[Row]) -> list[str]:
    """Return the columns whose cells name the best completion, else those that should."""
    held = [name for name in VERDICTS if any(row.get(name) is not None for row in rows)]
    told = {name: [_places(row, name) for row in rows if row.get(name) is not None] for name in held}
    sound = [name for name, found in told.items() if nearly_all(found)]
    return sound or held or list(VERDICTS)


def _settled_best(form: Format, rows: Sequence[Row]) -> Format:
    """Take the column that names the best one; refuse two that disagree, and numbers that count from elsewhere."""
    judged = [row for row in rows if _is_best(row)]
    if not judged:
        return form
    (column, *others), columns = _columns_of(judged), completions_of(judged[0])
    for other in others:
        both = [(one, two) for row in judged if (one := _places(row, column)) and (two := _places(row, other))]
        apart = sum(one != two for one, two in both)
        if both and not nearly_all(one == two for one, two in both):
            raise Ambiguous(
                f"'{column}' and '{other}' name different completions in {apart} of {len(both)} rows; leave one of "
                "them in the file"
            )
    told = [value for row in judged for value, *_ in _told(row, column)]
    numbers = {word_of(value) for value in told if is_number(value)} | {str(counter_of(value)) for value in told}
    if "0" in numbers and columns[0][-1:] == "1":
        raise Ambiguous(
            f"'{column}' counts from 0, and {', '.join(map(repr, columns))} count from 1: 0 may be the first of them, "
            "or none; write the names of the columns in its place"
        )
    if str(len(columns)) in numbers and columns[0][-1:] == "0":
        raise Ambiguous(
            f"'{column}' goes up to {len(columns)}, and {', '.join(map(repr, columns))} count from 0: 1 may be the "
            "first of them, or the second; write the names of the columns in its place"
        )
    if not not_few(_places(row, column) for row in judged if row.get(column) is not None):
        words = ", ".join(dict.fromkeys(map(shown, told)))[:100]
        raise Ambiguous(
            f"what '{column}' holds ({words}) names none of {', '.join(map(repr, columns))[:200]}; write the names of "
            "these columns, or tie, in its place"
        )
    read, why = partial(_read_best, column=column), partial(_why_best, column=column)
    return replace(form, matches=_is_several, read=read, why=why)


def _read_best(row: Row, pairing: Pairing, column: str | None = None) -> Reading:
    """One completion is better than each of the others; several verdicts are votes."""
    field = _columns_of([row])[0] if column is None else column
    columns, cast = completions_of(row), _told(row, field)
    if not 0 < len(cast) <= MAX_VOTES // len(columns):
        raise RowError("wrong_type", f"a record has 1 to {MAX_VOTES // len(columns)} votes, found {len(cast)}")
    places = [_place(row, value) for value, *_ in cast]
    if None in places:
        names = ", ".join(map(repr, columns))[:200]
        raise RowError("wrong_type", f"'{field}' names the best of {names}; found {shown(cast[places.index(None)][0])}")
    votes = Counter(place for place in places if place is not None and place >= 0).most_common(2)
    if not votes or (len(votes) > 1 and votes[0][1] == votes[1][1]):
        raise RowError("tie", f"no completion has the most of {len(cast)} votes")
    best, ballots = votes[0][0], []
    for place, (_, _, annotator) in zip(places, cast, strict=True):
        # Whoever is for another one prefers that to the best; of two others nobody has said anything.
        for other in range(len(columns)) if place in (best, -1) else (place,):
            said = {best: float(place == best), other: float(place == other)}
            ballots += [Ballot(tuple(map(said.get, range(len(columns)))), annotator)] if other != best else []
    completions = tuple(completion(row[name], name) for name in columns)
    return pairs_of(
        Judged(prompt_in(row), completions, tuple(ballots), tools_of(row.get("tools")), is_voted=True), pairing
    )


def _why_best(row: Row, column: str | None = None) -> str:
    columns = completions_of(row)
    told = _told(row, _columns_of([row])[0] if column is None else column)[:5]
    places = [(field, value, _place(row, value)) for value, field, _ in told]
    return ", ".join(
        f"{field} {shown(value)} → {'?' if place is None else 'nobody' if place < 0 else columns[place]}"
        for field, value, place in places
    )


BEST = Format(
    "best_of_several",
    "three completions or more, and the best of them",
    '{"prompt": …, "response_a": …, "response_b": …, "response_c": …, "best": "B"}',
    _is_best,
    _read_best,
    _settled_best,
    _why_best,
)
