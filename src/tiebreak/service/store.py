"""What the service knows, in one SQLite file, and where its folders are.

Owns the tables, transactions and ids. What rows mean, and which state follows which, is known to the modules that ask.
"""

from __future__ import annotations

import contextlib
import secrets
import sqlite3
import string
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tiebreak.errors import RunError
from tiebreak.service.refusals import Refusal

SCHEMA = 1
BUSY_SECONDS = 30.0
LAST_MILLISECONDS = 2000
"""How long the end of a service waits for others who are at the database."""
_LETTERS = string.ascii_letters + string.digits

TABLES = """
create table keys (
  id text primary key, name text not null, sha256 text not null unique, created integer not null, revoked integer,
  quotas text not null);
create unique index keys_name on keys (name) where revoked is null;
create table files (
  seq integer primary key autoincrement, id text not null unique, key text not null, purpose text not null,
  filename text not null, bytes integer not null, sha256 text not null, status text not null, detail text,
  created integer not null, expires integer, deleted integer);
create table uploads (
  id text primary key, key text not null, purpose text not null, filename text not null, bytes integer not null,
  mime_type text not null, status text not null, created integer not null, expires integer not null,
  file_expires integer, file text);
create table parts (
  id text primary key, upload text not null, bytes integer not null, sha256 text not null, created integer not null);
create table jobs (
  seq integer primary key autoincrement, id text not null unique, key text not null, body text not null,
  asked text not null, resolved text not null, state text not null, wanted text not null default '',
  worker text, attempts integer not null default 0, next_at real not null default 0, created integer not null,
  started integer, finished integer, estimated integer, error text, model text, tokens integer, results text not null
  default '[]', read_to text not null default '{}', swept integer,
  deleted integer, announced integer);
create index jobs_state on jobs (state, wanted);
create index jobs_unannounced on jobs (state) where announced is null;
create table events (
  seq integer primary key autoincrement, id text not null unique, job text not null, once text, at integer not null,
  level text not null, type text not null, message text not null, data text, unique (job, once));
create table checkpoints (
  seq integer primary key autoincrement, id text not null unique, job text not null, step integer not null,
  metrics text not null, at integer not null, unique (job, step));
create table models (
  seq integer primary key autoincrement, name text not null unique, job text not null, key text not null,
  folder text not null, created integer not null, deleted integer);
create table place (folder text not null);
create table hooks (
  id text primary key, job text not null, url text not null, body text not null, tries integer not null default 0,
  next_at real not null, done integer, said text, unique (job, url));
create index hooks_due on hooks (url, next_at) where done is null;
"""


def now() -> int:
    """Return the time in whole seconds, as every answer gives it."""
    return int(time.time())


def new_id(start: str, length: int = 24) -> str:
    """Return an id that nobody can guess, like file-… or ftjob-…"""
    return start + "".join(secrets.choice(_LETTERS) for _ in range(length))


@dataclass
class Store:
    """The database and the folders of one service; each thread has a connection of its own."""

    folder: Path
    _own: threading.local = field(default_factory=threading.local, repr=False)
    _committing: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _is_closed: bool = field(default=False, init=False, repr=False)

    @property
    def files_folder(self) -> Path:
        """Files that were uploaded and results, each under its id."""
        return self.folder / "files"

    @property
    def jobs_folder(self) -> Path:
        """A folder for each job, by its id."""
        return self.folder / "jobs"

    def job_folder(self, job: str) -> Path:
        """The folder of one job: config.yaml, its data, run/, artefact/, worker.log."""
        return self.jobs_folder / job

    def file_path(self, file: str) -> Path:
        """Where the bytes of a file are."""
        return self.files_folder / file

    @property
    def connection(self) -> sqlite3.Connection:
        """The connection of this thread; raises OperationalError where the store is closed."""
        self._require_open()
        found = getattr(self._own, "connection", None)
        if found is None:
            found = self._own.connection = sqlite3.connect(
                self.folder / "service.db", timeout=BUSY_SECONDS, isolation_level=None
            )
            found.row_factory = sqlite3.Row
            found.execute("pragma synchronous = full")
            found.execute("pragma foreign_keys = on")
        return found

    def close(self) -> None:
        """End all writing, and bring what was written into service.db: a copy of that file alone is whole then.

        Threads that are still at work have their connections to themselves, and none of them commits any more. Where
        one of them, or another process, holds the database for long, what it kept is in service.db-wal beside it.
        """
        with self._committing:
            self._is_closed = True
        connection: sqlite3.Connection | None = self._own.__dict__.pop("connection", None)
        if connection is not None:
            with contextlib.suppress(sqlite3.Error), contextlib.closing(connection):
                connection.execute(f"pragma busy_timeout = {LAST_MILLISECONDS}")
                connection.execute("pragma wal_checkpoint(truncate)")

    def _require_open(self) -> None:
        if self._is_closed:
            raise sqlite3.OperationalError("the service has ended")

    def rows(self, sql: str, *values: Any) -> list[sqlite3.Row]:
        """Return what a question finds."""
        return self.connection.execute(sql, values).fetchall()

    def row(self, sql: str, *values: Any) -> sqlite3.Row | None:
        """Return the first row that a question finds."""
        return self.connection.execute(sql, values).fetchone()  # type: ignore[no-any-return]

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Yield the connection inside of a transaction that is whole or did not happen; it may stand in another."""
        connection = self.connection
        if connection.in_transaction:
            yield connection
            return
        connection.execute("begin immediate")
        try:
            yield connection
            with self._committing:
                self._require_open()
                connection.commit()
        except BaseException:  # also where the disk is full for the end of it: the next one would stand in this one
            connection.rollback()
            raise

    def change(self, sql: str, *values: Any) -> int:
        """Change rows in a transaction of its own, and return how many."""
        with self.writing() as connection:
            return connection.execute(sql, values).rowcount

    def insert(self, table: str, values: dict[str, Any], *, otherwise: str = "") -> bool:
        """Add a row; `otherwise` is "or ignore" where it may be there already. Returns whether it is new."""
        names = ", ".join(values)
        marks = ", ".join("?" for _ in values)
        sql = f"insert {otherwise} into {table} ({names}) values ({marks})"  # noqa: S608 - names of ours
        return self.change(sql, *values.values()) == 1


def make_folder(folder: Path) -> None:
    """Make a folder that nobody else reads, unless it is there; raises RunError where something else is, or no room."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise RunError(
            f"{folder}: cannot be the folder of a service ({error.strerror}); choose another --dir"
        ) from None


