"""Numbers as they are written in answers, and what they are worth. The one place that says when two are the same.

Owns what stands between thousands, and that a percentage is another number than the one without its sign. Pure.
"""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation

_MARKS = r"[,'\u2019\u00a0\u2009\u202f]|\{,\}|\\,"

# A comma, a blank that does not break or an apostrophe may stand between thousands, and only there; a plain blank
# before 000 alone, as 10 500 are two numbers as well.
_NUMBER = re.compile(
    r"(?:(?<!\w)[-\u2212+])?(?:(?:\d{1,3}(?: 000)+(?![\d ])|"
    rf"\d{{1,3}}(?:(?:{_MARKS})\d{{3}})+(?!\d)|\d+)(?:\.\d+)?|(?<![\w.])\.\d+)"
    r"(?:[eE][-+]?\d{1,3}(?!\w))?"  # 6.02e23; and whatever a model writes, no power that takes a day to compare
)
_OF_UNIT = re.compile(
    r"(?<=[\s\d/\u00b7*{])(?:[cdkmn\u00b5]?m|s|h|ft|in|yd|mi)(?:\^\{[-\u2212]?\d\}|\^[-\u2212]?\d)(?!\w)"
)
"""The power of a unit, which is no number: 9.8 m/s^2."""
_OF_MORE = re.compile(
    r"(?:[\d)}]\s*[/\u00d7\u00f7\u2044]\s*|[\w)}]\s*\^\s*|[\d)](?:\*\*|\s+\*\*\s+)"
    r"|\}\s*(?=\{)|\\[a-z]?(?:frac|sqrt)\s*)[({]?\s*$"
)
r"""What stands before a number that is a part of another one: 1/2, 10^{6}, 10**6, \frac{3}{4}."""
_GOES_ON = re.compile(r"\s?[\u00bc-\u00be\u2150-\u215e]|[\u00b9\u00b2\u00b3\u2070-\u207b]|\s*\^")
"""What stands behind such a one: 10\u207b\u00b3, 2 \u00bd, 2^n."""
_REACH = 200
"""Characters before a number that are looked at."""
_BLANK_BEFORE = re.compile(r"(?<![\w.,])\d{1,3}(?: \d{3})* $")


def number_in(text: str) -> Decimal | None:
    """Return the value of the last number in a text; None where there is none, or a part of a fraction or a power.

    None, too, where blanks stand between what may be thousands or several numbers.
    """
    return _last(text, _numbers(text))


def only_number_in(text: str) -> Decimal | None:
    """Return the value of the only number in a text; None where there are none or several, or it is a part of one."""
    found = _numbers(text)
    return _last(text, found) if len(found) == 1 else None


def _numbers(text: str) -> list[re.Match[str]]:
    return [*_NUMBER.finditer(_OF_UNIT.sub(lambda unit: "m" * len(unit[0]), text))]


def _last(text: str, found: list[re.Match[str]]) -> Decimal | None:
    if not found:
        return None
    before, last = text[: found[-1].start()][-_REACH:], found[-1][0]
    is_group = last.partition(".")[0].isdigit() and len(last.partition(".")[0]) == 3
    if _OF_MORE.search(before) or _GOES_ON.match(text, found[-1].end()) or (is_group and _BLANK_BEFORE.search(before)):
        return None
    return _value(last)


def number_of(text: str) -> tuple[Decimal, str] | None:
    """Return the value of a text that is one number and nothing else, with its % or without; None where it is not."""
    written = text.strip().removesuffix("%")
    value = _value(written.rstrip()) if _NUMBER.fullmatch(written.rstrip()) else None
    return None if value is None else (value, "%" if text.strip() != written else "")


def _value(written: str) -> Decimal | None:
    try:
        return Decimal(re.sub(f"{_MARKS}| ", "", written).replace("\u2212", "-"))
    except InvalidOperation:
        return None
