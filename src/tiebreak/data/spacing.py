"""What a word of a text is, wherever words are counted or compared: also in scripts that put no spaces between them."""

from __future__ import annotations

import re

_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
# Sets twice, `[x][x]*`: the engine looks for the first member of a set quickly, for `[x]+` it does not.
_LETTERS = re.compile(f"[{_UNSPACED}][{_UNSPACED}]*")


def spaced(text: str) -> str:
    """Return the text with a space around each letter of a script that has none between words: there it is a word."""
    return text if text.isascii() else _LETTERS.sub(lambda match: f" {' '.join(match.group())} ", text)


def words_of(text: str) -> list[str]:
    """Return the words of a text, in their order."""
    return spaced(text).split()


def num_words(text: str) -> int:
    """Return how many words a text has."""
    return len(words_of(text))
