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
from tiebreak.data.formats.pairing import Ballot, Judged, pairs_of, soft_label, vote_of
from tiebreak.data.formats.pieces import column_in, has_all, kind_of, messages_of, split_dialogues, tools_of, value_in
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
    has_verdict = value_in(row, VERDICTS) is not None or any(_numbered(row))
    return sides_of(row) is not None and has_verdict and has_prompt(row) and not is_paired(row)


def _numbered(row: Row) -> list[str]:
    return [name for name in row if _NUMBERED.fullmatch(name) and row[name] is not None]


def _read_votes(row: Row, pairing: Pairing) -> Reading:
    """PandaLM (Wang et al. 2024) and AlpacaFarm: votes 1, 2, 0 for a tie; or one verdict of one annotator."""
    cast = [(stated_side(value, field), annotator) for value, field, annotator in _votes(row)]
    if not 0 < len(cast) <= MAX_VOTES:
        raise RowError("wrong_type", f"a record has 1 to {MAX_VOTES} votes, found {len(cast)}")
    ballots = tuple(ballot(side, annotator) for side, annotator in cast)
    try:
        first, second = sides_of(row) or ("", "")
        completions = completion(row[first], first), completion(row[second], second)
        judged = Judged(prompt_in(row), completions, ballots, tools_of(row.get("tools")), is_voted=True)
        reading = pairs_of(judged, pairing)
        for pair in reading.pairs:
            check_pair(pair)
    except RowError as bad:  # the votes were cast, whatever became of the completions
        votes = tuple(vote_of(_SCORES[side][0] - _SCORES[side][1], annotator) for side, annotator in cast)
        raise RowError(bad.reason, bad.detail, Preference(votes=votes)) from None
    return reading


def _votes(row: Row) -> Iterator[tuple[Any, str, str]]:
    """Yield each vote, the column it is in, and who cast it."""
    name, verdict = column_in(row, VERDICTS)
    if verdict is None:
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
                yield value_in(item, _VOTE), name, name_of(value_in(item, _JUDGES))
            else:
                yield item, name, name_of(annotator)
    else:
        yield verdict, name, name_of(value_in(row, _JUDGES))


def name_of(value: Any) -> str:
    """Return the name of a judge, told as text, as a number, or as an object with an id; "" where there is none."""
    if isinstance(value, Mapping):
        value = value.get("id", value.get("name"))
    return str(value)[:200] if isinstance(value, str | int) and not isinstance(value, bool) else ""


def _is_arena(row: Row) -> bool:
    return has_all(row, ("conversation_a", "conversation_b", "winner")) and not is_paired(row)


def _read_arena(row: Row, pairing: Pairing) -> Reading:
    """Chatbot Arena (Chiang et al. 2024): two whole conversations; they share all but the last turn."""
    sides = [messages_of(row[name], name) for name in ("conversation_a", "conversation_b")]
    pair = split_dialogues(*sides)
    ballots = (ballot(stated_side(row["winner"], "winner"), name_of(value_in(row, _JUDGES))),)
    judged = Judged(pair.prompt, (pair.chosen, pair.rejected), ballots, tools_of(row.get("tools")), is_voted=True)
    return pairs_of(judged, pairing)


_STRENGTHS = ("preference_strength", "overall_preference")
_SINGLE = (("individual_preference", "score"), ("three_most_similar_preferences", "strength"))


def _is_helpsteer(row: Row) -> bool:
    has_prompt_column = has_prompt(row) or row.get("context") is not None
    is_stated = value_in(row, _STRENGTHS) is not None
    return is_stated and sides_of(row) is not None and has_prompt_column and not is_paired(row)


def _read_helpsteer(row: Row, pairing: Pairing) -> Reading:
    """HelpSteer2 and 3 (Wang et al. 2024): strength -3 (the first is much better) to 3; its size is the margin."""
    name, value = column_in(row, _STRENGTHS)
    strength = number(value)
    if strength is None:
        raise RowError("wrong_type", f"'{name}' is a number, found {kind_of(value)}")
    sides = sides_of(row) or ("", "")
    first, second = (completion(row[side], side) for side in sides)
    prompt = prompt_in(row, ("prompt", "context", "instruction", "question"))
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