def open_store(folder: Path) -> Store:
    """Return the store of a folder, made where there is none; raises RunError where its file is of another form."""
    store = Store(folder.absolute())
    folder = store.folder
    for one in (folder, store.files_folder, store.jobs_folder):
        make_folder(one)
    try:
        store.connection.execute("pragma journal_mode = wal")
        with store.writing() as connection:
            version = connection.execute("pragma user_version").fetchone()[0]
            if version == 0:
                for statement in TABLES.split(";"):
                    connection.execute(statement)
                connection.execute(f"pragma user_version = {SCHEMA}")
            elif version != SCHEMA:
                raise RunError(
                    f"{folder / 'service.db'}: is of form {version}, and this version reads {SCHEMA}; serve it with "
                    "the version that wrote it, or choose another --dir"
                )
    except sqlite3.DatabaseError as error:
        raise RunError(f"{folder / 'service.db'}: cannot be used ({error}); bring it back from a copy") from None
    (folder / "service.db").chmod(0o600)
    return store


def behind(store: Store, table: str, where: str, values: Sequence[Any], after: str | None) -> int | None:
    """Return the number of the row that a page begins behind; raises Refusal where the list holds none of that id."""
    if after is None:
        return None
    row = store.row(f"select seq from {table} where {where} and id = ?", *values, after)  # noqa: S608 - names of ours
    if row is None:
        raise Refusal(404, f"after: the list holds no {after[:80]!r}.", param="after", code="not_found")
    return int(row["seq"])


def settle(store: Store) -> None:
    """Note where the service is; raises RunError where it was moved and jobs that have not ended name the old place."""
    with store.writing():
        before = store.row("select folder from place")
        open_jobs = store.rows("select id from jobs where finished is null")
        if before is not None and before["folder"] != str(store.folder) and open_jobs:
            raise RunError(
                f"{store.folder}: was {before['folder']} when its {len(open_jobs)} jobs began that have not ended, and "
                "their settings name that; serve it there until they have"
            )
        store.change("delete from place")
        store.insert("place", {"folder": str(store.folder)})


@dataclass(frozen=True)
class Page:
    """Some rows of a list, newest first unless said otherwise, and whether there are more behind them."""

    rows: Sequence[sqlite3.Row]
    has_more: bool


def page(
    store: Store,
    table: str,
    where: str,
    values: Sequence[Any],
    *,
    limit: int,
    after: int | None = None,
    oldest_first: bool = False,
) -> Page:
    """Return `limit` rows of a table behind the row whose number is `after`."""
    sign, order = (">", "asc") if oldest_first else ("<", "desc")
    condition = where if after is None else f"{where} and seq {sign} ?"
    sql = f"select * from {table} where {condition} order by seq {order} limit ?"  # noqa: S608 - names of ours
    found = store.rows(sql, *values, *([] if after is None else [after]), limit + 1)
    return Page(found[:limit], len(found) > limit)
