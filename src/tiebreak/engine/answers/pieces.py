"""The text of an answer, handed out in pieces while its tokens come.

Owns when a piece of text is certain: a character may lie in several tokens, and what a token means may hang on those
before it, so each time all of them are decoded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from os.path import commonprefix

Hear = Callable[[str], None]
"""Is told text, piece after piece."""


def unheard(_: str) -> None:
    """Take no notice."""


class Pieces:
    """Hands out what each token adds to the text.

    What was handed out is the text, but for a tokenizer that takes back a character when more tokens have come.
    """

    def __init__(self, text_of: Callable[[Sequence[int]], str], hear: Hear) -> None:
        self._text_of = text_of
        self._hear = hear
        self._ids: list[int] = []
        self._said = ""

    def take(self, token: int) -> None:
        """Hand out what is certain once this token is there."""
        self._ids.append(token)
        # The end of a character that is not whole reads as replacement marks; some decoders take a last blank back.
        self.end(self._text_of(self._ids).rstrip(" \N{REPLACEMENT CHARACTER}"))

    def end(self, text: str) -> None:
        """Hand out the rest of the text."""
        piece = text[len(commonprefix([self._said, text])) :]  # noqa: RUF071 - character by character is meant
        self._said = text
        if piece:
            self._hear(piece)
