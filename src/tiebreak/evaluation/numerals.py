"""Numbers as they are written in answers, and what they are worth. The one place that says when two are the same.

Owns what stands between thousands, and that a percentage is another number than the one without its sign. Pure.
"""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation

# A comma, a blank that does not break or an apostrophe may stand between thousands, and only there.
_NUMBER = re.compile(
    r"(?:(?<!\w)[-\u2212+])?(?:(?:\d{1,3}(?:[,'\u2019\u00a0\u202f]\d{3})+(?!\d)|\d+)(?:\.\d+)?|(?<![\w.])\.\d+)"
    r"(?:[eE][-+]?\d{1,3}(?!\w))?"  # 6.02e23; and whatever a model writes, no power that takes a day to compare
)
_OF_MORE = re.compile(r"[\d)]\s*[/^\u00d7\u00f7]\s*[({]?$")
"""What stands before a number that is a part of another one: 1/2, 10^{6}."""


def number_in(text: str) -> Decimal | None:
    """Return the value of the last number in a text; None where there is none, or a part of a fraction or a power."""
    found = [*_NUMBER.finditer(text)]
    return _value(found[-1][0]) if found and not _OF_MORE.search(text[: found[-1].start()]) else None


def number_of(text: str) -> tuple[Decimal, str] | None:
    """Return the value of a text that is one number and nothing else, with its % or without; None where it is not."""
    written = text.strip().removesuffix("%")
    value = _value(written.rstrip()) if _NUMBER.fullmatch(written.rstrip()) else None
    return None if value is None else (value, "%" if text.strip() != written else "")


def _value(written: str) -> Decimal | None:
    try:
        return Decimal(re.sub(r"[,'\u2019\u00a0\u202f]", "", written).replace("\u2212", "-"))
    except InvalidOperation:
        return None
