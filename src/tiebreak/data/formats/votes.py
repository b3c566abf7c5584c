"""Rows that hold two completions and who preferred which: one vote or many, arena battles, strengths of preference.

Owns these shapes. The majority rule is that of `pairing`; a tie of votes drops the record and says how they fell.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from tiebreak.data.formats.annotations import ANNOTATORS, number
from tiebreak.data.formats.candidates import (
    PROMPTS,
    completion,
    counts_from,
    has_prompt,
    is_paired,
    names_of_sides,
    prompt_in,
    sides_of,
)
from tiebreak.data.formats.cells import column_in, has_all, shown, value_in
from tiebreak.data.formats.checks import check_pair
from tiebreak.data.formats.form import Ambiguous, Format, Pairing, Reading, Row, RowError, as_options
from tiebreak.data.formats.messages import tools_of
from tiebreak.data.formats.pairing import Ballot, Judged, pairs_of, vote_of
from tiebreak.data.formats.verdicts import Side, may_count_from_zero, replaced, side_of, stated_side, word_of
from tiebreak.records import Pair, Preference

VERDICTS = (
    "votes", "annotations", "preferences", "preference", "winner", "label", "choice", "better", "preferred",
    "verdict", "better_response_id", "better_response", "preferred_response", "chosen_response",
)  # fmt: skip
JUDGES = (*ANNOTATORS, "judge", "user_id", "user", "worker", "completed_by")
_VOTE = ("vote", "choice", "preference", "label", "value", "winner", "verdict")
_NUMBERED = re.compile(r"annotator_?\d{1,3}")
_SCORES: dict[Side, tuple[float, float]] = {"first": (1.0, 0.0), "second": (0.0, 1.0), "tie": (0.0, 0.0)}
STRENGTHS = ("preference_strength", "overall_preference")
MAX_VOTES = 10_000


def ballot(side: Side, annotator: str) -> Ballot:
    """Return one vote between two completions."""
    return Ballot(_SCORES[side], annotator)


def _is_votes(row: Row) -> bool:
    has_verdict = value_in(row, VERDICTS) is not None or any(_numbered(row)) or _one_of_three(row) is not None
    return sides_of(row) is not None and has_verdict and has_prompt(row) and not is_paired(row)


def _numbered(row: Row) -> list[str]:
    return [name for name in row if _NUMBERED.fullmatch(name) and row[name] is not None]


def _one_of_three(row: Row) -> tuple[str, str, str] | None:
    """Return the columns of which one says 1: who won, the first or the second, or nobody."""
    names = (("winner_model_a", "winner_model_b", "winner_tie"), ("winner_a", "winner_b", "winner_tie"))
    return next((three for three in names if has_all(row, three)), None)


def _read_votes(row: Row, pairing: Pairing) -> Reading:
    """PandaLM (Wang et al. 2024) and AlpacaFarm: votes 1, 2, 0 for a tie; or one verdict of one annotator.

    How strong the preference is, without a sign, may stand beside the verdict: it is the margin.
    """
    sides = sides_of(row) or ("", "")
    words = names_of_sides(row, sides)
    cast = [(side_in(value, field, words), annotator) for value, field, annotator in told_votes(row)]
    if not 0 < len(cast) <= MAX_VOTES:
        raise RowError("wrong_type", f"a record has 1 to {MAX_VOTES} votes, found {len(cast)}")
    ballots = tuple(ballot(side, annotator) for side, annotator in cast)
    try:
        completions = completion(row[sides[0]], sides[0]), completion(row[sides[1]], sides[1])
        judged = Judged(prompt_in(row), completions, ballots, tools_of(row.get("tools")), is_voted=True)
        reading = pairs_of(judged, pairing)
        for pair in reading.pairs:
            check_pair(pair)
    except RowError as bad:  # the votes were cast, whatever became of the completions
        votes = tuple(vote_of(_SCORES[side][0] - _SCORES[side][1], annotator) for side, annotator in cast)
        raise RowError(bad.reason, bad.detail, Preference(votes=votes)) from None
    strength = number(value_in(row, STRENGTHS))
    return reading if strength is None else replace(reading, pairs=tuple(_with_margin(reading.pairs, abs(strength))))


def _with_margin(pairs: Iterable[Pair], margin: float) -> Iterator[Pair]:
    for pair in pairs:
        yield replace(pair, preference=replace(pair.preference, margin=margin))


def side_in(value: Any, field: str, words: Mapping[str, str]) -> Side:
    """Return which completion a verdict prefers, `words` being the row's own for its sides."""
    if words.get("0") == "a" and word_of(value) == "2":
        raise RowError("wrong_type", f"'{field}' counts from 0, as its columns do; found 2")
    return stated_side(replaced(value, words), field)


