"""Verdicts that admit two readings, and how they are asked about.

Owns these questions: with a mapping to paste where one answers, in other words in exports of labelling tools and in
battles of whole conversations, which no mapping of columns reaches. It knows no form.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tiebreak.data.formats.candidates import counts_from
from tiebreak.data.formats.cells import shown
from tiebreak.data.formats.form import Ambiguous, as_options
from tiebreak.data.formats.proportions import not_few
from tiebreak.data.formats.tallies import refuse_objects
from tiebreak.data.formats.verdicts import (
    counter_of,
    doubt_about,
    is_apart,
    is_beyond_one,
    is_number,
    replaced,
    side_of,
    word_of,
)

Told = Sequence[tuple[Any, Mapping[str, str]]]
"""Votes, or the cells that hold them, with the row's own words for its sides."""


def refuse_words(column: str, mapping: Mapping[str, str], told: Told, first: int | None) -> None:
    """Raise Ambiguous where verdicts, with the rows' own words for their sides, admit two readings.

    A word that names one side and says the other does, and so do numbers (`refuse_doubt`) that are no such name.
    """
    apart = [vote for vote, words in told if is_apart(vote, words)]
    if not_few(is_apart(vote, words) for vote, words in told):
        raise Ambiguous(
            f"'{column}' holds {shown(apart[0])}, which is the name of one side and the word for the other in "
            f"{len(apart)} of {len(told)} verdicts. Where it is a name, write the name of the column that it means in "
            f"its place; where it says a side: {as_said({**mapping, 'winner': column}, told)}"
        )
    _refuse_unknown(column, mapping, told)
    unnamed = [vote for vote, words in told if word_of(vote) not in words]
    # What counts from zero beside columns that count from one is of another list than they are.
    is_other = first != 0 and any(counter_of(vote) == 0 for vote in unnamed)
    refuse_doubt(column, mapping, [vote for vote, _ in told] if is_other else unnamed, first)


def _refuse_unknown(column: str, mapping: Mapping[str, str], told: Told) -> None:
    """Raise Ambiguous where verdicts are words of a kind that says no side: two of them, or a few, are named."""
    named = [side_of(replaced(vote, words)) for vote, words in told]
    unknown = [vote for (vote, _), side in zip(told, named, strict=True) if side is None and isinstance(vote, str)]
    unknown = list(dict.fromkeys(word_of(vote) for vote in unknown if not is_number(vote) and counter_of(vote) is None))
    is_vocabulary = 1 < len(unknown) <= _WORDS and all(len(word) <= _LONG and "|" not in word for word in unknown)
    if not is_vocabulary or not_few(side in ("first", "second") for side in named):
        return
    listed = ", ".join(map(shown, unknown))
    said, tie = {**mapping, "winner": column}, _told_as(told, "tie")
    if len(unknown) > 2:
        raise Ambiguous(
            f"'{column}' holds {listed}, and none of them says a side; say whose each of them is, several with | "
            f"between them: {as_options(said)} -c winner.first=WORD -c winner.second=WORD -c winner.tie=WORD"
        )
    ties = {"winner.tie": tie} if tie else {}
    first = shown(mapping["completion_a"]) if "completion_a" in mapping else "the first"
    ways = [
        f"where {shown(one)} is for {first}: {as_options(said | {'winner.first': one, 'winner.second': two} | ties)}"
        for one, two in (unknown, reversed(unknown))
    ]
    raise Ambiguous(f"'{column}' holds {listed}, and neither says a side: {'; '.join(ways)}")


_WORDS, _LONG = 8, 40
"""How many words of verdicts, and of how many characters, are a vocabulary; what is more or longer is a comment."""


def _told_as(told: Told, side: str) -> str:
    """Return the words that by themselves say a side, else by the names of their rows, with `|` between them."""
    words = dict.fromkeys(
        word_of(vote) for vote, own in told if (side_of(vote) or side_of(replaced(vote, own))) == side
    )
    return "|".join(word for word in words if word)


def as_said(mapping: Mapping[str, str], told: Told) -> str:
    """Return a mapping as options, with the words of its verdicts for the side that each says by itself."""
    key = "votes" if "votes" in mapping else "winner"
    words = {f"{key}.{side}": _told_as(told, side) for side in ("first", "second", "tie")}
    whole = {name: word or "WORD" for name, word in words.items() if word or not name.endswith("tie")}
    return as_options({**mapping, **whole})


def refuse_doubt(column: str, mapping: Mapping[str, str], verdicts: Sequence[Any], first: int | None) -> None:
    """Raise Ambiguous where the numbers of a column admit two readings; `mapping` names the other columns.

    `first` is the number with which the columns of the completions count, None where they do not. Where it is 0, so do
    the verdicts, unless one is 2.
    """
    found = doubt_about(verdicts, numbered=first == 1)
    if first == 0:
        found = ("places", []) if any(map(is_beyond_one, verdicts)) else None
    if found is None:
        return
    doubt, numbers = found
    said = as_options({**mapping, "winner": column})
    if doubt == "places":
        counted = {str(counter_of(value)): word_of(value) for value in verdicts if counter_of(value) is not None}
        zero, one, two = (counted.get(place, place) for place in "012")
        places = as_options({"winner.first": zero, "winner.second": one, "winner.tie": two})
        votes = as_options({"winner.first": one, "winner.second": two, "winner.tie": zero})
        raise Ambiguous(
            f"the numbers in '{column}' can be read in two ways: as places (0 is the first completion, 1 the second) "
            "or as votes (1 is the first, 2 the second, 0 a tie). "
            f"For places: {said} {places}; for votes: {said} {votes}"
        )
    if doubt == "share":
        raise Ambiguous(
            f"'{column}' holds {shown(numbers[-1])} and {shown(numbers[0])}, a probability, and does not say of which "
            f"side; write 1 or 2 in its place, or both sides' numbers as score_a and score_b"
        )
    middle = (min(1.0, numbers[0]) + numbers[-1]) / 2 if doubt == "scale" else 0.0
    low = "|".join(word_of(number) for number in numbers if number < middle)
    high = "|".join(word_of(number) for number in numbers if number > middle)
    tie = f" -c winner.tie={word_of(middle)}" if middle in numbers else ""
    if not low or not high:
        raise Ambiguous(
            f"'{column}' holds numbers from {word_of(numbers[0])} to {word_of(numbers[-1])}, and does not say whose "
            f"side they are for; say it for each of them: {said} -c winner.first=NUMBER -c winner.second=NUMBER"
        )
    raise Ambiguous(
        f"'{column}' holds numbers from {word_of(numbers[0])} to {word_of(numbers[-1])}, which say how much, and not "
        f"whose side is at which end. Where low numbers are for the first: {said} -c 'winner.first={low}' -c "
        f"'winner.second={high}'{tie}; where they are for the second, with first and second turned round"
    )


def refuse_unmapped(column: str, votes: Told, sides: tuple[str, str], cells: Told = ()) -> None:
    """Raise Ambiguous where verdicts on two columns admit two readings, as words or as the objects of `cells`."""
    try:
        refuse_objects(column, {}, cells)
        refuse_words(column, {}, votes, counts_from(sides))
    except Ambiguous:
        words = ", ".join(dict.fromkeys(shown(vote) for vote, _ in cells or votes))[:100]
        raise Ambiguous(
            f"what '{column}' holds ({words}) admits two readings; write '{sides[0]}', '{sides[1]}' or tie in its "
            "place, as each is meant"
        ) from None
