"""What an evaluation has scored so far, so that one that was cut off goes on where it was.

Owns the file: rows appended group by group, each under a key that says what it depends on. A last line that was torn is
left out. A disk that is full costs only that something is scored again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tiebreak.files import append_jsonl, appended_jsonl


class KeptRows:
    """Rows by their keys, in a file; in no file where there is no path."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._rows: dict[str, Any] = {}
        for row in appended_jsonl(path) if path else ():
            with contextlib.suppress(KeyError):
                self._rows[str(row["key"])] = row["row"]

    def rows(self, keys: Sequence[str]) -> list[Any] | None:
        """Return the rows of these keys, in order; None where one of them is not known."""
        return [self._rows[key] for key in keys] if all(key in self._rows for key in keys) else None

    def keep(self, rows: Mapping[str, Any]) -> None:
        """Remember rows; what is not finite stays as it is in this file of ours."""
        self._rows |= rows
        if self._path:
            append_jsonl(self._path, ({"key": key, "row": row} for key, row in rows.items()))
