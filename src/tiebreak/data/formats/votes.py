"""Rows that hold two completions and who preferred which: one vote or many, arena battles, strengths of preference.

Owns these shapes. The majority rule is that of `pairing`; a tie of votes drops the record and says how they fell.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import compress
from typing import Any

from tiebreak.data.formats.annotations import number
from tiebreak.data.formats.candidates import (
    completion,
    completions_of,
    counts_from,
    has_prompt,
    has_scores,
    is_paired,
    names_of_sides,
    prompt_in,
    score_of,
    side_scores,
    sides_of,
)
from tiebreak.data.formats.cells import column_in, has_all, shown, value_in
from tiebreak.data.formats.checks import check_pair
from tiebreak.data.formats.doubts import refuse_words
from tiebreak.data.formats.form import Ambiguous, Format, Pairing, Reading, Row, RowError, as_options
from tiebreak.data.formats.messages import tools_of
from tiebreak.data.formats.naming import mapping_of_prompt
from tiebreak.data.formats.pairing import Ballot, Judged, pairs_of, vote_of
from tiebreak.data.formats.proportions import nearly_all, not_few
from tiebreak.data.formats.tallies import JUDGES, MAX_VOTES, VOTE, name_of, refuse_objects, votes_in
from tiebreak.data.formats.verdicts import (
    Side,
    is_apart,
    is_beyond_one,
    is_number,
    replaced,
    side_of,
    stated_side,
    word_of,
)
from tiebreak.records import Message, Pair, Preference

VERDICTS = (
    "votes", "annotations", "preferences", "preference", "winner", "label", "choice", "better", "preferred",
    "verdict", "better_response_id", "better_response", "preferred_response", "chosen_response", "best", "selected",
    "judgement", "judgment", "decision",
)  # fmt: skip
_NUMBERED = re.compile(r"annotator_?\d{1,3}")
_SCORES: dict[Side, tuple[float, float]] = {"first": (1.0, 0.0), "second": (0.0, 1.0), "tie": (0.0, 0.0)}
STRENGTHS = ("preference_strength", "overall_preference")


def ballot(side: Side, annotator: str) -> Ballot:
    """Return one vote between two completions."""
    return Ballot(_SCORES[side], annotator)


def _is_votes(row: Row) -> bool:
    if len(completions_of(row)) != 2 or not has_prompt(row) or is_paired(row):
        return False
    has_verdict = value_in(row, VERDICTS) is not None and (names_sides(row) or not has_scores(row))
    return has_verdict or any(_numbered(row)) or _one_of_three(row) is not None


def names_sides(row: Row) -> bool:
    """Whether some column of a verdict's name holds verdicts; of others the name says nothing."""
    return any(_sides_in(row, name) for name in VERDICTS if row.get(name) is not None)


def _numbered(row: Row) -> list[str]:
    return [name for name in row if _NUMBERED.fullmatch(name) and row[name] is not None]


def _one_of_three(row: Row) -> tuple[str, str, str] | None:
    """Return the columns of which one says 1: who won, the first or the second, or nobody."""
    names = (("winner_model_a", "winner_model_b", "winner_tie"), ("winner_a", "winner_b", "winner_tie"))
    return next((three for three in names if has_all(row, three)), None)


def _read_votes(row: Row, pairing: Pairing, column: str | None = None, words_only: bool = False) -> Reading:
    """PandaLM (Wang et al. 2024) and AlpacaFarm: votes 1, 2, 0 for a tie; or one verdict of one annotator.

    `column` holds the verdict, else the first that does; `words_only` says that the rows before had no number there.
    How strong the preference is, without a sign, may stand beside the verdict: it is the margin.
    """
    sides = sides_of(row) or ("", "")
    words = names_of_sides(row, sides)
    told = list(told_votes(row, column))
    if words_only and any(is_number(value) for value, *_ in told):
        raise RowError("wrong_type", f"'{told[0][1]}' is a number here, and words in the rows before")
    cast = [(side_in(value, field, words), annotator) for value, field, annotator in told]
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
    scores = [score_of(row[name]) for name in side_scores(row) or ()]
    if scores:
        reading = replace(reading, pairs=tuple(_with_scores(pair, completions[0], scores) for pair in reading.pairs))
    return reading if strength is None else replace(reading, pairs=tuple(_with_margin(reading.pairs, abs(strength))))


