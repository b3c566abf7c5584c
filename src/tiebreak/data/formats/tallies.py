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
from tiebreak.data.formats.proportions import commonest, nearly_all, not_few
from tiebreak.data.formats.verdicts import WORSE, is_number, replaced, side_of, word_of

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


# Names run words together (`isWorse`, `losers`): these three are found within a word; the rest stand in others.
_WORSE = re.compile(rf"worse|worst|(?<!c)loser|(?:^|[^a-z])(?:{WORSE})(?:[^a-z]|$)", re.IGNORECASE)


def refuse_worse(
    column: str, mapping: Mapping[str, str] | None = None, verdicts: Sequence[tuple[Any, Mapping[str, str]]] = ()
) -> None:
    """Raise Ambiguous where the name of a column, a question or a control asks which side is the worse one.

    `mapping` tells it and the other columns as a user would, and is None where no mapping can; with each verdict are
    its row's own words for the sides.
    """
    if not _WORSE.search(column):
        return
    told = {
        (side, word_of(value)): None
        for value, own in verdicts
        if isinstance(value, str | int) and (side := side_of(replaced(value, own)))
    }
    words = {side: "|".join(word for one, word in told if one == side) for side, _ in told}
    way = "where it asks for the better one, call it so; else leave it out, or write down the better one"
    # A word that is now the one side and now the other, as a model is, can be told by no mapping.
    if mapping and {"first", "second"} <= words.keys() and len({word for _, word in told}) == len(told):
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
    sides = [_sides_of(value, words) for value, words in objects]
    if not_few(sides):
        named = [(value, [side_of(one) for one in both]) for (value, _), both in zip(objects, sides, strict=True)]
        _refuse_numbers(column, mapping, [(value, both) for value, both in named if both])
    if not_few(not both for both in sides):
        others = [told for told, both in zip(objects, sides, strict=True) if not both]
        _refuse_aspects(column, mapping, others, voted=voted)


def _refuse_numbers(
    column: str, mapping: Mapping[str, str], objects: Sequence[tuple[Row, Sequence[str | None]]]
) -> None:
    """Ask where the numbers of the sides, as each object names them, may be ranks, and where they count no votes.

    An object without a number for each side says nothing of this; nor does one with a tie say whether they are ranks.
    """
    told = [dict(zip(sides, value.items(), strict=True)) for value, sides in objects]
    whole = [both for both in told if both.keys() == {"first", "second"}]
    keys = [(both["first"][0], both["second"][0]) for both in whole]
    found = [[number(value) for _, value in both.values()] for both in whole]
    numbers = [sorted(one for one in both if one is not None) for both in found if None not in both]
    if not numbers:
        return
    ends = [f"{column}.{key}" for key in commonest(keys)]
    higher, lower = (as_options({**mapping, "score_a": one, "score_b": two}) for one, two in (ends, reversed(ends)))
    if not nearly_all(both == commonest(keys) for both in keys):  # models, of which each row has others
        higher, lower = "write them in columns 'score_a' and 'score_b'", "write them there exchanged"
    if odd := [both for both in numbers if not all(one.is_integer() and one >= 0 for one in both)]:
        raise Ambiguous(
            f"'{column}' holds a number for each side that counts no votes, such as {odd[0][1]:g} and {odd[0][0]:g}. "
            f"Where the higher is better: {higher}; where the lower is: {lower}"
        )
    apart = [(low, high) for low, high in numbers if low != high]
    if column in _OF_PEOPLE or not apart:
        return
    least, most = commonest(apart)
    if least in (0, 1) and most == least + 1 and nearly_all(both == (least, most) for both in apart):
        raise Ambiguous(
            f"'{column}' holds {least:g} and {most:g} for the two sides, which may be votes (the higher is better) or "
            f"ranks ({least:g} is the best). For votes: {higher}; for ranks: {lower}"
        )


def _refuse_aspects(
    column: str, mapping: Mapping[str, str], objects: Sequence[tuple[Row, Mapping[str, str]]], *, voted: bool
) -> None:
    """Ask whose verdict counts where each row answers the same questions, or has two verdicts that disagree."""
    stated = [_stated(value, words) for value, words in objects]
    are_stated = nearly_all(stated)
    if are_stated:
        told = [
            {side for key in held if (side := side_of(replaced(value[key], words)))}
            for held, (value, words) in zip(stated, objects, strict=True)
        ]
        keys, is_doubt = list(commonest(tuple(held) for held in stated if held)), any(len(sides) > 1 for sides in told)
    else:
        asked = commonest(frozenset(value) for value, _ in objects)
        keys = next([str(key) for key in value] for value, _ in objects if asked == value.keys())
        are_judges = voted or column in _OF_PEOPLE or all(map(_JUDGE.fullmatch, keys))
        is_doubt = not are_judges and len(objects) > 1 and len(keys) > 1
        # Where the names of most rows differ, they are those of judges.
        is_doubt = is_doubt and nearly_all(asked >= value.keys() for value, _ in objects)
        is_doubt = is_doubt and 2 * sum(asked == value.keys() for value, _ in objects) > len(objects)
    if is_doubt:
        judges = "" if are_stated else f"; where these are judges: {as_options({**mapping, 'votes': column})}"
        raise Ambiguous(
            f"'{column}' says {', '.join(map(repr, keys))[:200]} in each row, which may be answers to several "
            f"questions. To go by one of them, such as the first: "
            f"{as_options({**mapping, 'winner': f'{column}.{keys[0]}'})}{judges}"
        )
