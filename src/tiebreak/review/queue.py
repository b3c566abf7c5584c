"""Votes on a round's queue, written where that round reads them: votes.jsonl beside it.

Owns that the round's file says what the logs of a review say, and nothing of anybody else's. The logs are what holds:
what a writer that was cut off did not pass on is passed on with the next vote, or when the review is opened again.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from tiebreak import files
from tiebreak.errors import RunError
from tiebreak.review.votes import Vote

VOTES = "votes.jsonl"


class Queue:
    """The votes beside a queue."""

    def __init__(self, queue: Path) -> None:
        self.path = queue.with_name(VOTES)

    def tell(self, name: str, votes: Mapping[str, Vote], taken_back: str | None = None) -> None:
        """Append what the file does not say yet of a person's votes by item; one that is `taken_back` becomes a skip.

        The last line of a person on an item counts there. Raises OSError where nothing can be written.
        """
        told = {str(row.get("item")): (row.get("choice"), row.get("shown")) for row in self._rows(name)}
        lines = [
            {"item": item, "annotator": name, "choice": vote.choice, "shown": dict(vote.shown)}
            for item, vote in votes.items()
            if told.get(item) != (vote.choice, dict(vote.shown))
        ]
        if taken_back is not None and taken_back not in votes and told.get(taken_back, ("skip",))[0] != "skip":
            lines.append({"item": taken_back, "annotator": name, "choice": "skip"})
        if lines:
            with self._opened() as file:
                handle, (end, first) = file.fileno(), self._whole()
                os.ftruncate(handle, end)
                content = first + files.as_jsonl(lines)
                try:
                    if os.write(handle, content) < len(content):
                        raise OSError(f"{self.path}: the disk is full")
                    os.fsync(handle)
                except OSError:
                    os.ftruncate(handle, end)
                    raise

    def _opened(self) -> IO[bytes]:
        try:
            return files.opened(self.path)
        except RunError as error:  # a link, or no file
            raise OSError(str(error)) from None

    def _whole(self) -> tuple[int, bytes]:
        """Return how far the file goes without half a line at its end, and what a whole line there lacks."""
        content = self.path.read_bytes()
        end = content.rfind(b"\n") + 1
        with contextlib.suppress(ValueError, RecursionError):
            if isinstance(json.loads(content[end:].decode("utf-8")), dict):
                return len(content), b"\n"
        return end, b""

    def _rows(self, name: str) -> Iterator[dict[str, Any]]:
        for line in self.path.read_bytes().split(b"\n") if self.path.exists() else ():
            with contextlib.suppress(ValueError, RecursionError):  # whoever reads it for a round says what is wrong
                row = json.loads(line.decode("utf-8"))
                if isinstance(row, dict) and row.get("annotator") == name:
                    yield row
