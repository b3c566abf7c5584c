"""Jobs: their states, who may move them from one to another, and what is said of them.

Owns every change of a state, which happens only where the job is in one that it may leave, and events, each of which is
told once, whatever is begun anew. Knows no process: who carries out a job is the supervisor's matter.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tiebreak.service.refusals import Refusal, not_found
from tiebreak.service.store import Store, new_id, now

VALIDATING, QUEUED, RUNNING, PAUSED = "validating_files", "queued", "running", "paused"
SUCCEEDED, FAILED, CANCELLED = "succeeded", "failed", "cancelled"
ENDED = (SUCCEEDED, FAILED, CANCELLED)
OPEN = (VALIDATING, QUEUED, RUNNING, PAUSED)

PAUSE = "pause"
"""What a client wants of a job that runs; the job is paused once its worker has saved what it had."""

Level = Literal["info", "warn", "error"]
RETRY_SECONDS = 600
"""How long a repeated `create` is taken for the same one whose answer was lost."""


@dataclass(frozen=True)
class Job:
    """A job as it stood when it was read."""

    id: str
    key: str
    body: Mapping[str, Any]
    """The request as it was accepted."""
    resolved: Mapping[str, Any]
    """What the settings became that were left out or `auto`, and `method` as it is shown."""
    state: str
    wanted: str
    worker: Mapping[str, Any] | None
    """What the launcher needs to find its worker again; None where there is none."""
    attempts: int
    next_at: float
    created: int
    started: int | None
    finished: int | None
    estimated: int | None
    error: Mapping[str, Any] | None
    model: str | None
    tokens: int | None
    results: tuple[str, ...]
    read_to: Mapping[str, Any]
    """How far the worker's files were read into events."""

    @staticmethod
    def of(row: sqlite3.Row) -> Job:
        """Return the job of a row."""
        told = {name: row[name] for name in Job.__dataclass_fields__}
        for name in ("body", "resolved", "read_to"):
            told[name] = json.loads(told[name])
        for name in ("worker", "error"):
            told[name] = None if told[name] is None else json.loads(told[name])
        return Job(**told | {"results": tuple(json.loads(row["results"]))})


def find(store: Store, job: str, key: str | None = None) -> Job:
    """Return a job, by its id; raises Refusal where it is not there, or is none of that key's."""
    row = store.row("select * from jobs where id = ?", job)
    if row is None or (key is not None and (row["key"] != key or row["deleted"] is not None)):
        raise not_found("fine-tuning job", job)
    return Job.of(row)


def in_states(store: Store, states: Collection[str]) -> list[Job]:
    """Return the jobs that are in one of these states, oldest first."""
    marks = ", ".join("?" for _ in states)
    sql = f"select * from jobs where state in ({marks}) order by seq"  # noqa: S608 - marks alone
    return [Job.of(row) for row in store.rows(sql, *states)]


def last_begun(store: Store) -> dict[str, float]:
    """Return when a job of each key last began to run."""
    sql = "select key, max(started) as at from jobs where started is not null group by key"
    return {row["key"]: row["at"] for row in store.rows(sql)}


def same(store: Store, key: str, asked: str) -> Job | None:
    """Return the job that the same request made a while ago, whose answer was lost; None where there is none."""
    since = now() - RETRY_SECONDS
    row = store.row(
        "select * from jobs where key = ? and asked = ? and created >= ? and deleted is null order by seq desc",
        key,
        asked,
        since,
    )
    return None if row is None else Job.of(row)


def create(store: Store, key: str, body: Mapping[str, Any], resolved: Mapping[str, Any], asked: str = "") -> Job:
    """Return a new job that waits for its files to be examined; `asked` is a digest of the request."""
    name = new_id("ftjob-")
    row = {"id": name, "key": key, "body": json.dumps(body), "resolved": json.dumps(resolved), "asked": asked}
    with store.writing():
        store.insert("jobs", row | {"state": VALIDATING, "created": now()})
        note(store, name, f"Created fine-tuning job: {name}", once="created")
        note(store, name, f"Validating training file: {body['training_file']}", once="validating")
    return find(store, name)


