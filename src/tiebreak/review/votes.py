"""What people chose: a log for each of them, which only grows; what holds is what all its lines come to.

Owns the form of a line. What was seen stands beside what was chosen. Each line ends with a seal over itself and the
line before, and the first one is sealed to the items and the person, so a line that was edited, moved, taken out or
written by somebody else does not fit.

    {"item": "i-7f3a…", "annotator": "ann", "choice": "left", "shown": {"left": "b", "right": "a"},
     "tags": ["clearer"], "seconds": 11.4, "at": "2026-11-29T09:00:00Z", "seal": "…"}
    {"undo_of": 1, "annotator": "ann", "at": "2026-11-29T09:00:09Z", "seal": "…"}

`again` is true of a vote on an item that came a second time, with sides swapped. `undo_of` names the line of the vote
that is taken back: always the last one that still holds.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tiebreak import faults, files
from tiebreak.errors import DataError
from tiebreak.fingerprint import fingerprint
from tiebreak.review.order import OTHER

CHOICES = ("left", "right", "tie", "both_bad", "skip")
CLEARLY = "clearly"
"""How strong a preference may be said to be, where that is asked for."""
MAX_NOTE = 4000


@dataclass(frozen=True)
class Vote:
    """What one person chose of what was shown."""

    item: str
    annotator: str
    choice: str
    shown: Mapping[str, str]
    """Which completion stood on the left, and which on the right: a and b."""
    again: bool = False
    tags: tuple[str, ...] = ()
    note: str = ""
    strength: str | None = None
    seconds: float | None = None
    """How long it was looked at; None where the page could not tell."""
    at: str = ""
    reason: str = ""
    """Why it was skipped."""

    @property
    def verdict(self) -> str | None:
        """a, b, tie or both_bad; None where it was skipped."""
        if self.choice in ("left", "right"):
            return self.shown[self.choice]
        return None if self.choice == "skip" else self.choice

    def as_dict(self) -> dict[str, Any]:
        """Return it as its line has it; what was not said is left out."""
        told = {"item": self.item, "annotator": self.annotator, "choice": self.choice, "shown": dict(self.shown)}
        more = {
            "again": self.again,
            "tags": list(self.tags),
            "note": self.note,
            "strength": self.strength,
            "seconds": self.seconds,
            "reason": self.reason,
        }
        return told | {name: value for name, value in more.items() if value not in (False, [], "", None)}

    @staticmethod
    def from_dict(row: Mapping[str, Any]) -> Vote:
        """Return the vote of a line; raises KeyError, TypeError or ValueError where it is none."""
        shown, seconds = row["shown"], row.get("seconds")
        if row["choice"] not in CHOICES or OTHER.get(shown["left"]) != shown["right"]:
            raise ValueError
        if seconds is not None and not (math.isfinite(seconds) and seconds >= 0):
            raise ValueError
        return Vote(
            str(row["item"]),
            str(row["annotator"]),
            row["choice"],
            {"left": shown["left"], "right": shown["right"]},
            bool(row.get("again", False)),
            tuple(map(str, row.get("tags", ()))),
            str(row.get("note", "")),
            row.get("strength"),
            seconds,
            str(row.get("at", "")),
            str(row.get("reason", "")),
        )


Place = tuple[str, bool]
"""An item, and whether it is its repetition."""


@dataclass(frozen=True)
class State:
    """What the lines of a log come to."""

    standing: tuple[tuple[int, Vote], ...] = ()
    """The votes that hold with their lines, oldest first; of one place the last one counts."""

    @property
    def votes(self) -> dict[Place, Vote]:
        """The vote that counts, by its place."""
        return {(vote.item, vote.again): vote for _, vote in self.standing}


def _take(standing: list[tuple[int, Vote]], number: int, row: Mapping[str, Any]) -> None:
    """Let one more line count; raises KeyError, TypeError or ValueError where it says nothing."""
    if "undo_of" not in row:
        standing.append((number, Vote.from_dict(row)))
    elif standing and standing[-1][0] == row["undo_of"]:
        standing.pop()
    else:
        raise ValueError


class Log:
    """One person's log. What another process added to it meanwhile is read before anything is said or written."""

    def __init__(self, path: Path, annotator: str, items_digest: str) -> None:
        self.path, self._annotator = path, annotator
        self._first = fingerprint([items_digest, annotator])[:16]
        self._forget()

    def _forget(self) -> None:
        self._end, self._size, self._num, self._seal = 0, -1, 0, self._first
        self._state = State()

    @property
    def is_torn(self) -> bool:
        """Whether a writer that was cut off left half a line at the end, which does not count."""
        self.state()
        return self._size > self._end

    def state(self) -> State:
        """Return what holds; raises DataError, with the line, where one is not as it was written."""
        size = self.path.stat().st_size if self.path.exists() else 0
        if size != self._size:
            self._read()
        return self._state

    def _read(self) -> None:
        self._forget()
        content = self.path.read_bytes() if self.path.exists() else b""
        *lines, torn = content.split(b"\n")
        standing: list[tuple[int, Vote]] = []
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line.decode("utf-8"))
                if row["annotator"] != self._annotator or row["seal"] != _sealed(row, self._seal):
                    raise ValueError
                _take(standing, number, row)
            except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
                raise DataError(
                    f"{self.path}:{number}: is not the line that was written here; bring the file back from a copy, or "
                    f"move it away, and {self._annotator} begins anew"
                ) from None
            self._seal, self._num = row["seal"], number
        self._state, self._end, self._size = State(tuple(standing)), len(content) - len(torn), len(content)

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a line, on disk before this returns; OSError where it cannot be: then nothing of it is kept.

        What a writer that was cut off left of a line goes first.
        """
        standing = [*self.state().standing]
        row = {**row, "annotator": self._annotator}
        row["seal"] = _sealed(row, self._seal)
        _take(standing, self._num + 1, row)
        line = json.dumps(row).encode() + b"\n"
        self.path.parent.mkdir(exist_ok=True)
        with files.opened(self.path, 0o600) as file:
            handle = file.fileno()
            try:
                os.ftruncate(handle, self._end)
                faults.point("review:vote")
                if os.write(handle, line) < len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
                os.fsync(handle)
                if not self._end:
                    files.sync(self.path.parent)
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(handle, self._end)
                self._forget()
                raise
        self._state, self._seal, self._num = State(tuple(standing)), row["seal"], self._num + 1
        self._end = self._size = self._end + len(line)


def _sealed(row: Mapping[str, Any], before: str) -> str:
    return fingerprint([before, {name: value for name, value in row.items() if name != "seal"}])[:16]
