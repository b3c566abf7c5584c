"""The words that people and tools use for a judgement: which of two is better, whether one is liked.

Owns this vocabulary. It knows no form.
"""

from __future__ import annotations

import re
from typing import Any, Literal

from tiebreak.data.formats.form import RowError
from tiebreak.data.formats.pieces import shown

Side = Literal["first", "second", "tie"]

_LONGEST = 60  # a longer text is a comment, not a verdict
_NOUNS = re.compile(r"^(?:response|completion|answer|output|model|option|candidate|assistant|generation|reply|text)")
_SIDES: dict[str, Side] = {
    **dict.fromkeys(("1", "a", "left", "first", "one"), "first"),
    **dict.fromkeys(("2", "b", "right", "second", "two"), "second"),
    **dict.fromkeys(("0", "tie", "tiebothbad", "tiebothgood", "bothbad", "bothgood", "both"), "tie"),
    **dict.fromkeys(("equal", "same", "draw", "neither"), "tie"),
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
        return _SIDES.get(word) or _SIDES.get(_NOUNS.sub("", word))
    if isinstance(value, bool) or not isinstance(value, int | float) or not (value == 0 or 1 <= value <= 2):
        return None
    if value in (0, 1.5):
        return "tie"
    return "first" if value < 1.5 else "second"


def stated_side(value: Any, field: str) -> Side:
    """Return which completion a verdict prefers, or refuse what is no verdict."""
    side = side_of(value)
    if side is None:
        raise RowError("wrong_type", f"'{field}' is 1, 2 or 0, a, b or tie; found {shown(value)}")
    return side


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