def _with_scores(pair: Pair, first: Message, scores: Sequence[float | None]) -> Pair:
    chosen, rejected = scores if pair.chosen == first else reversed(scores)
    return replace(pair, preference=replace(pair.preference, chosen_score=chosen, rejected_score=rejected))


def _with_margin(pairs: Iterable[Pair], margin: float) -> Iterator[Pair]:
    for pair in pairs:
        yield replace(pair, preference=replace(pair.preference, margin=margin))


def side_in(value: Any, field: str, words: Mapping[str, str]) -> Side:
    """Return which completion a verdict prefers, `words` being the row's own for its sides."""
    if words.get("0") == "a" and is_beyond_one(value):
        raise RowError("wrong_type", f"'{field}' counts from 0, as its columns do; found {shown(value)}")
    if is_apart(value, words):
        raise RowError("wrong_type", f"'{field}' names one side by its own name, and by the word the other")
    return stated_side(replaced(value, words), field)


def _sides_in(row: Row, column: str) -> list[Side]:
    """Return what the votes of a column say, [] where one of them says nothing."""
    words = names_of_sides(row, sides_of(row) or ("", ""))
    found = [side_of(replaced(value, words)) for value, *_ in told_votes(row, column)]
    return [side for side in found if side] if None not in found else []


def settled_votes(form: Format, rows: Sequence[Row]) -> Format:
    """Take the column whose values are verdicts; refuse two that disagree, and numbers that admit two readings."""
    are_told = [_one_of_three(row) is None and value_in(row, VERDICTS) is not None for row in rows if _is_votes(row)]
    if not not_few(are_told):
        return form
    judged = list(compress(filter(_is_votes, rows), are_told))
    told = {name: [_sides_in(row, name) for row in judged if row.get(name) is not None] for name in VERDICTS}
    sound = [name for name, found in told.items() if nearly_all(found)]
    column = sound[0] if sound else column_in(judged[0], VERDICTS)[0]
    for other in sound[1:]:
        _refuse_apart(judged, column, other)
    if sound:
        _refuse_scores_apart(judged, column)
    sides = sides_of(judged[0]) or ("", "")
    stated = [(row, names_of_sides(row, sides)) for row in judged if row.get(column) is not None]
    told_by = [(vote, words) for row, words in stated for vote, *_ in told_votes(row, column)]
    verdicts = [vote for vote, _ in told_by]
    mapping = mapping_of_prompt(judged) | {"completion_a": sides[0], "completion_b": sides[1]}
    refuse_objects(column, mapping, [(row[column], words) for row, words in stated])
    refuse_words(column, mapping, told_by, counts_from(sides))
    lists = [row[column] for row in judged if isinstance(row.get(column), list) and not row.get("annotators")]
    if nearly_all(len(found) == 2 and all(map(is_number, found)) for found in lists):
        counts = as_options(mapping | {"score_a": f"{column}.0", "score_b": f"{column}.1"})
        votes = as_options(mapping | {"votes": column, "votes.first": "1", "votes.second": "2", "votes.tie": "0"})
        raise Ambiguous(
            f"'{column}' is a list of two numbers, which may be the votes for each side, or what two annotators said. "
            f"For counts: {counts}; for two annotators: {votes}"
        )
    read = partial(_read_votes, column=column, words_only=bool(verdicts) and not any(map(is_number, verdicts)))
    return replace(form, read=read, why=partial(why_votes, column=column))


def _refuse_apart(rows: Sequence[Row], one: str, other: str) -> None:
    both = [(majority(_sides_in(row, one)), majority(_sides_in(row, other))) for row in rows]
    decided = [(first, second) for first, second in both if {first, second} <= {"first", "second"}]
    agree = [first == second for first, second in decided]
    if decided and not nearly_all(agree):
        sides = sides_of(rows[0]) or ("", "")
        said = mapping_of_prompt(rows) | {"completion_a": sides[0], "completion_b": sides[1]}
        raise Ambiguous(
            f"'{one}' and '{other}' name different sides in {agree.count(False)} of {len(agree)} rows. To go by the "
            f"first: {as_options(said | {'winner': one})}; by the second: {as_options(said | {'winner': other})}"
        )


