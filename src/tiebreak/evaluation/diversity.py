"""How different answers are from each other, at equal length: long answers repeat more than short ones by length alone.

Owns what a word of an answer is here, and that every text is cut to the same number of them. A text that has fewer is
left out: it cannot be compared. Pure.
"""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from collections.abc import Sequence
from itertools import groupby

from tiebreak.evaluation.repetition import kind_of

Words = tuple[str, ...]
_LONGEST_RUN = 4


def words(text: str) -> Words:
    """Return the words of a text without case: runs of letters, numbers, and each mark and each ideograph alone."""
    found: list[str] = []
    for kind, characters in groupby(unicodedata.normalize("NFKC", text).casefold(), kind_of):
        run = "".join(characters)
        found += [] if kind == "blank" else [run] if kind in ("letter", "number") else run
    return tuple(found)


def shared_length(*sides: Sequence[str], share: float = 0.75) -> int:
    """Return the most words that at least this share of the texts of each side has; 0 where a side has none."""
    lengths = [sorted((len(words(text)) for text in side), reverse=True) for side in sides]
    return min((side[math.ceil(share * len(side)) - 1] if side else 0 for side in lengths), default=0)


def distinct_n(texts: Sequence[str], n: int, at_length: int) -> float:
    """Return different runs of `n` words / all of them, over the first `at_length` words of all texts (0..1].

    Li et al. 2016. It falls with the number of texts, too: compare equally many. Raises ValueError where no text is
    long enough.
    """
    runs = [run for text in _cut(texts, at_length) for run in _runs(text, n)]
    if not runs:
        raise ValueError(f"no text has {max(n, at_length)} words")
    return len(set(runs)) / len(runs)


def self_bleu(texts: Sequence[str], at_length: int) -> float:
    """Return the mean BLEU-4 of each text against all others, over their first `at_length` words: 1 all the same.

    Zhu et al. 2018; one is added to the counts of runs of two to four words (Lin & Och 2004), since texts this short
    often share none. All are of one length, so none is penalised for brevity. Time grows with the number of words.
    Raises ValueError where fewer than two texts are long enough.
    """
    cut = _cut(texts, at_length)
    if len(cut) < 2:
        raise ValueError(f"fewer than two texts have {at_length} words")
    logs = [0.0] * len(cut)
    sizes = range(1, min(_LONGEST_RUN, at_length) + 1)
    for n in sizes:
        counts = [Counter(_runs(text, n)) for text in cut]
        most: dict[Words, tuple[int, int]] = {}  # of each run: how often the text that has it most has it, and the next
        for count in counts:
            for run, times in count.items():
                first, second = most.get(run, (0, 0))
                most[run] = (max(first, times), max(min(first, times), second))
        added = n > 1
        for index, count in enumerate(counts):
            found = sum(min(times, most[run][times == most[run][0]]) for run, times in count.items())
            logs[index] += math.log((found + added) / (at_length - n + 1 + added)) if found + added else -math.inf
    return math.fsum(math.exp(log / len(sizes)) for log in logs) / len(cut)


def unfinished_share(finished: Sequence[bool]) -> float:
    """Return the share of answers that did not end by themselves; raises ValueError where there are none."""
    if not finished:
        raise ValueError("there are no answers")
    return 1 - sum(finished) / len(finished)


def _cut(texts: Sequence[str], at_length: int) -> list[Words]:
    if at_length < 1:
        raise ValueError("texts are compared over at least one word")
    return [found[:at_length] for found in map(words, texts) if len(found) >= at_length]


def _runs(text: Words, n: int) -> list[Words]:
    return [text[start : start + n] for start in range(len(text) - n + 1)]
