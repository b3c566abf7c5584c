"""Control tokens inside content stay text: a private character breaks them, and pieces are encoded one by one.

Owns that character, in every spelling that a template may give it, and what is broken by it. Knows no tokenizer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

BREAK = "\uf8f5"
"""Of the Unicode private-use area, so no font, keyboard or tokenizer gives it."""
# Python, and JSON in ASCII, write a character so; who writes the six characters himself is broken in the middle.
_ESCAPED = re.compile(r"\\(?=u[fF]8[fF]5)")
_WRITTEN = re.compile(rf"{BREAK}|\\u[fF]8[fF]5")


def pieces(text: str) -> list[str]:
    """Return what a template wrote, cut wherever it wrote the break."""
    return _WRITTEN.split(text) if "8" in text else text.split(BREAK)


class Breaker:
    """Puts `BREAK` into every spelling of some tokens."""

    def __init__(self, tokens: Iterable[str]) -> None:
        longest_first = sorted((token for token in tokens if len(token) > 1), key=len, reverse=True)
        self._whole = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None
        self._begun = {token[:length] for token in longest_first for length in range(1, len(token))}
        self._longest = len(longest_first[0]) if longest_first else 0
        self._firsts = {token[0] for token in longest_first}

    def broken(self, value: Any) -> Any:
        """Return a value of JSON with the tokens broken in all its texts."""
        if isinstance(value, str):
            return self._broken_text(value)
        if isinstance(value, Mapping):
            return {self.broken(key): self.broken(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.broken(item) for item in value]
        return value

    def closed(self, text: str) -> str:
        """Return a broken text that no token can reach out of: templates may write messages back to back."""
        text = self._broken_text(text)
        return text + BREAK if self._ends_begun(text) else text

    def _ends_begun(self, text: str) -> bool:
        if self._firsts.isdisjoint(text[1 - self._longest :]):
            return False
        return any(text[-length:] in self._begun for length in range(1, self._longest))

    def _broken_text(self, text: str) -> str:
        text = text.replace(BREAK, "")
        if "\\u" in text:
            text = _ESCAPED.sub(lambda found: found[0] + BREAK, text)
        while self._whole and self._whole.search(text):  # again, since a broken token may hold a shorter one
            text = self._whole.sub(lambda found: found[0][0] + BREAK + found[0][1:], text)
        return text
