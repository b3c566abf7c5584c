"""Keys of the service: who asks, and how much they may ask for.

Owns the form of a key, of which a digest alone is kept, and the quotas. A key is shown once, when it is made.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import secrets
import sqlite3
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import ValidationError

from tiebreak.config.service import QuotasConfig, ServeConfig
from tiebreak.errors import ConfigError, RunError, one_line
from tiebreak.service.jobs import OPEN, QUEUED, VALIDATING
from tiebreak.service.refusals import Refusal
from tiebreak.service.store import Store, new_id, now

_BEGINS = "tbk-"
DAY, MINUTE = 86_400, 60
GB = 1 << 30
BLOCK = 4096
"""What the smallest file costs, also one that is empty."""
MOST_UPLOADS = 100
"""Of a key, that have not ended."""
QUEUE_SECONDS = 30
"""When to ask again where the queue is full."""


@dataclass(frozen=True)
class Key:
    """Who asks."""

    id: str
    name: str
    quotas: QuotasConfig
    """What it was given of its own; what was not set is as the operator says for all (`quotas_of`)."""
    created: int = 0
    revoked: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON; without its secret, which nobody has."""
        own = self.quotas.model_dump(exclude_unset=True)
        return {"id": self.id, "name": self.name, "created": self.created, "revoked": self.revoked, "quotas": own}


def add(store: Store, name: str, quotas: Mapping[str, Any] | None = None) -> tuple[Key, str]:
    """Return a new key and its secret, which nobody can read again; `quotas` are those that are not as for all.

    Raises ConfigError for a name or a quota that is none, RunError where a key in use has the name.
    """
    if not 1 <= len(name) <= 64 or not name.isprintable() or name != name.strip():
        raise ConfigError(f"{one_line(ascii(name), 80)}: wanted a name of 1 to 64 characters that can be read")
    try:
        own = QuotasConfig.model_validate(quotas or {})
    except ValidationError as error:
        fault = error.errors()[0]
        raise ConfigError(f"quotas.{'.'.join(map(str, fault['loc']))}: {one_line(fault['msg'])}") from None
    token = _BEGINS + secrets.token_urlsafe(32)
    key = Key(new_id("key-"), name, own, created=now())
    told = {"id": key.id, "name": name, "sha256": _digest(token), "created": key.created}
    try:
        store.insert("keys", told | {"quotas": own.model_dump_json(exclude_unset=True)})
    except sqlite3.IntegrityError:
        raise RunError(f"a key with the name {name!r} is in use; revoke it, or choose another name") from None
    return key, token


def listed(store: Store) -> list[Key]:
    """Return all keys, oldest first, those that are revoked among them."""
    return [_key(row) for row in store.rows("select * from keys order by created, id")]


def revoke(store: Store, name: str) -> Key:
    """Revoke the key in use that has a name: the next request with it is refused. Raises RunError where none has it."""
    with store.writing():
        row = store.row("select * from keys where name = ? and revoked is null", name)
        if row is None:
            raise RunError(f"no key in use has the name {one_line(ascii(name), 80)}; 'keys list' shows them")
        at = now()
        store.change("update keys set revoked = ? where id = ?", at, row["id"])
    return replace(_key(row), revoked=at)


def rotate(store: Store, name: str) -> tuple[Key, str]:
    """Give the key in use that has a name another secret, and return both: its files, jobs and models stay its own."""
    token = _BEGINS + secrets.token_urlsafe(32)
    if not store.change("update keys set sha256 = ? where name = ? and revoked is null", _digest(token), name):
        raise RunError(f"no key in use has the name {one_line(ascii(name), 80)}; 'keys list' shows them")
    [row] = store.rows("select * from keys where name = ? and revoked is null", name)
    return _key(row), token


def holder(store: Store, token: str) -> Key | None:
    """Return the key in use whose secret this is; None where there is none."""
    digest = _digest(token)
    row = store.row("select * from keys where sha256 = ? and revoked is null", digest)
    if row is None or not hmac.compare_digest(row["sha256"], digest):
        return None
    return _key(row)


