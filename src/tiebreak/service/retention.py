"""What the service no longer needs: files that expired, uploads that did not end, folders of old jobs, leftovers.

Owns what goes, and when. What a job that has not ended needs stays, and so do models that have a name.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from tiebreak.config.service import ServeConfig
from tiebreak.service import catalog, parts, shelf
from tiebreak.service.jobs import ENDED, OPEN
from tiebreak.service.store import Store, now

DAY = 86_400
GRACE = 3600
"""Seconds after which what has no row is a leftover, and not what is being made."""

EVERY = 600.0
Kind = Literal["file", "upload", "job", "model", "leftover"]


@dataclass(frozen=True)
class Gone:
    """What went, or would go."""

    kind: Kind
    id: str
    bytes: int
    why: str

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class _Due:
    gone: Gone
    remove: Callable[[], object]


def expired(store: Store, settings: ServeConfig, *, alone: bool = False) -> list[Gone]:
    """Return what would go now; where a server is `alone` in the folder and takes no requests yet, no part is young."""
    return [due.gone for due in _due(store, settings, alone)]


def sweep(store: Store, settings: ServeConfig, *, dry_run: bool = False, alone: bool = False) -> list[Gone]:
    """Remove what has had its time, unless it is only to be said, and return it.

    What cannot be removed is told with the reason, keeps nothing else, and is due again the next time.
    """
    found = list(_due(store, settings, alone))
    return [due.gone if dry_run else _carried_out(due) for due in found]


def _carried_out(due: _Due) -> Gone:
    try:
        due.remove()
    except (OSError, sqlite3.OperationalError) as error:
        return replace(due.gone, bytes=0, why=f"{due.gone.why}, and cannot be removed ({error})")
    return due.gone


@contextlib.contextmanager
def sweeping(store: Store, settings: ServeConfig, every: float = EVERY) -> Iterator[None]:
    """Sweep at once, and again and again for as long as the block runs."""
    ends = threading.Event()
    sweep(store, settings, alone=True)

    def again() -> None:
        while not ends.wait(every):
            with contextlib.suppress(OSError, sqlite3.OperationalError):
                sweep(store, settings)

    thread = threading.Thread(target=again, daemon=True, name="retention")
    thread.start()
    try:
        yield
    finally:
        ends.set()
        thread.join()


def _due(store: Store, settings: ServeConfig, alone: bool) -> Iterator[_Due]:
    yield from _files(store)
    yield from _uploads(store)
    yield from _jobs(store, settings.limits.retention_days)
    yield from _models(store)
    yield from _leftovers(store, 0 if alone else GRACE)


def _files(store: Store) -> Iterator[_Due]:
    """Yield files that expired, and those of which a full disk took no row when their bytes were deleted."""
    rows, at = store.rows("select * from files where deleted is null"), now()  # before a look at what is there of them
    there = {path.name for path in store.files_folder.glob("file-*")}
    for row in rows:
        is_over = row["expires"] is not None and row["expires"] <= at
        if is_over or (there and row["id"] not in there):  # a folder that is not there at the moment says nothing
            file = shelf.File.of(row)
            gone = Gone("file", file.id, _size(store.file_path(file.id)), "expired" if is_over else "was deleted")
            yield _Due(gone, lambda file=file: shelf.delete(store, file))  # type: ignore[misc]


def _uploads(store: Store) -> Iterator[_Due]:
    for row in store.rows("select * from uploads where status = ? and expires <= ?", parts.PENDING, now()):
        size = store.row("select coalesce(sum(bytes), 0) from parts where upload = ?", row["id"])
        gone = Gone("upload", row["id"], 0 if size is None else size[0], "was not completed in time")
        yield _Due(gone, lambda upload=row["id"]: parts.expire(store, upload))  # type: ignore[misc]
    before = now() - GRACE
    told = store.row("select count(*) from uploads where status != ? and expires <= ?", parts.PENDING, before)
    if told is not None and told[0]:
        yield _Due(Gone("upload", f"{told[0]} rows", 0, "ended long ago"), partial(parts.forget, store, before))


def _jobs(store: Store, days: int) -> Iterator[_Due]:
    """Yield the folders of jobs that ended long ago, but for what a model in them needs."""
    marks = ", ".join("?" for _ in ENDED)
    sql = f"select * from jobs where state in ({marks}) and finished <= ? and swept is null"  # noqa: S608 - marks
    for row in store.rows(sql, *ENDED, now() - days * DAY):
        folder = store.job_folder(row["id"])
        paths = list(_besides(folder, _needed(store, row["id"]))) if _is_ours(store, folder) else []
        gone = Gone("job", row["id"], sum(map(_size, paths)), f"ended {days} days ago or more")

        def remove(paths: list[Path] = paths, job: str = row["id"]) -> None:
            _remove(paths)
            store.change("update jobs set swept = ? where id = ?", now(), job)

        yield _Due(gone, remove)


def _needed(store: Store, job: str) -> list[Path]:
    """Return folders of a job's models that have a name, or that others began with: jobs which have not ended, and
    models that have a name, which may be adapters on top of them.
    """
    marks = ", ".join("?" for _ in OPEN)
    rows = store.rows(
        f"with recursive begun(name) as (select json_extract(body, '$.model') from jobs where state in ({marks})"  # noqa: S608 - marks alone
        " or id in (select job from models where deleted is null) union select json_extract(j.body, '$.model')"
        " from begun b join models m on m.name = b.name join jobs j on j.id = m.job)"
        " select folder from models where job = ? and (deleted is null or name in (select name from begun))",
        *OPEN,
        job,
    )
    return [catalog.artefact_at(store, job, row["folder"]) for row in rows]


def _besides(folder: Path, needed: list[Path]) -> Iterator[Path]:
    """Yield what is in a folder and neither is needed nor is inside of what is or holds it, as high as possible."""
    if folder.is_symlink() or not any(_share(folder, one) for one in needed):
        yield folder
    elif not any(folder.is_relative_to(one) for one in needed):
        for path in sorted(folder.iterdir()):
            yield from _besides(path, needed)


def _share(one: Path, other: Path) -> bool:
    return one.is_relative_to(other) or other.is_relative_to(one)


def _models(store: Store) -> Iterator[_Due]:
    """Yield the artefacts of models that were deleted and whose job has ended, where nothing needs them."""
    marks = ", ".join("?" for _ in ENDED)
    sql = "select m.name, m.job, m.folder from models m join jobs j on j.id = m.job where m.deleted is not null"
    for row in store.rows(f"{sql} and j.state in ({marks})", *ENDED):
        folder = catalog.artefact_at(store, row["job"], row["folder"])
        if _is_ours(store, folder) and not any(_share(folder, one) for one in _needed(store, row["job"])):
            gone = Gone("model", row["name"], _size(folder), "deleted")
            yield _Due(gone, lambda folder=folder: _remove([folder]))  # type: ignore[misc]


def _leftovers(store: Store, grace: int) -> Iterator[_Due]:
    """Yield what has a name of ours and no row: what a server that died was writing, and bytes of what was deleted."""
    files = {row["id"] for row in store.rows("select id from files where deleted is null union select id from parts")}
    jobs = {row["id"] for row in store.rows("select id from jobs")}
    ours = [path for start in (shelf.PART, "file-", "part_") for path in store.files_folder.glob(f"{start}*")]
    for path in (*ours, *store.jobs_folder.glob("ftjob-*")):
        with contextlib.suppress(FileNotFoundError):  # was being made, and is made or gone now
            if path.name not in files | jobs and path.lstat().st_mtime <= time.time() - grace:
                gone = Gone("leftover", path.name, _size(path), "belongs to nothing that is known")
                yield _Due(gone, lambda path=path: _remove([path]))  # type: ignore[misc]


def _is_ours(store: Store, folder: Path) -> bool:
    """Return whether a folder is inside of that of jobs, links looked through."""
    jobs = store.jobs_folder.resolve()
    return folder.is_dir() and jobs in folder.resolve().parents


def _size(path: Path) -> int:
    """Return the bytes that removing a file or folder frees: those that have no other name."""
    with contextlib.suppress(FileNotFoundError):
        if path.is_dir() and not path.is_symlink():
            names = (Path(place, name) for place, _, inner in os.walk(path) for name in inner)
            return sum(map(_size, names))
        told = path.lstat()
        return told.st_size if told.st_nlink == 1 else 0
    return 0


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