def settled_votes(form: Format, rows: Sequence[Row]) -> Format:
    """Refuse numbers that may as well count from zero; say how each reading is told."""
    judged = [row for row in rows if _is_votes(row)]
    if not judged:
        return form
    name = column_in(judged[0], VERDICTS)[0]
    sides = sides_of(judged[0]) or ("", "")
    verdicts = [value for row in judged if counts_from(sides_of(row) or sides) != 0 for value, *_ in told_votes(row)]
    if _one_of_three(judged[0]) is None and may_count_from_zero(verdicts, numbered=counts_from(sides) == 1):
        prompt = column_in(judged[0], PROMPTS)[0]
        key = "votes" if name == "votes" or isinstance(judged[0].get(name), list | Mapping) else "winner"
        stated = {"prompt": prompt, "completion_a": sides[0], "completion_b": sides[1], key: name}
        raise two_readings(name, key, stated)
    return form


def two_readings(column: str, key: str, mapping: Mapping[str, str]) -> Ambiguous:
    """Return the question that numbers put: places from zero, or 0 for a tie."""
    said = as_options(mapping)
    return Ambiguous(
        f"the numbers in '{column}' can be read in two ways: as places (0 is the first completion, 1 the second) or as "
        f"votes (1 is the first, 2 the second, 0 a tie). For places: {said} -c {key}.first=0 -c {key}.second=1 "
        f"-c {key}.tie=2; for votes: {said} -c {key}.first=1 -c {key}.second=2 -c {key}.tie=0"
    )


def why_votes(row: Row) -> str:
    """Return the votes of a row, and which column each names."""
    sides = sides_of(row) or ("", "")
    words = names_of_sides(row, sides)
    told = list(told_votes(row))[:5]
    which = {"first": sides[0], "second": sides[1], "tie": "nobody", None: "?"}
    return ", ".join(f"{field} {shown(value)} → {which[side_of(replaced(value, words))]}" for value, field, _ in told)


def told_votes(row: Row) -> Iterator[tuple[Any, str, str]]:
    """Yield each vote, the column it is in, and who cast it."""
    name, verdict = column_in(row, VERDICTS)
    if three := _one_of_three(row):
        marked = [side for side, column in zip("ab0", three, strict=True) if word_of(row[column]) in ("1", "true")]
        if len(marked) != 1:
            raise RowError("wrong_type", f"one of {', '.join(map(repr, three))} is 1, the others 0")
        yield marked[0], three["ab0".index(marked[0])], name_of(value_in(row, JUDGES))
    elif verdict is None:
        yield from ((row[column], column, column) for column in _numbered(row))
    elif isinstance(verdict, Mapping):
        yield from ((value, name, str(annotator)[:200]) for annotator, value in verdict.items())
    elif isinstance(verdict, list):
        # Without names the place in the list stands for the annotator, as in PandaLM.
        places = [f"vote {place}" for place in range(1, len(verdict) + 1)] if len(verdict) > 1 else [""] * len(verdict)
        names = row.get("annotators")
        known = names if isinstance(names, list) and len(names) == len(verdict) else places
        for item, annotator in zip(verdict, known, strict=True):
            if isinstance(item, Mapping):
                yield value_in(item, _VOTE), name, name_of(value_in(item, JUDGES))
            else:
                yield item, name, name_of(annotator)
    else:
        yield verdict, name, name_of(value_in(row, JUDGES))


def name_of(value: Any) -> str:
    """Return the name of a judge, told as text, as a number, or as an object with an id; "" where there is none."""
    if isinstance(value, Mapping):
        value = value.get("id", value.get("name"))
    return str(value)[:200] if isinstance(value, str | int) and not isinstance(value, bool) else ""


VOTES = Format(
    "votes",
    "PandaLM, AlpacaFarm, A/B tests",
    '{"instruction": …, "response1": …, "response2": …, "votes": [1, 2, 0]}',
    _is_votes,
    _read_votes,
    settled_votes,
    why_votes,
)
