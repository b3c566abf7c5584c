"""Raw answers of judges that are asked over a network, kept by content: what was paid for is not asked again.

Owns the file: SQLite, one row an answer, written as it comes. It survives SIGKILL, and several processes use it at
once. The key is a fingerprint of who is asked and of all that is sent; what an answer means is not known here.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import platformdirs

from tiebreak.errors import JudgeError, RunError, one_line
from tiebreak.files import opened

_TABLE = "CREATE TABLE answers (key TEXT PRIMARY KEY, answer TEXT NOT NULL) WITHOUT ROWID"
_APPLICATION = 0x7469656A
"""Marks the file as one of these; of what SQLite reads, no other is opened."""
_WAIT_SECONDS = 60
_AT_ONCE = 500


def default_file() -> Path:
    """Return the file in the user's cache."""
    return Path(platformdirs.user_cache_path("tiebreak")) / "judgements.sqlite"


class KeptAnswers:
    """Answers by key. A context manager: the file is opened, and made where it is not, at its beginning.

    Raises JudgeError where the file is of something else, or cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as undo:
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                opened(self._path, 0o600).close()  # it holds what people wrote; SQLite would follow a link
                self._connection = sqlite3.connect(
                    self._path, timeout=_WAIT_SECONDS, isolation_level=None, check_same_thread=False
                )
                undo.callback(self._connection.close)
                self._begin()
            except (RunError, sqlite3.Error, OSError) as error:
                raise _refusal(self._path, error) from None
            undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:  # a thread that nobody waits for may be keeping an answer
            self._connection.close()

    def get(self, keys: Sequence[str]) -> dict[str, str]:
        """Return the answers that are kept, by key."""
        with self._lock:
            try:
                return _selected(self._connection, keys)
            except sqlite3.Error as error:
                raise _refusal(self._path, error) from None

    def keep(self, key: str, answer: str) -> None:
        """Keep one answer; it is on the disk when this returns."""
        with self._lock:
            try:
                self._connection.execute("INSERT OR REPLACE INTO answers VALUES (?, ?)", (key, answer))
            except sqlite3.Error as error:
                raise _refusal(self._path, error) from None

    def _begin(self) -> None:
        """Make the table in a new file; refuse one that holds anything else, which could run code of its own."""
        connection = self._connection
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("BEGIN IMMEDIATE")  # of two processes that come at once, one makes it
        if _is_new(connection, self._path):
            connection.execute(f"PRAGMA application_id = {_APPLICATION}")
            connection.execute(_TABLE)
        connection.execute("COMMIT")
        connection.execute("PRAGMA journal_mode = TRUNCATE")  # as safe as deleting the journal each time, and quicker


def answers_in(path: Path, keys: Sequence[str]) -> dict[str, str]:
    """Return the answers that a file holds, by key; nothing is written, and where there is no file none is made.

    What a process that was killed left half-written can be read only by who may write: then no answer is known, and
    what is to be asked is the most that it can be. Raises JudgeError as KeptAnswers does.
    """
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise _refusal(path, RunError("is a link or no file"))
    if not path.exists():
        return {}
    try:
        place = f"{path.resolve().as_uri()}?mode=ro"
        with contextlib.closing(sqlite3.connect(place, timeout=_WAIT_SECONDS, uri=True)) as connection:
            connection.execute("PRAGMA trusted_schema = OFF")
            return {} if _is_new(connection, path) else _selected(connection, keys)
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_READONLY_ROLLBACK:
            return {}
        raise _refusal(path, error) from None


def _is_new(connection: sqlite3.Connection, path: Path) -> bool:
    """Return whether a file holds nothing yet; raises JudgeError where it holds something else than kept answers."""
    [application] = connection.execute("PRAGMA application_id").fetchone()
    held = [sql for (sql,) in connection.execute("SELECT sql FROM sqlite_master")]
    if not application and not held:
        return True
    if application != _APPLICATION or held != [_TABLE]:
        raise JudgeError(f"{path}: is no file of kept judgements; name another file with --kept")
    return False


def _selected(connection: sqlite3.Connection, keys: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for start in range(0, len(keys), _AT_ONCE):
        some = keys[start : start + _AT_ONCE]
        marks = ",".join("?" * len(some))
        found |= dict(connection.execute(f"SELECT key, answer FROM answers WHERE key IN ({marks})", some))  # noqa: S608 - only marks
    return found


def _refusal(path: Path, error: Exception) -> JudgeError:
    return JudgeError(
        f"{path}: kept judgements cannot be read or written ({one_line(error)}); make room, or name another file with "
        "--kept"
    )
