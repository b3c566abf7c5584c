"""Rows that hold two completions and who preferred which: one vote or many, arena battles, strengths of preference.

Owns these shapes. The majority rule is that of `pairing`; a tie of votes drops the record and says how they fell.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from tiebreak.data.formats.annotations import ANNOTATORS, number
from tiebreak.data.formats.candidates import completion, has_prompt, is_paired, prompt_in, sides_of
from tiebreak.data.formats.checks import check_pair
from tiebreak.data.formats.form import Format, Pairing, Reading, Row, RowError
from tiebreak.data.formats.pairing import Ballot, Judged, pairs_of, soft_label
from tiebreak.data.formats.pieces import kind_of, messages_of, split_dialogues, tools_of
from tiebreak.data.formats.verdicts import Side, stated_side
from tiebreak.records import Pair, Preference, Vote

VERDICTS = ("votes", "annotations", "preferences", "preference", "winner", "label", "choice", "better", "preferred")
_JUDGES = (*ANNOTATORS, "judge", "user_id", "user", "worker", "completed_by")
_VOTE = ("vote", "choice", "preference", "label", "value", "winner", "verdict")
_NUMBERED = re.compile(r"annotator_?\d{1,3}")
_SCORES: dict[Side, tuple[float, float]] = {"first": (1.0, 0.0), "second": (0.0, 1.0), "tie": (0.0, 0.0)}
MAX_VOTES = 10_000


def ballot(side: Side, annotator: str) -> Ballot:
    """Return one vote between two completions."""
    return Ballot(_SCORES[side], annotator)


def _is_votes(row: Row) -> bool:
    has_verdict = any(row.get(name) is not None for name in VERDICTS) or any(_numbered(row))
    return sides_of(row) is not None and has_verdict and has_prompt(row) and not is_paired(row)


def _numbered(row: Row) -> list[str]:
    return [name for name in row if _NUMBERED.fullmatch(name) and row[name] is not None]


def _read_votes(row: Row, pairing: Pairing) -> Reading:
    """PandaLM (Wang et al. 2024) and AlpacaFarm: votes 1, 2, 0 for a tie; or one verdict of one annotator."""
    ballots = tuple(ballot(stated_side(value, field), annotator) for value, field, annotator in _votes(row))
    if not 0 < len(ballots) <= MAX_VOTES:
        raise RowError("wrong_type", f"a record has 1 to {MAX_VOTES} votes, found {len(ballots)}")
    try:
        return _compared(row, ballots, pairing)
    except RowError as bad:  # the votes were cast, whatever became of the completions
        raise RowError(bad.reason, bad.detail, Preference(votes=tuple(map(_for_first, ballots)))) from None


def _compared(row: Row, ballots: tuple[Ballot, ...], pairing: Pairing) -> Reading:
    first, second = sides_of(row) or ("", "")
    completions = completion(row[first], first), completion(row[second], second)
    judged = Judged(prompt_in(row), completions, ballots, tools_of(row.get("tools")), is_voted=True)
    reading = pairs_of(judged, pairing)
    for pair in reading.pairs:
        check_pair(pair)
    return reading


def _for_first(cast: Ballot) -> Vote:
    one, other = (score or 0.0 for score in cast.scores)
    return Vote("tie" if one == other else "chosen" if one > other else "rejected", cast.annotator)


def _votes(row: Row) -> Iterator[tuple[Any, str, str]]:
    """Yield each vote, the column it is in, and who cast it."""
    name = next((name for name in VERDICTS if row.get(name) is not None), None)
    if name is None:
        yield from ((row[column], column, column) for column in _numbered(row))
    elif isinstance(row[name], Mapping):
        yield from ((value, name, str(annotator)[:200]) for annotator, value in row[name].items())
    elif isinstance(row[name], list):
        names = row.get("annotators")
        # Without names the place in the list stands for the annotator, as in PandaLM.
        count = len(row[name])
        places = [f"vote {place}" for place in range(1, count + 1)] if count > 1 else [""] * count
        known = names if isinstance(names, list) and len(names) == len(row[name]) else places
        yield from (_vote(item, name, annotator) for item, annotator in zip(row[name], known, strict=True))
    else:
        yield row[name], name, name_of(_first(row, _JUDGES))


def _vote(item: Any, field: str, annotator: Any) -> tuple[Any, str, str]:
    if isinstance(item, Mapping):
        return _first(item, _VOTE), field, name_of(_first(item, _JUDGES))
    return item, field, name_of(annotator)


def _first(row: Row, names: tuple[str, ...]) -> Any:
    return next((row[name] for name in names if row.get(name) is not None), None)


def name_of(value: Any) -> str:
    """Return the name of a judge, told as text, as a number, or as an object with an id; "" where there is none."""
    if isinstance(value, Mapping):
        value = value.get("id", value.get("name"))
    return str(value)[:200] if isinstance(value, str | int) and not isinstance(value, bool) else ""


def _is_arena(row: Row) -> bool:
    return all(name in row for name in ("conversation_a", "conversation_b", "winner")) and not is_paired(row)


def _read_arena(row: Row, pairing: Pairing) -> Reading:
    """Chatbot Arena (Chiang et al. 2024): two whole conversations; they share all but the last turn."""
    sides = [messages_of(row[name], name) for name in ("conversation_a", "conversation_b")]
    pair = split_dialogues(*sides)
    ballots = (ballot(stated_side(row["winner"], "winner"), name_of(_first(row, _JUDGES))),)
    judged = Judged(pair.prompt, (pair.chosen, pair.rejected), ballots, tools_of(row.get("tools")), is_voted=True)
    return pairs_of(judged, pairing)


_STRENGTHS = ("preference_strength", "overall_preference")
_SINGLE = (("individual_preference", "score"), ("three_most_similar_preferences", "strength"))


def _is_helpsteer(row: Row) -> bool:
    has_prompt_column = has_prompt(row) or row.get("context") is not None
    is_stated = any(row.get(name) is not None for name in _STRENGTHS)
    return is_stated and sides_of(row) is not None and has_prompt_column and not is_paired(row)


def _read_helpsteer(row: Row, pairing: Pairing) -> Reading:
    """HelpSteer2 and 3 (Wang et al. 2024): strength -3 (the first is much better) to 3; its size is the margin."""
    name = next(name for name in _STRENGTHS if row.get(name) is not None)
    strength = number(row[name])
    if strength is None:
        raise RowError("wrong_type", f"'{name}' is a number, found {kind_of(row[name])}")
    sides = sides_of(row) or ("", "")
    first, second = (completion(row[side], side) for side in sides)
    prompt = prompt_in(row, ("prompt", "context", "instruction", "question"))
    if strength == 0 or abs(strength) < pairing.min_margin:
        raise RowError("tie", f"'{name}' is {strength:g}")
    votes = _single_votes(row, 1 if strength > 0 else -1)
    preference = Preference(margin=abs(strength), votes=votes, soft_label=soft_label(votes) if votes else None)
    chosen, rejected = (first, second) if strength < 0 else (second, first)
    return Reading((Pair(prompt, chosen, rejected, tools_of(row.get("tools")), None, preference),))


def _single_votes(row: Row, sign: int) -> tuple[Vote, ...]:
    votes = []
    for column, key in _SINGLE:
        items = row.get(column)
        for item in items[:MAX_VOTES] if isinstance(items, list) else ():
            strength = number(item.get(key)) if isinstance(item, Mapping) else None
            if strength is not None:
                votes.append(Vote("tie" if strength == 0 else "chosen" if strength * sign > 0 else "rejected"))
    return tuple(votes)


ARENA = Format(
    "arena",
    "Chatbot Arena",
    '{"conversation_a": […], "conversation_b": […], "winner": "model_a"}',
    _is_arena,
    _read_arena,
)
HELPSTEER = Format(
    "helpsteer",
    "HelpSteer2-preference, HelpSteer3",
    '{"prompt": …, "response_1": …, "response_2": …, "preference_strength": -2}',
    _is_helpsteer,
    _read_helpsteer,
)
VOTES = Format(
    "votes",
    "PandaLM, AlpacaFarm, A/B tests",
    '{"instruction": …, "response1": …, "response2": …, "votes": [1, 2, 0]}',
    _is_votes,
    _read_votes,
)
