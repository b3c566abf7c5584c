"""How completions of the data end: where a limit was, or as whoever wrote them would."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable
from statistics import fmean, median

from tiebreak.data.spacing import num_words
from tiebreak.diagnosis.signals import Signals
from tiebreak.maths.intervals import wilson

PILED_UP = 0.1
"""Share of completions of one and the same length, the largest: lengths of whole texts thin out towards their end."""
NEARLY_ALL = 0.9
"""Share of completions without a mark at their end, the lower end of its interval: no others show how they should."""
FEW_WORDS = 3
"""Labels and names of fewer words have the same length, and no mark, for another reason."""
_CLOSED_INSIDE = re.compile(r"[^\W\d_][.!?][\"')\]\u201d\u2019\u00bb]*\s|[\u3002\uff01\uff1f]")
"""A sentence that is closed within a text; numbers of a list are none."""


def piled_up(signals: Signals) -> str | None:
    """Return that completions end where a limit was, in words, where they do."""
    rows, texts = signals.evidence, signals.texts
    if not rows or len(rows) != len(texts):
        return None
    sides = [
        (int(row[f"{side}_num_tokens"]), text)
        for row, pair in zip(rows, texts, strict=True)
        for side, text in zip(("chosen", "rejected"), pair[1:], strict=True)
    ]
    longest = max(length for length, _ in sides)
    # Tokens that are decoded and read again may become one fewer.
    piled = [_is_open(text) for length, text in sides if length >= longest - 1]
    others = [_is_open(text) for length, text in sides if length < longest - 1]
    if len(piled) < PILED_UP * len(sides) or not others:
        return None
    apart, both = fmean(piled) - fmean(others), fmean(piled + others)
    # Three standard errors: whoever writes short answers without punctuation does so at every length.
    if apart <= 3 * math.sqrt(both * (1 - both) * (1 / len(piled) + 1 / len(others))):
        return None
    return (
        f"{len(piled)} of {len(sides)} held-out completions ({len(piled) / len(sides):.0%}) end at {longest - 1} or "
        f"{longest} tokens, where none is longer, and {fmean(piled):.0%} of those stop without a punctuation mark, of "
        f"the shorter ones {fmean(others):.0%}: they were cut off, and an end was put behind the cut"
    )


def _is_open(text: str) -> bool:
    """Whether a text stops without a mark that closes a sentence, a quotation or a block."""
    last = text.rstrip()[-1:]
    return not (last and unicodedata.category(last).startswith("P"))


def all_open(signals: Signals) -> str | None:
    """Return that nearly no completion is closed although its text says that it would be, in words, where that is so.

    Titles, code and chat have no full stops. What tells them from what was cut off: they close no sentence within, and
    are not of one length; whoever cuts by characters or words leaves that.
    """
    sides = [text for pair in signals.texts for text in pair[1:]]
    stopped = [text for text in sides if _is_open(text)]
    if not sides or float(wilson(len(stopped) / len(sides), len(sides))[0]) < NEARLY_ALL:
        return None
    says = f"{len(stopped)} of {len(sides)} held-out completions stop without a punctuation mark"
    within = sum(bool(_CLOSED_INSIDE.search(text.rstrip())) for text in stopped)
    if within >= len(sides) / 2:
        return f"{says}, and {within} of these close a sentence before: the last one seems to be cut off"
    if median(map(num_words, sides)) < FEW_WORDS or len(set(sides)) < len(sides) / 2:
        return None
    measures: dict[str, Callable[[str], int]] = {"characters": len, "words": num_words}
    for unit, length in measures.items():
        lengths = [length(text) for text in sides]
        most = sum(one == max(lengths) for one in lengths)
        if most >= len(sides) / 2 and max(lengths) > FEW_WORDS:
            return f"{says}, and {most} have {max(lengths)} {unit}, where none has more: they seem to be cut off"
    return None
