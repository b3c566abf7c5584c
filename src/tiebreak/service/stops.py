"""The text of an answer up to the first stop sequence in it, handed out while it comes.

Owns what is certain of a text that may still turn out to begin a stop sequence: nothing of such an end is handed out.
Knows nothing of tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence


class UpToStop:
    """Takes a text piece by piece, and hands on what stands before the first stop sequence."""

    def __init__(self, stops: Sequence[str], hear: Callable[[str], None]) -> None:
        self._stops = stops
        self._hear = hear
        self._text = ""
        self._said = 0
        self._longest = max(map(len, stops), default=0)
        self.stopped = False
        """Whether a stop sequence came."""

    @property
    def text(self) -> str:
        """What came, up to the stop sequence."""
        return self._text

    def take(self, piece: str) -> None:
        """Take more of the text; what comes behind a stop sequence is nothing."""
        if self.stopped:
            return
        start = max(0, len(self._text) - self._longest + 1)
        self._text += piece
        places = [place for stop in self._stops if (place := self._text.find(stop, start)) >= 0]
        if places:
            self.stopped = True
            self._text = self._text[: min(places)]
        self._say(len(self._text) - (0 if self.stopped else self._begun()))

    def end(self) -> None:
        """Hand on the rest: nothing more comes."""
        self._say(len(self._text))

    def _begun(self) -> int:
        """Return the length of the longest end of the text that begins a stop sequence."""
        return max(
            (num for stop in self._stops for num in range(len(stop)) if self._text.endswith(stop[:num])), default=0
        )

    def _say(self, end: int) -> None:
        if end > self._said:
            self._hear(self._text[self._said : end])
            self._said = end
