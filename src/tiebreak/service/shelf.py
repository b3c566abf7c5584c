"""Files that the service keeps: what clients uploaded, and results.

Owns where the bytes are, how long, and who may see them. How they come in is known to `uploads` and `parts`.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import sqlite3
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Literal, Protocol

from tiebreak.files import sync
from tiebreak.service.refusals import Refusal, full_disk_borne, making_room, not_found
from tiebreak.service.store import Store, behind, new_id, now, page

UPLOADED, RESULTS = "fine-tune", "fine-tune-results"
"""Purposes: of what clients send for training, and of what jobs make."""

MOST = 10_000
"""Most files in one answer."""

PART = ".part-"
"""Begins the names of files that are not whole yet."""

CHUNK = 1 << 20
_THERE = "deleted is null and (expires is null or expires > ?)"
_JOINERS = "\u200c\u200d"
"""Which scripts and emoji need, and which hide nothing."""


class Digest(Protocol):
    """What takes bytes in, as those of hashlib."""

    def update(self, data: bytes, /) -> None:
        """Take more of them in."""


@dataclass(frozen=True)
class File:
    """A file that is kept, as it stood when it was read."""

    id: str
    key: str
    purpose: str
    filename: str
    """What its owner calls it; shown, and never a place."""
    bytes: int
    sha256: str
    status: str
    detail: str | None
    created: int
    expires: int | None

    @staticmethod
    def of(row: sqlite3.Row) -> File:
        """Return the file of a row."""
        return File(**{name: row[name] for name in File.__dataclass_fields__})


def find(store: Store, file: str, key: str | None = None) -> File:
    """Return a file, by its id; raises Refusal where it is not there, is deleted or expired, or none of that key's."""
    row = store.row(f"select * from files where id = ? and {_THERE}", file, now())  # noqa: S608 - a condition of ours
    if row is None or (key is not None and row["key"] != key) or not store.file_path(file).exists():
        raise not_found("file", file)
    return File.of(row)


def path_of(store: Store, file: File) -> Path:
    """Return where the bytes of a file are."""
    return store.file_path(file.id)


def listed(
    store: Store,
    key: str,
    *,
    purpose: str | None = None,
    limit: int = MOST,
    order: Literal["asc", "desc"] = "desc",
    after: str | None = None,
) -> tuple[Sequence[File], bool]:
    """Return files of a key, newest first unless `asc`, behind the one that is named `after`, and whether more follow.

    A file that was deleted meanwhile still tells where to go on. Raises Refusal where the key has no such file.
    """
    seq = behind(store, "files", "key = ?", [key], after)
    where, values = f"key = ? and {_THERE}", [key, now()]
    if purpose is not None:
        where, values = f"{where} and purpose = ?", [*values, purpose]
    found = page(store, "files", where, values, limit=limit, after=seq, oldest_first=order == "asc")
    return [File.of(row) for row in found.rows if store.file_path(row["id"]).exists()], found.has_more


def keep(store: Store, key: str, purpose: str, filename: str, source: Path, *, expires: int | None = None) -> File:
    """Keep a copy of a file of ours, as a result: what becomes of `source` later changes nothing."""
    part, digest = new_part(store), hashlib.sha256()
    try:
        with part.open("r+b", buffering=0) as file:
            size = append(file, source, digest)
            os.fsync(file.fileno())
        return place(store, key, purpose, filename, part, size, digest.hexdigest(), expires=expires)
    finally:
        part.unlink(missing_ok=True)


def append(file: BinaryIO, source: Path, *digests: Digest) -> int:
    """Write the bytes of another file behind those of one that is open without a buffer, and return how many."""
    size = 0
    with source.open("rb") as read:
        while chunk := read.read(CHUNK):
            size += len(chunk)
            write(file, chunk, *digests)
    return size


def write(file: BinaryIO, data: bytes, *digests: Digest) -> None:
    """Write bytes to a file that is open without a buffer, all of them, and take them into digests."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]
    for digest in digests:
        digest.update(data)


def new_part(store: Store) -> Path:
    """Return a hidden, private, empty file among the others, for bytes that are not whole yet."""
    part = store.files_folder / f"{PART}{secrets.token_hex(16)}"
    os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    return part


def place(
    store: Store,
    key: str,
    purpose: str,
    filename: str,
    part: Path,
    size: int,
    sha256: str,
    *,
    expires: int | None = None,
    within: Callable[[File], None] = lambda _: None,
) -> File:
    """Make a file of bytes that are whole and on disk, by renaming `part`; `within` is called in the transaction of its
    row, and may refuse it.

    Of a server that dies in between remain bytes without a row, which nobody sees and retention removes.
    """
    file = File(new_id("file-"), key, purpose, filename, size, sha256, "processed", None, now(), expires)
    target = path_of(store, file)
    try:
        with store.writing():
            store.insert("files", asdict(file))
            within(file)
            part.rename(target)
            sync(target.parent)
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    return file


def delete(store: Store, file: File) -> None:
    """Delete a file: its bytes go, and its row stays as deleted. Jobs that use it have names of their own for them.

    On a full disk the bytes go first, and make room for the row. Where they make none, since a job has them, too, the
    file is gone all the same: it is one with its bytes, and its row follows with the next look of retention.
    """
    sql = "update files set deleted = ? where id = ? and deleted is null"
    remove = partial(path_of(store, file).unlink, missing_ok=True)
    with full_disk_borne():
        making_room(lambda: store.change(sql, now(), file.id), remove)
    remove()


def shown(file: File) -> dict[str, Any]:
    """Return a file as clients read it."""
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.bytes,
        "created_at": file.created,
        "filename": file.filename,
        "purpose": file.purpose,
        "status": file.status,
        "expires_at": file.expires,
        "status_details": file.detail,
    }


def require_name(name: str, param: str) -> None:
    """Raise Refusal for a file's name that could not be shown, or would lead elsewhere where a client saves it."""
    reason = None
    if not 1 <= len(name) <= 255:
        reason = f"has {len(name)} characters; wanted 1 to 255"
    elif "/" in name or "\\" in name or name in (".", ".."):
        reason = "is a path; wanted a name alone"
    elif any(unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp") and char not in _JOINERS for char in name):
        reason = "holds characters that cannot be seen; wanted a name that can be read"
    if reason is not None:
        raise Refusal(400, f"{param}: the file's name {name[:60]!a} {reason}.", param=param)
