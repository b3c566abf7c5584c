"""Votes that are told as objects: what each side has, what one judge said beside other things, what many judges said.

Owns which of these an object is, when that cannot be known, and which names ask for the worse side. It knows no form.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tiebreak.data.formats.annotations import ANNOTATORS, number
from tiebreak.data.formats.cells import value_in
from tiebreak.data.formats.form import Ambiguous, Row, as_options
from tiebreak.data.formats.verdicts import is_number, replaced, side_of, word_of

JUDGES = (*ANNOTATORS, "judge", "user_id", "user", "worker", "completed_by")
VOTE = ("vote", "choice", "preference", "label", "value", "winner", "verdict")
"""Keys of an object that hold its verdict; what else it says is no vote."""
MAX_VOTES = 10_000
_OF_PEOPLE = frozenset(("votes", "annotations"))
"""Columns whose objects hold votes by their very name."""
_JUDGE = re.compile(
    r"(?:annotator|judge|rater|worker|user|reviewer|expert|evaluator|labell?er|person|human|participant|ann|[ajruw])"
    r"[-_ ]?\d{1,6}",
    re.IGNORECASE,
)
_QUESTIONS = ("question", "aspect", "criterion", "criteria", "dimension", "attribute", "category", "axis", "metric")


def name_of(value: Any) -> str:
    """Return the name of a judge, told as text, as a number, or as an object with an id; "" where there is none."""
    if isinstance(value, Mapping):
        value = value.get("id", value.get("name"))
    return str(value)[:200] if isinstance(value, str | int) and not isinstance(value, bool) else ""


def votes_in(verdict: Row, words: Mapping[str, str]) -> Iterator[tuple[Any, str]]:
    """Yield each vote that an object tells, and who cast it; `words` are the row's own for its sides.

    Where its keys name the sides, it has a number of votes for each: an object that has anything else there is yielded
    as it is, and no verdict. Else one of its keys holds the verdict, or each is a judge.
    """
    if sides := _sides_of(verdict, words):
        counts = [_count(value) for value in verdict.values()]
        if None in counts:
            yield verdict, ""
        for side, num in zip(sides, counts, strict=True):
            yield from ((side, "") for _ in range(min(num or 0, MAX_VOTES + 1)) if None not in counts)
    elif told := _stated(verdict, words):
        yield verdict[told[0]], name_of(value_in(verdict, JUDGES))
    else:
        yield from ((value, str(annotator)[:200]) for annotator, value in verdict.items())


def _sides_of(verdict: Row, words: Mapping[str, str]) -> list[Any]:
    """Return the sides that the keys of an object name, as a verdict would, [] where one of them names none."""
    named = [replaced(key, words) for key in verdict]
    return named if all(not is_number(key) and side_of(key) is not None for key in named) else []


def _stated(verdict: Row, words: Mapping[str, str]) -> list[str]:
    """Return the keys of an object that hold a verdict by their name, those first whose value is one."""
    known = {str(key).casefold(): key for key in verdict}
    held = [known[name] for name in VOTE if name in known]
    return sorted(held, key=lambda key: side_of(replaced(verdict[key], words)) is None)


def _count(value: Any) -> int | None:
    """Return a number of votes: whole, from zero on; true is one."""
    found = float(value) if isinstance(value, bool) else number(value)
    return int(found) if found is not None and found >= 0 and found.is_integer() else None


# --------------------------------------------------------------------------------------------- two readings of a file


_WORSE = re.compile(
    r"worse|worst|loser|(?:^|[^a-z])(?:least|lesser|losing|lost|inferior|lose)(?:[^a-z]|$)", re.IGNORECASE
)


def refuse_worse(column: str, mapping: Mapping[str, str] | None = None, verdicts: Sequence[Any] = ()) -> None:
    """Raise Ambiguous where the name of a column, a question or a control asks which side is the worse one.

    `mapping` tells it and the other columns as a user would, and is None where no mapping can.
    """
    if not _WORSE.search(column):
        return
    words: dict[str | None, str] = {}
    for word, value in {word_of(value): value for value in verdicts if isinstance(value, str | int)}.items():
        side = side_of(value)
        words[side] = f"{words[side]}|{word}" if side in words else word
    way = "where it asks for the better one, call it so; else leave it out, or write down the better one"
    if mapping and {"first", "second"} <= words.keys():
        key = "votes" if "votes" in mapping else "winner"
        tie = {f"{key}.tie": words["tie"]} if "tie" in words else {}
        worse = {f"{key}.first": words["second"], f"{key}.second": words["first"], **tie}
        better = {f"{key}.first": words["first"], f"{key}.second": words["second"], **tie}
        way = f"where it does: {as_options({**mapping, **worse})}; else: {as_options({**mapping, **better})}"
    raise Ambiguous(f"'{column}' asks for the worse side, to judge by its name, and not for the better one: {way}")


def refuse_objects(
    column: str, mapping: Mapping[str, str], told: Sequence[tuple[Any, Mapping[str, str]]], *, voted: bool = False
) -> None:
    """Raise Ambiguous where the objects of a column, with the rows' words for their sides, admit two readings.

    `mapping` names the other columns; `voted` is that somebody said that these are votes.
    """
    lists = [item for value, _ in told if isinstance(value, list) for item in value if isinstance(item, Mapping)]
    asked = {key: {word_of(item[key]) for item in lists if item.get(key)} for key in _QUESTIONS}
    if several := next((found for found in asked.values() if len(found) > 1), None):
        raise Ambiguous(
            f"'{column}' answers several questions ({', '.join(sorted(several))[:200]}), which are no voters; leave "
            "the answers to one of them in the file"
        )
    objects = [(value, words) for value, words in told if isinstance(value, Mapping) and value]
    if not objects:
        return
    named = [_sides_of(value, words) for value, words in objects]
    if all(named):
        _refuse_numbers(column, mapping, [value for value, _ in objects], [side_of(side) for side in named[0]])
    elif not any(named):
        _refuse_aspects(column, mapping, objects, voted=voted)


def _refuse_numbers(
    column: str, mapping: Mapping[str, str], objects: Sequence[Row], sides: Sequence[str | None]
) -> None:
    """Ask where the numbers of the sides may be ranks, and where they are no numbers of votes."""
    keys = dict(zip(sides, objects[0], strict=True))
    if set(keys) != {"first", "second"} or any(set(item) != set(objects[0]) for item in objects):
        return
    ends = [f"{column}.{keys['first']}", f"{column}.{keys['second']}"]
    scores = as_options({**mapping, "score_a": ends[0], "score_b": ends[1]})
    found = [[number(value) for value in item.values()] for item in objects]
    numbers = [sorted(one for one in both if one is not None) for both in found]
    if any(len(both) < 2 for both in numbers):
        return
    if any(not one.is_integer() or one < 0 for both in numbers for one in both):
        raise Ambiguous(
            f"'{column}' holds a number for each side that counts no votes, such as {numbers[0][1]:g} and "
            f"{numbers[0][0]:g}. Where the higher is better: {scores}; where the lower is, with {ends[0]} and "
            f"{ends[1]} exchanged"
        )
    least = numbers[0][0]
    if column not in _OF_PEOPLE and least in (0, 1) and all(both == [least, least + 1] for both in numbers):
        ranks = {"winner": ends[0], "winner.first": f"{least:g}", "winner.second": f"{least + 1:g}"}
        raise Ambiguous(
            f"'{column}' holds {least:g} and {least + 1:g} for the two sides in each row, which may be votes (the "
            f"higher is better) or ranks ({least:g} is the best). For votes: {scores}; for ranks: "
            f"{as_options({**mapping, **ranks})}"
        )


def _refuse_aspects(
    column: str, mapping: Mapping[str, str], objects: Sequence[tuple[Row, Mapping[str, str]]], *, voted: bool
) -> None:
    """Ask whose verdict counts where each row answers the same questions, or has two verdicts that disagree."""
    keys = [str(key) for key in objects[0][0]]
    stated = [_stated(value, words) for value, words in objects]
    if all(stated):
        told = [
            {side for key in held if (side := side_of(replaced(value[key], words)))}
            for held, (value, words) in zip(stated, objects, strict=True)
        ]
        keys, is_doubt = [str(key) for key in stated[0]], any(len(sides) > 1 for sides in told)
    else:
        are_judges = voted or column in _OF_PEOPLE or all(map(_JUDGE.fullmatch, keys))
        is_doubt = not are_judges and len(objects) > 1 and len(keys) > 1
        is_doubt = is_doubt and all(set(value) == set(objects[0][0]) for value, _ in objects)
    if is_doubt:
        judges = "" if all(stated) else f"; where these are judges: {as_options({**mapping, 'votes': column})}"
        raise Ambiguous(
            f"'{column}' says {', '.join(map(repr, keys))[:200]} in each row, which may be answers to several "
            f"questions. To go by one of them, such as the first: "
            f"{as_options({**mapping, 'winner': f'{column}.{keys[0]}'})}{judges}"
        )
