"""Webhooks: the operator's addresses are told how jobs ended, signed as Standard Webhooks are.

Owns who was told what, and when to try again. A job and an address have one message, under one webhook-id; an address
that answers late, or a server that dies before it has noted the answer, may get it again.
"""

from __future__ import annotations

import base64
import contextlib
import json
import math
import sqlite3
import stat
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx2
from standardwebhooks import Webhook

from tiebreak.config.service import ServeConfig, WebhookConfig
from tiebreak.errors import ConfigError, one_line
from tiebreak.service.jobs import ENDED
from tiebreak.service.store import Store, new_id, now

PAUSES = (5, 30, 120, 600, 3600)
"""Seconds after each try that went wrong; after the last one nobody is told any more."""

SECONDS = 10.0
"""How long an address has to answer."""

START, SHORTEST = "whsec_", 24


def secret_of(hook: WebhookConfig) -> str:
    """Return the secret of an address; raises ConfigError where its file is none, or where others could read it."""
    path = Path(hook.secret_file)
    try:
        mode, text = path.stat().st_mode, path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"webhooks: {path}: cannot be read ({one_line(str(error), 80)})") from None
    if mode & (stat.S_IROTH | stat.S_IWOTH):
        raise ConfigError(f"webhooks: {path}: anybody on this machine may read or change it; chmod 600 it")
    try:
        secret = base64.b64decode(text.removeprefix(START) + "==", validate=False)
    except ValueError:
        secret = b""
    if not text.startswith(START) or len(secret) < SHORTEST:
        raise ConfigError(
            f"webhooks: {path}: holds no secret; wanted {START} and base64 of {SHORTEST} bytes or more "
            f"(echo {START}$(openssl rand -base64 32))"
        )
    return text


def require_secrets(settings: ServeConfig) -> None:
    """Raise ConfigError where the secret of an address is not there."""
    for hook in settings.webhooks:
        secret_of(hook)


def announce(store: Store, settings: ServeConfig) -> int:
    """Note who is to be told of jobs that have ended since, and return of how many; each is noted once."""
    marks = ", ".join("?" for _ in ENDED)
    sql = f"select id, state, finished from jobs where announced is null and state in ({marks})"  # noqa: S608 - marks
    ended = store.rows(sql, *ENDED)
    for job in ended:
        with store.writing():
            if store.change("update jobs set announced = ? where id = ? and announced is null", now(), job["id"]):
                for url in dict.fromkeys(hook.url for hook in settings.webhooks):
                    _note(store, job, url)
    return len(ended)


def _note(store: Store, job: sqlite3.Row, url: str) -> None:
    name = new_id("evt_")
    told = {
        "id": name,
        "object": "event",
        "created_at": job["finished"],
        "type": f"fine_tuning.job.{job['state']}",
        "data": {"id": job["id"]},
    }
    store.insert("hooks", {"id": name, "job": job["id"], "url": url, "body": json.dumps(told), "next_at": time.time()})


def deliver(store: Store, hook: WebhookConfig, goes_on: Callable[[], bool] = lambda: True) -> None:
    """Tell one address what is due; what it does not take is tried again later, five times."""
    due = store.rows(
        "select * from hooks where url = ? and done is null and next_at <= ? order by next_at", hook.url, time.time()
    )
    for row in due:
        if not goes_on():
            return
        said, is_taken = _send(hook, row)
        tries = row["tries"] + 1
        ends = is_taken or tries > len(PAUSES)
        store.change(
            "update hooks set tries = ?, said = ?, done = ?, next_at = ? where id = ?",
            tries,
            said,
            now() if ends else None,
            time.time() + (0 if ends else PAUSES[tries - 1]),
            row["id"],
        )


def _send(hook: WebhookConfig, row: sqlite3.Row) -> tuple[str, bool]:
    """Send a message; return what was answered, and whether it was taken. Redirects are not followed, answers unread.

    Proxies are as the environment says, but not on the way to this machine itself.
    """
    try:
        at = datetime.now(UTC)
        headers = {
            "content-type": "application/json",
            "user-agent": "tiebreak",
            "webhook-id": row["id"],
            "webhook-timestamp": str(math.floor(at.timestamp())),
            "webhook-signature": Webhook(secret_of(hook)).sign(row["id"], at, row["body"]),
        }
        with (
            httpx2.Client(timeout=SECONDS, follow_redirects=False, trust_env=hook.url.startswith("https://")) as client,
            client.stream("POST", hook.url, content=row["body"].encode(), headers=headers) as answer,
        ):
            return str(answer.status_code), answer.is_success
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ConfigError) as error:
        return one_line(f"{type(error).__name__}: {error}", 200), False


@contextlib.contextmanager
def telling(store: Store, settings: ServeConfig, every: float = 1.0) -> Iterator[None]:
    """Tell the addresses of jobs that end, for as long as the block runs; each has a thread, so that none waits for
    another. Raises ConfigError where a secret is not there.
    """
    require_secrets(settings)
    ends = threading.Event()
    urls = {hook.url: hook for hook in settings.webhooks}
    for row in store.rows("select distinct url from hooks where done is null"):
        if row["url"] not in urls:
            sql = "update hooks set done = ?, said = 'no longer configured' where url = ? and done is null"
            store.change(sql, now(), row["url"])

    def again(work: Callable[[], object]) -> None:
        while not ends.wait(every):
            with contextlib.suppress(sqlite3.OperationalError):  # a disk that is full, for as long as it is
                work()

    def of(hook: WebhookConfig) -> Callable[[], None]:
        return lambda: deliver(store, hook, lambda: not ends.is_set())

    works: list[Callable[[], object]] = [lambda: announce(store, settings), *map(of, urls.values())]
    threads = [threading.Thread(target=again, args=(work,), daemon=True, name="hooks") for work in works]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ends.set()
        for thread in threads:
            thread.join(SECONDS)
