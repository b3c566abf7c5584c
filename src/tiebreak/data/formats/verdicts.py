"""The words that people and tools use for a judgement: which of two is better, whether one is liked.

Owns this vocabulary, and when the numbers of a file admit two readings. It knows no form.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Literal

from tiebreak.data.formats.cells import shown
from tiebreak.data.formats.form import RowError

Side = Literal["first", "second", "tie"]

_LONGEST = 60  # a longer text is a comment, not a verdict
_NOUNS = re.compile(r"^(?:response|completion|answer|output|model|option|candidate|assistant|generation|reply|text)")
_NUMBER = re.compile(r"[-+]?\d+(?:\.\d*)?")
_BETTER = re.compile(
    r"(?:is|was)?(?:much|slightly|significantly|clearly|far|marginally)?(?:better|preferred|wins|won)$"
)
_SIDES: dict[str, Side] = {
    **dict.fromkeys(("1", "a", "left", "first", "one"), "first"),
    **dict.fromkeys(("2", "b", "right", "second", "two"), "second"),
    **dict.fromkeys(("0", "tie", "tiebothbad", "tiebothgood", "bothbad", "bothgood", "both"), "tie"),
    **dict.fromkeys(("equal", "same", "draw", "neither", "tied", "equallygood", "equallybad", "nopreference"), "tie"),
}
_LIKED = frozenset(
    {"1", "+1", "true", "yes", "up", "thumbsup", "thumbup", "👍", "like", "liked", "upvote", "upvoted", "good"}
    | {"positive", "desirable", "correct"}
)
_DISLIKED = frozenset(
    {"-1", "false", "no", "down", "thumbsdown", "thumbdown", "👎", "dislike", "disliked", "downvote", "downvoted"}
    | {"bad", "negative", "undesirable", "incorrect"}
)


def side_of(value: Any) -> Side | None:
    """Return which of two completions a verdict prefers, None where it is no verdict.

    1 and 2 (a and b, left and right, `model_a`, `response_2` …) name one, 0 and the words for a tie neither. A number
    between 1 and 2 leans to the nearer one (AlpacaEval's weighted preference); 1.5 is a tie.
    """
    if isinstance(value, str):
        word = re.sub(r"[^a-z0-9]", "", value.casefold()) if len(value) <= _LONGEST else ""
        if _NUMBER.fullmatch(value.strip()):
            return side_of(float(value))
        plain = _BETTER.sub("", word)
        return _SIDES.get(word) or _SIDES.get(_NOUNS.sub("", word)) or _SIDES.get(_NOUNS.sub("", plain))
    if isinstance(value, bool) or not isinstance(value, int | float) or not (value == 0 or 1 <= value <= 2):
        return None
    if value in (0, 1.5):
        return "tie"
    return "first" if value < 1.5 else "second"


def stated_side(value: Any, field: str) -> Side:
    """Return which completion a verdict prefers, or refuse what is no verdict."""
    side = side_of(value)
    if side is None:
        own = f"for other words name the column, with {field}.first=WORD"
        raise RowError(
            "wrong_type", f"'{field}' is 1 or 2, a or b, left or right, 0 or tie; found {shown(value)} ({own})"
        )
    return side


def may_count_from_zero(verdicts: Iterable[Any], *, numbered: bool) -> bool:
    """Whether the numbers among some verdicts may count from zero: 0 is the first, 1 the second, 2 (if any) a tie.

    It is so where they are 0 and 1 alone, which others write for a tie and the first. `numbered` says that the columns
    themselves count from 1: where nothing but 1 is said, it is the first of them. Of many numbers 0, 1 and 2 it is so
    where 2 is by far the rarest, for ties are rare as a rule.
    """
    told: Counter[float] = Counter()
    for value in verdicts:
        is_text = isinstance(value, str) and re.fullmatch(r"\s*[012](?:\.0*)?\s*", value) is not None
        if is_text or (isinstance(value, int | float) and not isinstance(value, bool)):
            told[float(value)] += 1
    if not told or not told.keys() <= {0, 1, 2}:
        return False
    if 2 not in told:
        return not (told.keys() == {1} and numbered)
    return told.total() >= _ENOUGH and 2 * told[2] <= min(told[0], told[1])


_ENOUGH = 20


def replaced(verdict: Any, words: Mapping[str, str], judges: Collection[str] = ()) -> Any:
    """Return a verdict, or votes in lists and objects, with some words exchanged; what `judges` name stays."""
    if isinstance(verdict, Mapping):
        return {key: item if key in judges else replaced(item, words, judges) for key, item in verdict.items()}
    if isinstance(verdict, list):
        return [replaced(item, words, judges) for item in verdict]
    return words.get(word_of(verdict), verdict)


def word_of(value: Any) -> str:
    """Return a verdict as the word that a mapping gives for it: `1` also for 1.0 and " 1 ", `true` for True."""
    if isinstance(value, bool):
        return str(value).casefold()
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip() if isinstance(value, str | int | float) else ""


def liked(value: Any) -> bool | None:
    """Return whether a completion is liked, None where nothing is said; zero says nothing here."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float) and value in (1, -1):
        return value == 1
    if not isinstance(value, str) or len(value) > _LONGEST:
        return None
    word = re.sub(r"[\s_]|(?<=\w)-", "", value.casefold())
    return True if word in _LIKED else False if word in _DISLIKED else None
