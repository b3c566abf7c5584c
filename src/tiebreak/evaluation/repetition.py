"""How much of an answer only goes on with what stood before: letters, words, list items, numbers counting on.

Owns what counts as going on. Looked at are the signs of a text and not its spelling: letters without case, blanks left
out, a number that only counts on (the same, one more or less) like any other that does. Of these, four things go on: a
cycle, a passage or an item that stood there before, and a run of very few words or signs. It knows no prompt: an answer
to who asks for a song with a long refrain reads high, too.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence, Set
from itertools import groupby
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

LOOPING = 0.4
"""From this share on an answer counts as looping; set on one half of a labelled set (docs/evaluation.md)."""

_LONGEST_CYCLE, _SHORTEST_CYCLING = 64, 5
_PASSAGE = 24
"""Letters that no sound prose says twice by chance: five words of English, twelve ideographs. Code takes
twice as many."""
_ITEM = 8
"""Letters from which on an item of words, said again, is more than a "yes"."""
_WINDOW, _FEW_SIGNS, _FEW_WORDS = 24, 3, 5
_ASKED_FOR = 24
"""Numbers in a row that may count on, as who asks for them expects, before they are a loop."""
_LONGEST_NUMBER = 15
_ENDS = frozenset(".!?\u3002\uff01\uff1f")
_IN_CODE = frozenset('{}[]<>()="|;:`\\')
_DIGITS = np.arange(ord("0"), ord("9") + 1)
_WEIGHTS = {"letter": 1, "number": 1, "syllable": 2, "picture": 1, "mark": 0.125}
_COUNTING = 0x110000  # beyond every character; a number that says something new has a code beyond this one
_FACTORS = np.random.default_rng(0).integers(1, 2**63, 2 * _PASSAGE, np.uint64) | np.uint64(1)

Flags = NDArray[np.bool_]
Codes = NDArray[np.int64]


def looping(text: str) -> float:
    """Return the share of a text, in letters, that only goes on with what stood before: 0 all new, near 1 all loop.

    What is said for the first time is new, so one sentence ten times over is 0.9. A mark weighs an eighth of a letter,
    an ideograph or a syllable two. Time grows with the length of the text (a few milliseconds for 1,000 characters).
    """
    signs = _signs(text)
    if not signs:
        return 0.0
    codes = np.array([sign.code for sign in signs], np.int64)
    weights = np.array([sign.weight for sign in signs])
    in_code = {sign.item for sign in signs if sign.code < _COUNTING and chr(sign.code) in _IN_CODE}
    said = np.array([sign.word > 0 for sign in signs])
    prose = np.array([sign.item not in in_code for sign in signs])
    # A row of few numbers or digits may be data, so that each of them is unlike all other signs.
    alone = np.where((codes >= _COUNTING) | np.isin(codes, _DIGITS), _COUNTING + np.arange(len(codes)), codes)
    goes_on = _cycling(codes) | _among_few(alone, _FEW_SIGNS) | _items(signs, in_code)
    if said.any():
        letters = codes[said], weights[said].astype(np.int64)
        goes_on[said] |= (_passages(*letters, _PASSAGE) & prose[said]) | _passages(*letters, 2 * _PASSAGE)
        goes_on[said] |= _poor([sign for sign in signs if sign.word])
    # A mark, or a number that counts, goes on where the word before it does.
    before = np.maximum.accumulate(np.where(said, np.arange(len(said)), -1))
    goes_on |= goes_on[before] & (before >= 0)
    return float(weights[goes_on].sum() / weights.sum())


def is_looping(text: str) -> bool:
    """Say whether so much of a text goes on with what stood before that a reader would call it a loop."""
    return looping(text) >= LOOPING


class _Sign(NamedTuple):
    code: int
    """A letter or mark by its character, a number beyond them; all numbers that count on have one."""
    weight: float
    word: int
    """Which word of the text it is in, from 1 on; 0 where it is in none: a mark, a number that counts on."""
    item: int
    """Which line or sentence it is in."""


def _signs(text: str) -> list[_Sign]:
    folded = unicodedata.normalize("NFKC", text).casefold()
    runs = [(kind, "".join(run)) for kind, run in groupby(folded, kind_of)]
    counting, values = _counting(runs), dict[str, int]()
    found: list[_Sign] = []
    item = word = 0
    for place, (kind, run) in enumerate(runs):
        word += 1
        if kind == "blank":
            item += "\n" in run
        elif place in counting:
            found.append(_Sign(_COUNTING, len(run), 0, item))
        elif kind == "number" and len(run) <= _LONGEST_NUMBER:
            found.append(_Sign(values.setdefault(run, _COUNTING + 1 + len(values)), len(run), word, item))
        else:
            for one in run:
                word += kind == "syllable"
                found.append(_Sign(ord(one), _WEIGHTS[kind], 0 if kind in ("mark", "picture") else word, item))
                item += one in _ENDS
    return found


def kind_of(character: str) -> str:
    """Return blank, letter, number, mark, picture, or syllable: an ideograph, a kana, a block of Hangul."""
    if character.isspace():
        return "blank"
    if character.isdecimal():
        return "number"
    category = unicodedata.category(character)
    if category[0] == "L" or (category[0] == "M" and not "\ufe00" <= character <= "\ufe0f"):
        unspaced = "\u2e80" <= character <= "\ua4cf" or "\uac00" <= character <= "\ud7af" or character >= "\U00020000"
        return "syllable" if unspaced else "letter"
    is_drawn = "\u2500" <= character <= "\u25ff"  # lines and bars
    return "picture" if category == "So" and not is_drawn else "mark"


def _counting(runs: Sequence[tuple[str, str]]) -> set[int]:
    """Return the places of numbers that only count on: among words, before empty items, in a row without an end.

    A letter before a bracket or a full stop, as in "b)", counts as a number does.
    """
    found: set[int] = set()
    recent: list[int] = []
    in_a_row = step = steady = 0
    for place, (kind, run) in enumerate(runs):
        behind = "".join(text for _, text in runs[place + 1 : place + 3])
        is_number = kind == "number" and len(run) <= _LONGEST_NUMBER
        if is_number or (kind == "letter" and len(run) == 1 and behind[:1] in (".", ")")):
            value = int(run) if is_number else ord(run)
            steady = steady + 1 if recent and value - recent[-1] == step else 0
            step = value - recent[-1] if recent else 0
            near = any(value - other in ((-1, 0, 1) if is_number else (1,)) for other in recent)
            opens_item = behind[:1] in (".", ")") and not behind[1:2].isdecimal()
            if steady >= _ASKED_FOR or ((near or steady) and (in_a_row == 0 or opens_item)):
                found.add(place)
            recent = [*recent[-7:], value]
            in_a_row += is_number
        elif kind in ("letter", "syllable"):
            in_a_row = 0
    return found


def _cycling(codes: Codes) -> Flags:
    """Say which signs repeat the one a period before them, where there are at least three rounds."""
    found = np.zeros(len(codes), np.bool_)
    for period in range(1, min(_LONGEST_CYCLE, len(codes) // 2) + 1):
        edges = np.flatnonzero(np.diff(codes[period:] == codes[:-period], prepend=False, append=False))
        starts, ends = edges[0::2], edges[1::2]
        long = ends - starts >= max(2 * period, _SHORTEST_CYCLING)
        found[period:] |= _covered(starts[long], ends[long], len(codes) - period)
    return found


def _passages(codes: Codes, weights: Codes, size: int) -> Flags:
    """Say which letters lie in a passage of `size` letters that stood there before."""
    spread = np.repeat(codes, weights)
    num = len(spread) - size + 1
    if num < 1:
        return np.zeros(len(codes), np.bool_)
    mixed = spread.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(29)
    hashes = np.zeros(num, np.uint64)
    for place, factor in enumerate(_FACTORS[:size]):
        hashes += mixed[place : place + num] * factor
    again = np.flatnonzero(_previous(hashes) >= 0)
    return _covered(again, again + size, len(spread))[np.cumsum(weights) - 1]


def _items(signs: Sequence[_Sign], in_code: Set[int]) -> Flags:
    """Say which signs lie in a line or sentence of words that stood there before."""
    seen: set[tuple[int, ...]] = set()
    found: list[bool] = []
    for number, group in groupby(signs, lambda sign: sign.item):
        item = list(group)
        spelled = tuple(sign.code for sign in item if sign.word)
        in_words = number not in in_code and sum(sign.weight for sign in item if sign.word) >= _ITEM
        found += [in_words and spelled in seen] * len(item)
        seen.add(spelled)
    return np.array(found)


def _poor(said: Sequence[_Sign]) -> Flags:
    """Say which letters lie in a word said before, among very few others."""
    spelled = [tuple(sign.code for sign in word) for _, word in groupby(said, lambda sign: sign.word)]
    vocabulary = {word: number for number, word in enumerate(dict.fromkeys(spelled))}
    return np.repeat(_among_few(np.array([vocabulary[word] for word in spelled]), _FEW_WORDS), [*map(len, spelled)])


def _among_few(codes: Codes, most: int) -> Flags:
    """Say which codes appeared before and lie in a window of at most so many different ones."""
    num = len(codes) - _WINDOW + 1
    if num < 1:
        return np.zeros(len(codes), np.bool_)
    place, previous = np.arange(len(codes)), _previous(codes)
    # A code is new to the windows that begin behind its last appearance, up to its own place.
    first = np.maximum(previous, place - _WINDOW) + 1
    steps = np.bincount(first, minlength=len(codes) + 1) - np.bincount(place + 1, minlength=len(codes) + 1)
    poor = np.flatnonzero(np.cumsum(steps)[:num] <= most)
    return _covered(poor, poor + _WINDOW, len(codes)) & (previous >= 0)


def _previous(keys: NDArray[np.generic]) -> Codes:
    """Return for each key the last place before it that has the same; -1 where there is none."""
    order = np.argsort(keys, kind="stable")
    found = np.full(len(keys), -1)
    same = keys[order][1:] == keys[order][:-1]
    found[order[1:][same]] = order[:-1][same]
    return found


def _covered(starts: Codes, ends: Codes, num: int) -> Flags:
    """Say which of `num` places lie between a start and its end."""
    steps = np.bincount(starts, minlength=num + 1) - np.bincount(ends, minlength=num + 1)
    return np.asarray(np.cumsum(steps)[:-1] > 0)
