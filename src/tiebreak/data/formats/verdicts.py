"""The words that people and tools use for a judgement: which of two is better, whether one is liked.

Owns this vocabulary, and when the numbers of a file admit two readings. It knows no form.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal

from tiebreak.data.formats.cells import shown
from tiebreak.data.formats.form import RowError
from tiebreak.data.formats.proportions import NEARLY_ALL

Side = Literal["first", "second", "tie"]

_LONGEST = 60  # a longer text is a comment, not a verdict
_NOUNS = (
    "response", "completion", "answer", "output", "model", "option", "candidate", "assistant", "generation", "reply",
    "text", "choice", "system", "side", "summary", "argument", "sample", "version",
)  # fmt: skip
_NOUN = re.compile(rf"^(?:{'|'.join(_NOUNS)})")
_COUNTED = re.compile(rf"(?:{'|'.join(_NOUNS)})[\W_]*(\d{{1,3}})", re.IGNORECASE)
_BESIDE = frozenset(
    (*_NOUNS, "is", "was", "the", "one", "much", "slightly", "significantly", "clearly", "far", "marginally",
     "strongly", "weakly", "moderately", "better", "best", "preferred", "prefer", "prefers", "wins", "won", "winner",
     "number")
)  # fmt: skip
_NUMBER = re.compile(r"[-+]?\d+(?:\.\d*)?")
_COMPARED = re.compile(r"\W*(a|b|1|2)\s*(>+|<+|=+|≈|~)\s*(a|b|1|2)\W*", re.IGNORECASE)
_SIDES: dict[str, Side] = {
    **dict.fromkeys(("1", "a", "left", "first", "one", "1st"), "first"),
    **dict.fromkeys(("2", "b", "right", "second", "two", "2nd"), "second"),
    **dict.fromkeys(("0", "tie", "tiebothbad", "tiebothgood", "bothbad", "bothgood", "both"), "tie"),
    **dict.fromkeys(("equal", "same", "draw", "neither", "tied", "equallygood", "equallybad", "nopreference"), "tie"),
}
_LIKED = frozenset(
    {"1", "+1", "true", "yes", "y", "up", "thumbsup", "thumbup", "👍", "like", "liked", "upvote", "upvoted", "good"}
    | {"positive", "desirable", "correct", "chosen", "accepted", "accept", "pass", "passed"}
)
_DISLIKED = frozenset(
    {"-1", "false", "no", "n", "down", "thumbsdown", "thumbdown", "👎", "dislike", "disliked", "downvote", "downvoted"}
    | {"bad", "negative", "undesirable", "incorrect", "rejected", "reject", "fail", "failed"}
)


_TONES = "\ufe0f\U0001f3fb-\U0001f3ff"
"""What may follow a thumb: that it is a picture, and the colour of its skin."""
WORSE = "worse|worst|inferior|weaker|beaten|lesser|least|loser|loses?|lost|losing"
"""The words for the worse side, as part of a pattern: in a verdict, and in the name of a column that asks for one."""
_NEGATIVE = re.compile(rf"\b(?:{WORSE}|not|isn'?t)\b", re.IGNORECASE)


def side_of(value: Any) -> Side | None:
    """Return which of two completions a verdict prefers, None where it is no verdict.

    1 and 2 (a and b, left and right, `model_a`, `response_2`, `A>B`, "B is slightly better" …) name one, 0 and the
    words for a tie neither. A number between 1 and 2 leans to the nearer one (AlpacaEval's weighted preference); 1.5 is
    a tie.
    """
    if isinstance(value, str):
        return _side_in_words(value) if len(value) <= _LONGEST else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not (value == 0 or 1 <= value <= 2):
        return None
    if value in (0, 1.5):
        return "tie"
    return "first" if value < 1.5 else "second"


@lru_cache(maxsize=4096)
def _side_in_words(text: str) -> Side | None:
    if _NUMBER.fullmatch(text.strip()):
        return side_of(float(text))
    if compared := _COMPARED.fullmatch(text):
        one, sign, other = compared[1], compared[2], compared[3]
        if sign[0] in "<>":
            return _SIDES[(one if sign[0] == ">" else other).casefold()]
        return "tie"
    whole = re.sub(r"[^a-z0-9]", "", text.casefold())
    told = _telling(text)
    if "0" in told and whole != "0":  # "model_0" is the first of what counts from zero, and no tie
        return None
    if whole in _SIDES or _NOUN.sub("", whole) in _SIDES:
        return _SIDES.get(whole) or _SIDES[_NOUN.sub("", whole)]
    sides = {_SIDES.get(word) for word in told}
    return sides.pop() if len(sides) == 1 else None


def _telling(text: str) -> list[str]:
    """Return the words of a verdict that tell a side, without those around them: `b` of "Response B is better"."""
    words = re.findall(r"[a-z0-9]+", text.casefold())
    told = words[: words.index("than")] if "than" in words else words
    return [_NOUN.sub("", word) for word in told if word not in _BESIDE]


_ORDINALS = {word: place for place, word in enumerate(("first", "second", "third", "fourth", "fifth", "sixth"))}


def place_named(value: Any, labels: Sequence[str], first: int | None) -> int | None:
    """Return the place of the label that a word names: the label itself, what counts it, a letter or an ordinal.

    A number that no label has is the place in the list, counted from `first`, where that is told.
    """
    word = word_of(value)
    same = [place for place, label in enumerate(labels) if word and word_of(label) == word]
    if same or not word or len(word) > _LONGEST:
        return same[0] if same else None
    told, counters = _telling(word), [_NOUN.sub("", re.sub(r"[^a-z0-9]", "", word_of(label))) for label in labels]
    bare = told[0] if len(set(told)) == 1 else re.sub(r"[^a-z0-9]", "", word)
    if counters.count(bare) == 1:
        return counters.index(bare)
    if bare.isdecimal():
        place = int(bare) - first if first is not None and not any(map(str.isdecimal, counters)) else -1
    elif len(bare) == 1 and not any(len(counter) == 1 and counter.isalpha() for counter in counters):
        place = ord(bare) - ord("a")
    else:
        place = _ORDINALS.get(bare, -1)
    return place if 0 <= place < len(labels) else None


def stated_side(value: Any, field: str) -> Side:
    """Return which completion a verdict prefers, or refuse what is no verdict."""
    side = side_of(value)
    if side is None:
        own = f"for other words map the column: winner={field} winner.first=WORD winner.second=WORD"
        if isinstance(value, str) and len(value) <= _LONGEST and _NEGATIVE.search(value):
            own += ", the WORD by which the other side is the worse one"
        raise RowError(
            "wrong_type", f"'{field}' is 1 or 2, a or b, left or right, 0 or tie; found {shown(value)} ({own})"
        )
    return side


Doubt = Literal["places", "scale", "sign", "share"]


def doubt_about(verdicts: Iterable[Any], *, numbered: bool) -> tuple[Doubt, list[float]] | None:
    """Return what the numbers among some verdicts may be other than 1, 2 and 0 for a tie, and these numbers.

    places: they may count from zero. 0 and 1 alone are a tie and the first to one, the first and the second to the
    other; of 0, 1 and 2 the rarest is taken for the tie, and where that is not 0 it is asked. `numbered` says that the
    columns themselves count from 1: where a few rows say nothing but 1, it is the first of them.
    Words that count from zero, as `model_0` and `model_1` do, are places, too.
    scale, sign, share: numbers above 2, below 0, between 0 and 1.
    """
    verdicts = list(verdicts)
    counted = {place for value in verdicts if (place := counter_of(value)) is not None}
    told: Counter[float] = Counter(found for value in verdicts if (found := _number_in(value)) is not None)
    numbers = sorted(told)
    if 0 in counted or not numbers:
        return ("places", sorted(map(float, counted))) if 0 in counted else None
    if numbers[0] < 0:
        return "sign", numbers
    if numbers[-1] > 2:
        return "scale", numbers
    if any(0 < number < 1 for number in numbers):
        return "share", numbers
    are_counted = bool(told[0]) and told[0] + told[1] >= NEARLY_ALL * told.total()
    if not told[2] and (are_counted or numbers[-1] in (0, 1)):
        is_plain = numbers == [1] and numbered and told.total() < _ENOUGH
        return None if is_plain else ("places", numbers)
    # Of a few rows nothing can be said of what is rare.
    most = min(told[1], told[2]) * (1 if told.total() < _MANY else _RARE)
    return ("places", numbers) if told[0] > most and told[1] and told[2] else None


_ENOUGH = 8
"""Rows after which a word that is always the same is no accident: one file in 256."""


_MANY = 20
_RARE = 0.75


def _number_in(value: Any) -> float | None:
    if isinstance(value, str):
        return float(value) if len(value) <= _LONGEST and _NUMBER.fullmatch(value.strip()) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < 1e9 else None


def counter_of(value: Any) -> int | None:
    """Return the number by which a word counts a completion, as `model_0` does, and "Response 0"; None of others."""
    found = _COUNTED.fullmatch(value.strip()) if isinstance(value, str) and len(value) <= _LONGEST else None
    return int(found[1]) if found else None


def is_beyond_one(value: Any) -> bool:
    """Whether a verdict counts further than two completions do that are counted from zero."""
    return word_of(value) == "2" or (counter_of(value) or 0) > 1


FROM_ZERO = {
    f"{noun}{joint}{place}": "ab"[place]
    for noun in ("", *_NOUNS)
    for joint in ("", "_", "-", " ")
    for place in (0, 1)
    if noun or not joint
}
"""Which side a word stands for where completions count from zero: "1", `model_1` and "response 1" are "b"."""


def is_number(value: Any) -> bool:
    """Whether a verdict is told as a number, or as text that is one."""
    return _number_in(value) is not None


APART = "apart: "
"""Begins what stands for a word that names one side and says the other, as `A` where `model_b` is called A. Behind it
is what it says; a number is no name."""


def replaced(verdict: Any, words: Mapping[str, str], judges: Collection[str] = ()) -> Any:
    """Return a verdict, or votes in lists and objects, with some words exchanged; what `judges` name stays.

    `words` are told as `word_of` does.
    """
    if isinstance(verdict, Mapping):
        return {
            words.get(word_of(key), key): item if key in judges else replaced(item, words, judges)
            for key, item in verdict.items()
        }
    if isinstance(verdict, list):
        return [replaced(item, words, judges) for item in verdict]
    told = words.get(word_of(verdict), verdict)
    return told if isinstance(verdict, str) or not isinstance(told, str) else told.removeprefix(APART)


def is_apart(value: Any, words: Mapping[str, str]) -> bool:
    """Whether a verdict names one side by a name of the row's own, and says the other by itself."""
    return str(replaced(value, words)).startswith(APART)


def says_side(value: Any, words: Mapping[str, str]) -> bool:
    """Whether a verdict says something of two completions, and be it that it can be read in two ways."""
    return side_of(replaced(value, words)) is not None or is_apart(value, words)


def word_of(value: Any) -> str:
    """Return a verdict as the word that a mapping gives for it, whatever its case: `1` also for 1.0 and "1.0"."""
    if isinstance(value, bool) or (isinstance(value, str) and not _NUMBER.fullmatch(value.strip())):
        return str(value).strip().casefold()
    number = _number_in(value)
    if number is None:
        return ""
    return str(int(number)) if number.is_integer() else str(number)


def liked(value: Any) -> bool | None:
    """Return whether a completion is liked, None where nothing is said; zero says nothing here."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float) and value in (1, -1):
        return value == 1
    if not isinstance(value, str) or len(value) > _LONGEST:
        return None
    if _NUMBER.fullmatch(value.strip()):
        return liked(float(value)) if float(value) else None
    word = re.sub(rf"[\s_{_TONES}]|(?<=\w)-", "", value.casefold())
    return True if word in _LIKED else False if word in _DISLIKED else None
