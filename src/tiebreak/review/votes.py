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
from collections import Counter
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
MAX_LINES = 100
"""Votes on one showing, those that were taken back among them: whoever has a link cannot fill the disk."""


class DamagedLog(DataError):  # noqa: N818 - named for what was found
    """A log is not as it was written, or cannot be read: `str` is for whoever made the review, and knows its folder."""

    for_voters = "Your votes cannot be read; nothing was kept of what you did last. Tell whoever sent you the link."


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
    taken_back: Vote | None = None
    """What the last line takes back; None where it is a vote."""

    @property
    def votes(self) -> dict[Place, Vote]:
        """The vote that counts, by its place."""
        return {(vote.item, vote.again): vote for _, vote in self.standing}


def _take(standing: list[tuple[int, Vote]], number: int, row: Mapping[str, Any]) -> tuple[Vote, bool]:
    """Let one more line count; return the vote that it is about, and whether it takes that back.

    Raises KeyError, TypeError or ValueError where it says nothing.
    """
    if "undo_of" not in row:
        standing.append((number, Vote.from_dict(row)))
        return standing[-1][1], False
    if standing and standing[-1][0] == row["undo_of"]:
        return standing.pop()[1], True
    raise ValueError


class Log:
    """One person's log. What another process added to it meanwhile is read before anything is said or written."""

    def __init__(self, path: Path, annotator: str, items_digest: str) -> None:
        self.path, self._annotator = path, annotator
        self._first = fingerprint([items_digest, annotator])[:16]
        self._forget()

    def _forget(self) -> None:
        self._end, self._found, self._num, self._seal = 0, _UNREAD, 0, self._first
        self._state, self._votes = State(), Counter[Place]()

    @property
    def is_torn(self) -> bool:
        """Whether a writer that was cut off left half a line at the end, which does not count."""
        self.state()
        return self._found[0] > self._end

    def state(self) -> State:
        """Return what holds; raises DamagedLog, with the line, where one is not as it was written, or none is read."""
        try:
            found = _found(self.path.stat())
        except FileNotFoundError:
            found = _NOTHING
        except OSError as error:
            raise self._unreadable(error) from None
        if found != self._found:
            self._read(found)
        return self._state

    def times(self, place: Place) -> int:
        """Return how many votes of one place the lines hold, those that were taken back among them."""
        self.state()
        return self._votes[place]

    def _unreadable(self, error: OSError) -> DamagedLog:
        why = os.strerror(error.errno) if error.errno else type(error).__name__
        return DamagedLog(f"{self.path}: cannot be read ({why}); see to it that whoever serves the review can")

    def _read(self, found: _Found) -> None:
        self._forget()
        try:
            content = b"" if found == _NOTHING else self.path.read_bytes()
        except OSError as error:
            raise self._unreadable(error) from None
        *lines, torn = content.split(b"\n")
        standing: list[tuple[int, Vote]] = []
        vote, is_taken_back = None, False
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line.decode("utf-8"))
                if row["annotator"] != self._annotator or row["seal"] != _sealed(row, self._seal):
                    raise ValueError
                vote, is_taken_back = _take(standing, number, row)
            except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
                self._forget()
                raise DamagedLog(
                    f"{self.path}:{number}: is not the line that was written here; bring the file back from a copy; "
                    f"moved away, {self._annotator} begins anew, and without these votes the result is no evidence"
                ) from None
            self._seal, self._num = row["seal"], number
            self._votes[vote.item, vote.again] += not is_taken_back
        self._state = State(tuple(standing), vote if is_taken_back else None)
        self._end, self._found = len(content) - len(torn), (len(content), *found[1:])

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a line, on disk before this returns; OSError where it cannot be: then nothing of it is kept.

        What a writer that was cut off left of a line goes first.
        """
        standing = [*self.state().standing]
        row = {**row, "annotator": self._annotator}
        row["seal"] = _sealed(row, self._seal)
        vote, is_taken_back = _take(standing, self._num + 1, row)
        line = _as_line(row)
        self.path.parent.mkdir(exist_ok=True, mode=0o700)
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
                found = _found(os.fstat(handle))
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(handle, self._end)
                self._forget()
                raise
        self._state = State(tuple(standing), vote if is_taken_back else None)
        self._votes[vote.item, vote.again] += not is_taken_back
        self._seal, self._num, self._end, self._found = row["seal"], self._num + 1, self._end + len(line), found


_Found = tuple[int, int, int]
"""Bytes of a file, when it was written, and which file it is: an edit that keeps one of them seldom keeps all."""
_UNREAD: _Found = (-1, 0, 0)
_NOTHING: _Found = (0, 0, 0)


def _found(status: os.stat_result) -> _Found:
    return status.st_size, status.st_mtime_ns, status.st_ino


def _as_line(row: Mapping[str, Any]) -> bytes:
    """Return a line, letters as they are: six bytes for each would let a note of the longest fill the disk sooner."""
    try:
        return json.dumps(row, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:  # halves of characters, in the name of an item
        return json.dumps(row).encode() + b"\n"


def _sealed(row: Mapping[str, Any], before: str) -> str:
    return fingerprint([before, {name: value for name, value in row.items() if name != "seal"}])[:16]