def forget(store: Store, job: Job) -> None:
    """Take a job out of all lists; raises Refusal where it has not ended."""
    marks = ", ".join("?" for _ in ENDED)
    sql = f"update jobs set deleted = ? where id = ? and state in ({marks})"  # noqa: S608 - marks alone
    if not store.change(sql, now(), job.id, *ENDED):
        raise _cannot("deleted", find(store, job.id))


def move(store: Store, job: str, expected: Collection[str], to: str, **changes: Any) -> bool:
    """Move a job to another state where it is in one that is expected, with other columns; say whether it was.

    Values that are no numbers or texts are written as JSON; a job that ends is finished now, and wants nothing.
    """
    told: dict[str, Any] = {"state": to, **changes}
    if to in ENDED:
        told |= {"finished": now(), "wanted": "", "estimated": None}
    return _update(store, job, expected, told)


def amend(store: Store, job: str, expected: Collection[str], **changes: Any) -> bool:
    """Change other columns of a job than its state, where it is in one that is expected; say whether it was."""
    return _update(store, job, expected, changes)


def _update(store: Store, job: str, expected: Collection[str], told: Mapping[str, Any]) -> bool:
    values = [json.dumps(value) if isinstance(value, dict | list | tuple) else value for value in told.values()]
    names = ", ".join(f"{name} = ?" for name in told)
    marks = ", ".join("?" for _ in expected)
    sql = f"update jobs set {names} where id = ? and state in ({marks})"  # noqa: S608 - names of ours
    return store.change(sql, *values, job, *expected) == 1


def note(
    store: Store,
    job: str,
    message: str,
    *,
    level: Level = "info",
    once: str | None = None,
    data: Mapping[str, Any] | None = None,
) -> bool:
    """Add an event, one with numbers where there are data; one that is told `once` is not told again. Say if it is new.

    What may happen anew, as after a crash, is told under a name of its own, like step-12.
    """
    event = {
        "id": new_id("ft-event-"),
        "job": job,
        "once": once,
        "at": now(),
        "level": level,
        "type": "message" if data is None else "metrics",
        "message": message,
        "data": None if data is None else json.dumps(data),
    }
    return store.insert("events", event, otherwise="or ignore")


def cancel(store: Store, job: Job) -> Job:
    """End a job that has not ended; the supervisor ends its worker. Raises Refusal where it has ended otherwise."""
    with store.writing():
        if move(store, job.id, OPEN, CANCELLED):
            note(store, job.id, "The job has been cancelled.", once="cancelled")
        elif (stands := find(store, job.id)).state != CANCELLED:
            raise _cannot("cancelled", stands)
    return find(store, job.id)


def pause(store: Store, job: Job) -> Job:
    """Pause a job that waits, or want it of one that runs; raises Refusal where it has ended."""
    with store.writing():
        if move(store, job.id, (QUEUED,), PAUSED, wanted=""):
            note(store, job.id, "The job has been paused.")
        elif amend(store, job.id, (VALIDATING, RUNNING), wanted=PAUSE):
            if job.wanted != PAUSE:
                after = "this step" if job.state == RUNNING else "its files are examined"
                note(store, job.id, f"Pausing after {after}.")
        elif (stands := find(store, job.id)).state != PAUSED:
            raise _cannot("paused", stands)
    return find(store, job.id)


def resume(store: Store, job: Job, *, again: bool) -> Job:
    """Let a paused job wait for its turn again, or one that has not paused yet go on.

    Raises Refusal where it neither is nor was to be paused, unless the client says that it asks `again`.
    """
    with store.writing():
        stands = find(store, job.id)
        if move(store, job.id, (PAUSED,), QUEUED, wanted="", attempts=0, next_at=0) or (
            stands.wanted == PAUSE and amend(store, job.id, (VALIDATING, RUNNING), wanted="")
        ):
            note(store, job.id, "The job has been resumed.")
        elif not (again and stands.state in (VALIDATING, QUEUED, RUNNING)):
            raise _cannot("resumed", stands)
    return find(store, job.id)


def _cannot(be: str, job: Job) -> Refusal:
    """Return the answer to a transition that does not exist: 400, since 409 is what the SDK sends again."""
    return Refusal(
        400, f"The fine-tuning job {job.id} is {job.state} and cannot be {be}.", param="id", code="invalid_state"
    )