def _digest(token: str) -> str:
    """Return what is kept of a secret: 256 random bits need no slow digest."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def _key(row: sqlite3.Row) -> Key:
    own = QuotasConfig.model_validate(json.loads(row["quotas"]))
    return Key(row["id"], row["name"], own, row["created"], row["revoked"])


def quotas_of(key: Key, settings: ServeConfig) -> QuotasConfig:
    """Return how much a key may ask for: its own quotas, and those of all where it has none."""
    return settings.quotas.model_copy(update=key.quotas.model_dump(exclude_unset=True))


def require_job(store: Store, key: Key, settings: ServeConfig) -> None:
    """Raise Refusal where a key may not create another job now; ask in the transaction that creates it."""
    quotas = quotas_of(key, settings)
    waiting = _count(store, "state in (?, ?)", VALIDATING, QUEUED)
    if waiting >= settings.limits.queue:
        raise Refusal(
            429,
            f"{waiting} jobs wait, and this service takes no more; try again later.",
            code="rate_limit_exceeded",
            kind="requests",
            retry_after=QUEUE_SECONDS,
        )
    marks = ", ".join("?" for _ in OPEN)
    going = _count(store, f"key = ? and state in ({marks})", key.id, *OPEN)
    if going >= quotas.jobs_at_once:
        raise Refusal(
            429,
            f"{going} jobs of this key have not ended, and it may have {quotas.jobs_at_once} at once; wait for one, or "
            "cancel one.",
            code="rate_limit_exceeded",
            kind="requests",
        )
    today = _count(store, "key = ? and created > ?", key.id, now() - DAY)
    if today >= quotas.jobs_a_day:
        raise _used_up(f"This key created {today} jobs in 24 hours, and may create {quotas.jobs_a_day}.")


def _count(store: Store, where: str, *values: Any) -> int:
    row = store.row(f"select count(*) from jobs where {where}", *values)  # noqa: S608 - conditions of ours
    return 0 if row is None else int(row[0])


def _used_up(message: str) -> Refusal:
    return Refusal(429, message, code="insufficient_quota", kind="insufficient_quota")


def held_bytes(store: Store, key: Key) -> int:
    """Return how many bytes of a key are kept: files that are there, and parts of uploads that are not files yet."""
    row = store.row(
        "select (select coalesce(sum(max(bytes, ?)), 0) from files where key = ? and deleted is null"
        " and (expires is null or expires > ?)) + (select coalesce(sum(max(parts.bytes, ?)), 0) from parts join uploads"
        " on uploads.id = parts.upload where uploads.key = ? and uploads.status = 'pending' and uploads.expires > ?)",
        BLOCK,
        key.id,
        now(),
        BLOCK,
        key.id,
        now(),
    )
    return 0 if row is None else int(row[0])


def require_upload(store: Store, key: Key) -> None:
    """Raise Refusal where a key may not begin another upload now; ask in the transaction that begins it."""
    row = store.row("select count(*) from uploads where key = ? and status = 'pending' and expires > ?", key.id, now())
    if row is not None and row[0] >= MOST_UPLOADS:
        raise Refusal(
            429,
            f"{row[0]} uploads of this key are neither complete nor cancelled, and it may have no more; end one.",
            code="rate_limit_exceeded",
            kind="requests",
        )


def require_bytes(store: Store, key: Key, settings: ServeConfig, more: int) -> None:
    """Raise Refusal where a key may not keep so many bytes more; ask in the transaction that keeps them."""
    if held_bytes(store, key) + more > _most_bytes(key, settings):
        raise _full(key, settings)


def _most_bytes(key: Key, settings: ServeConfig) -> int:
    return int(quotas_of(key, settings).gb * GB)


def _full(key: Key, settings: ServeConfig) -> Refusal:
    gigabytes = quotas_of(key, settings).gb
    return _used_up(f"This key may keep {gigabytes:g} GB of files, and these were more; delete some first.")


@dataclass
class Taken:
    """Tokens that a chat was given, and when."""

    at: float
    tokens: int


@dataclass
class Meters:
    """What keys use at the moment, which a server that starts again need not know: one for each server."""

    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _tokens: defaultdict[str, deque[Taken]] = field(default_factory=lambda: defaultdict(deque), repr=False)
    _coming: Counter[str] = field(default_factory=Counter, repr=False)

    def take_tokens(self, key: Key, settings: ServeConfig, most: int) -> Taken:
        """Book the most tokens that a chat may read and write; raises Refusal where the key's minute has no room."""
        quota = quotas_of(key, settings).tokens_a_minute
        if most > quota:
            raise _used_up(f"This chat may take {most} tokens, and this key has {quota} a minute; ask for fewer.")
        with self._lock:
            taken, at = self._tokens[key.id], time.monotonic()
            while taken and taken[0].at <= at - MINUTE:
                taken.popleft()
            over = sum(one.tokens for one in taken) + most - quota
            if over > 0:
                raise _too_many(taken, over, at, quota)
            taken.append(one := Taken(at, most))
        return one

    def settle_tokens(self, taken: Taken, used: int) -> None:
        """Say how many of the tokens that were booked a chat used."""
        with self._lock:
            taken.tokens = used

    @contextlib.contextmanager
    def coming(self, key: Key, settings: ServeConfig, held: int) -> Iterator[Callable[[int], None]]:
        """Yield what books bytes of an upload as they come in; they are no longer booked when the block ends.

        Booking raises Refusal where these, those that others bring at the moment, and those `held` when it began are
        more than the key may keep. What is kept in the end is counted again, by `require_bytes`.
        """
        mine = 0

        def book(more: int) -> None:
            nonlocal mine
            with self._lock:
                if held + self._coming[key.id] + more > _most_bytes(key, settings):
                    raise _full(key, settings)
                self._coming[key.id] += more
                mine += more

        try:
            yield book
        finally:
            with self._lock:
                self._coming[key.id] -= mine


def _too_many(taken: deque[Taken], over: int, at: float, quota: int) -> Refusal:
    """Return the answer to a chat for which there is no room, and when there will be."""
    wait = float(MINUTE)
    for one in taken:
        over -= one.tokens
        if over <= 0:
            wait = one.at + MINUTE - at
            break
    return Refusal(
        429,
        f"This key has {quota} tokens a minute for chats, and used them; try again later.",
        code="rate_limit_exceeded",
        kind="tokens",
        retry_after=max(1, int(wait) + 1),
    )