def _refuse_scores_apart(rows: Sequence[Row], column: str) -> None:
    """Refuse a verdict that is against the scores of the sides in more than a few rows."""
    scored = [(row, names) for row in rows if (names := side_scores(row))]
    agree = []
    for row, names in scored:
        one, other = [score_of(row[name]) or 0.0 for name in names]
        won = majority(_sides_in(row, column))
        if one != other and won != "tie":
            agree.append((won == "first") == (one > other))
    sides = sides_of(rows[0])
    if agree and sides and not nearly_all(agree):
        names = scored[0][1]
        said = mapping_of_prompt(rows) | {"completion_a": sides[0], "completion_b": sides[1]}
        raise Ambiguous(
            f"'{column}' and the higher one of '{names[0]}' and '{names[1]}' name different sides in "
            f"{agree.count(False)} of {len(agree)} rows. To go by the first: "
            f"{as_options(said | {'winner': column})}; by the second: "
            f"{as_options(said | {'score_a': names[0], 'score_b': names[1]})}"
        )


def majority(sides: Sequence[Side]) -> Side:
    """Return what most votes say, a tie where none does."""
    first, second = sides.count("first"), sides.count("second")
    return "first" if first > second else "second" if second > first else "tie"


def why_votes(row: Row, column: str | None = None) -> str:
    """Return the votes of a row, and which column each names."""
    sides = sides_of(row) or ("", "")
    words = names_of_sides(row, sides)
    told = list(told_votes(row, column))[:5]
    which = {"first": sides[0], "second": sides[1], "tie": "nobody", None: "?"}
    return ", ".join(f"{field} {shown(value)} → {which[side_of(replaced(value, words))]}" for value, field, _ in told)


def told_votes(row: Row, column: str | None = None) -> Iterator[tuple[Any, str, str]]:
    """Yield each vote, the column it is in, and who cast it; `column` holds them, or the first that holds verdicts."""
    if (column is None or row.get(column) is None) and (three := _one_of_three(row)):
        named = (*(sides_of(row) or "ab"), "tie")  # by the columns: a letter may be the name of a model
        marked = [one for one in zip(named, three, strict=True) if word_of(row[one[1]]) in ("1", "true")]
        if len(marked) != 1:
            raise RowError("wrong_type", f"one of {', '.join(map(repr, three))} is 1, the others 0")
        yield (*marked[0], name_of(value_in(row, JUDGES)))
        return
    if column is None:
        held = [name for name in VERDICTS if row.get(name) is not None]
        column = next((name for name in held if _sides_in(row, name)), held[0] if held else None)
    verdict = None if column is None else row.get(column)
    if column is None or verdict is None:
        yield from ((row[name], name, name) for name in _numbered(row))
    elif isinstance(verdict, Mapping):
        words = names_of_sides(row, sides_of(row) or ("", ""))
        yield from ((value, column, annotator) for value, annotator in votes_in(verdict, words))
    elif isinstance(verdict, list):
        # Without names the place in the list stands for the annotator, as in PandaLM.
        places = [f"vote {place}" for place in range(1, len(verdict) + 1)] if len(verdict) > 1 else [""] * len(verdict)
        names = row.get("annotators")
        known = names if isinstance(names, list) and len(names) == len(verdict) else places
        for item, annotator in zip(verdict, known, strict=True):
            if isinstance(item, Mapping):
                yield value_in(item, VOTE), column, name_of(value_in(item, JUDGES))
            else:
                yield item, column, name_of(annotator)
    else:
        yield verdict, column, name_of(value_in(row, JUDGES))


VOTES = Format(
    "votes",
    "PandaLM, AlpacaFarm, A/B tests",
    '{"instruction": …, "response1": …, "response2": …, "votes": [1, 2, 0]}',
    _is_votes,
    _read_votes,
    settled_votes,
    why_votes,
)
