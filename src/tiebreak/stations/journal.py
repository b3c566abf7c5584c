"""What a judge said until now, beside the file that its verdicts will stand in: a line as soon as it is said.

Owns this file, which stays: it also holds who was asked and what was paid, by each go at it. A line that was cut off is
forgotten.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tiebreak import files
from tiebreak.evaluation.judges.capped import Spent
from tiebreak.stations.rows import Verdict


class Journal:
    """The journal of a file of verdicts."""

    def __init__(self, file: Path) -> None:
        self._path = file.with_name(f"{file.stem}.journal.jsonl")
        self._lock = threading.Lock()
        self._key = self.judge = ""
        """Identity of who was asked last."""
        self._paid: dict[int, Spent] = {}
        self._rows: list[tuple[str, int, Verdict]] = []
        last = 0
        for row in files.appended_jsonl(self._path):
            if "verdict" in row:
                self._rows.append((row["key"], row["place"], Verdict.from_dict(row["verdict"])))
                continue
            last = row["go"]
            if "judge" in row:
                self.judge = row["judge"]
            else:
                self._paid[last] = Spent(**row["spent"])
        self._go = last + 1

    @property
    def spent(self) -> Spent | None:
        """What was spent by all goes together; None where nothing is."""
        with self._lock:
            return Spent.together([paid for _, paid in sorted(self._paid.items())])

    @property
    def known(self) -> dict[int, Verdict]:
        """What was said under this key, by place."""
        return {place: verdict for key, place, verdict in self._rows if key == self._key}

    def open(self, judge: str, key: str) -> None:
        """Begin a go: `judge` is asked, and what is said depends on `key` alone."""
        self._key, self.judge = key, judge
        files.append_jsonl(self._path, [{"go": self._go, "judge": judge}])

    def take(self, made: Sequence[tuple[int, Verdict]]) -> None:
        """Keep what was said of some prompts."""
        rows = [{"key": self._key, "place": place, "verdict": verdict.as_dict()} for place, verdict in made]
        with self._lock:
            files.append_jsonl(self._path, rows)

    def pay(self, spent: Spent) -> None:
        """Keep what this go has spent by now, all of it together.

        It only grows: what several threads tell may come late, and what is less than what is known says nothing.
        """
        with self._lock:
            if (known := self._paid.get(self._go)) and _extent(spent) <= _extent(known):
                return
            self._paid[self._go] = spent
            files.append_jsonl(self._path, [{"go": self._go, "spent": asdict(spent)}])


def _extent(spent: Spent) -> tuple[int, ...]:
    return spent.num_calls, spent.tokens_in + spent.tokens_out, spent.num_kept
