"""Why a request is not answered: one line with a status, as clients of OpenAI's API read it.

Owns the form of an error, and which statuses a client should not try again. What is refused is known to those who do.
"""

from __future__ import annotations

import contextlib
import errno
import sqlite3
from collections.abc import Callable, Iterator
from typing import Any, Final, final

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FULL_TABLES = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE)


@final
class Refusal(Exception):  # noqa: N818 - an answer, not a fault of the server
    """A request that is answered with an error; `str(refusal)` is one line for whoever sent it."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        kind: str = "invalid_request_error",
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status: Final = status
        self.param: Final = param
        self.code: Final = code
        self.kind: Final = kind
        self.retry_after: Final = retry_after
        """Seconds after which the same request may go well; None where no second try helps."""

    @property
    def body(self) -> dict[str, Any]:
        """The error for JSON; each of its keys is there, also where it is null."""
        return {"error": {"message": str(self), "type": self.kind, "param": self.param, "code": self.code}}

    @property
    def headers(self) -> dict[str, str]:
        """What the SDK reads before it tries 408, 409, 429 and 5xx again by itself, twice."""
        if self.retry_after is not None:
            return {"retry-after": str(self.retry_after)}
        return {"x-should-retry": "false"} if self.status in (408, 409, 429) or self.status >= 500 else {}


def not_found(what: str, named: str) -> Refusal:
    """Return the answer for an object that is not there, or is another's: whoever asks cannot tell."""
    return Refusal(404, f"No {what} with the id {named[:80]!r} was found.", param="id", code="not_found")


def full_disk(error: BaseException | None) -> Refusal | None:
    """Return the answer where an error means that there is no room on a disk; None where it means something else."""
    if isinstance(error, OSError):
        is_full = error.errno in _FULL
    else:
        is_full = isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", None) in _FULL_TABLES
    said = "The disk of the service is full, and nothing was kept; whoever runs it can make room."
    return Refusal(507, said, code="disk_full", kind="server_error") if is_full else None


def unusable_database(error: BaseException) -> Refusal | None:
    """Return the answer where an error says that the database is held by another, or damaged; None for other errors."""
    code = getattr(error, "sqlite_errorcode", None) if isinstance(error, sqlite3.Error) else None
    if code is None:
        return None
    if code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        said = "The database of the service is held by another process, and nothing was changed; try again."
        return Refusal(503, said, code="database_busy", kind="server_error", retry_after=5)
    if code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        said = "The database of the service is damaged; whoever runs it can bring it back from a copy."
        return Refusal(500, said, code="database_damaged", kind="server_error")
    return None


@contextlib.contextmanager
def full_disk_borne() -> Iterator[None]:
    """Let a block end where a disk is full: what is left of it is done later, or otherwise."""
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        if full_disk(error) is None:
            raise


def making_room(change: Callable[[], object], give_up: Callable[[], object]) -> None:
    """Make a change of rows; on a full disk bytes are given up for it, which are to go with it anyway."""
    try:
        change()
    except (OSError, sqlite3.Error) as error:
        if full_disk(error) is None:
            raise
        give_up()
        change()
