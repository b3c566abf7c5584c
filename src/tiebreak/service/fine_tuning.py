"""The addresses of fine-tuning jobs: create, list, ask, cancel, pause, resume, events, checkpoints.

Owns which function answers which address.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import time
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from tiebreak.service import catalog, jobs, keys, shown, translate
from tiebreak.service.bodies import Reading
from tiebreak.service.contract import MOST_METADATA, JobRequest
from tiebreak.service.door import AKey, AService, Service, dialect_of, is_again, only
from tiebreak.service.jobs import Job
from tiebreak.service.keys import Key
from tiebreak.service.refusals import Refusal
from tiebreak.service.store import behind, page

PAUSE_SECONDS = 10.0
"""How long an answer to `pause` waits until it is true."""

LOOK_SECONDS = 0.2
MOST_LISTED = 100
_METADATA = re.compile(r"metadata\[.+\]", re.DOTALL)

After = Annotated[str | None, Query(max_length=200)]
Limit = Annotated[int, Query(ge=0, le=MOST_LISTED)]


def routes() -> APIRouter:
    """Return the addresses."""
    router = APIRouter(route_class=Reading, prefix="/fine_tuning/jobs", tags=["fine-tuning"])
    router.post("")(create)
    router.get("")(listed)
    router.get("/{job}")(retrieve)
    router.delete("/{job}", include_in_schema=False)(forget)  # of Azure
    router.post("/{job}/cancel")(cancel)
    router.post("/{job}/pause")(pause)
    router.post("/{job}/resume")(resume)
    router.get("/{job}/events")(events)
    router.get("/{job}/checkpoints")(checkpoints)
    return router


def create(asked: JobRequest, request: Request, service: AService, key: AKey) -> Response:
    """Make a job out of a model and files."""
    only(request)
    store, settings = service.store, service.settings
    digest = hashlib.sha256(json.dumps(asked.model_dump(exclude_none=True), sort_keys=True).encode()).hexdigest()
    again = is_again(request)
    found = jobs.same(store, key.id, digest) if again else None  # whatever became of its files and model since
    if found is None:
        body, resolved = translate.accepted(store, asked, service.models, settings, key.id)
        with store.writing():
            found = jobs.same(store, key.id, digest) if again else None
            if found is None:
                keys.require_job(store, key, settings)
                found = jobs.create(store, key.id, body, resolved, digest)
                if asked.method and asked.method.unread:
                    names = ", ".join(asked.method.unread)
                    jobs.note(store, found.id, f"method.{names} is of another method and was not read.", level="warn")
                translate.lay_out(store, found)
    service.wake()
    dialect = dialect_of(request)
    answer = JSONResponse(shown.job(found, settings.organization, dialect), dialect.created)
    if dialect.created == 201:
        version = request.query_params.get("api-version")
        asked_for = (
            f"?api-version={version}" if version and version.isascii() and version.replace("-", "").isalnum() else ""
        )
        answer.headers["location"] = f"{request.url.path.rstrip('/')}/{found.id}{asked_for}"
    return answer


def listed(request: Request, service: AService, key: AKey, after: After = None, limit: Limit = 20) -> dict[str, Any]:
    """List jobs, newest first; metadata[name]=value picks those that say so, metadata=null those without any."""
    asked = [name for name in request.query_params if name == "metadata" or _METADATA.fullmatch(name)]
    only(request, "after", "limit", *asked)
    if len(asked) > MOST_METADATA:
        raise Refusal(400, f"metadata: wanted at most {MOST_METADATA} of them.", param="metadata", code="invalid_value")
    where, values = "key = ? and deleted is null", [key.id]
    for name in asked:
        value = request.query_params[name]
        if name == "metadata":
            if value != "null":
                raise Refusal(400, "metadata: wanted metadata[name]=value, or metadata=null", param="metadata")
            where += " and coalesce(json_extract(body, '$.metadata'), '{}') = '{}'"
            continue
        where += " and exists (select 1 from json_each(body, '$.metadata') where key = ? and value = ?)"
        values += [name.removeprefix("metadata[").removesuffix("]"), value]
    start = behind(service.store, "jobs", "key = ?", [key.id], after)
    found = page(service.store, "jobs", where, values, limit=limit, after=start)
    dialect, organization = dialect_of(request), service.settings.organization
    data = [shown.job(Job.of(row), organization, dialect) for row in found.rows]
    return shown.listed(data, has_more=found.has_more)


def retrieve(job: str, request: Request, service: AService, key: AKey) -> dict[str, Any]:
    """Say where a job stands."""
    only(request)
    return shown.job(jobs.find(service.store, job, key.id), service.settings.organization, dialect_of(request))


def cancel(job: str, request: Request, service: AService, key: AKey) -> dict[str, Any]:
    """End a job."""
    return _moved(job, request, service, key, jobs.cancel)


async def pause(job: str, request: Request, service: AService, key: AKey) -> dict[str, Any]:
    """Let a job save what it has and wait; says what is true after at most ten seconds: paused, or still running."""
    await run_in_threadpool(_moved, job, request, service, key, jobs.pause)
    until = time.monotonic() + PAUSE_SECONDS
    while True:  # no thread waits: there are few, and all that is asked needs one
        found = await run_in_threadpool(jobs.find, service.store, job)
        # What is examined is heard to its end.
        if found.wanted != jobs.PAUSE or found.state != jobs.RUNNING or time.monotonic() > until:
            return shown.job(found, service.settings.organization, dialect_of(request))
        await asyncio.sleep(LOOK_SECONDS)


def resume(job: str, request: Request, service: AService, key: AKey) -> dict[str, Any]:
    """Let a paused job go on where it was."""
    again = is_again(request)
    return _moved(job, request, service, key, lambda store, found: jobs.resume(store, found, again=again))


def _moved(job: str, request: Request, service: Service, key: Key, move: Callable[[Any, Job], Job]) -> dict[str, Any]:
    only(request)
    found = move(service.store, jobs.find(service.store, job, key.id))
    service.wake()
    return shown.job(found, service.settings.organization, dialect_of(request))


def forget(job: str, request: Request, service: AService, key: AKey) -> Response:
    """Take a job that has ended out of the list, as Azure's client does; OpenAI's has no such call."""
    only(request)
    if dialect_of(request) is not shown.AZURE:
        raise Refusal(405, "This address takes another method.")
    jobs.forget(service.store, jobs.find(service.store, job, key.id))
    return Response(status_code=204)


def events(
    job: str, request: Request, service: AService, key: AKey, after: After = None, limit: Limit = 20
) -> dict[str, Any]:
    """List what was said of a job, newest first."""
    only(request, "after", "limit")
    jobs.find(service.store, job, key.id)
    start = behind(service.store, "events", "job = ?", [job], after)
    found = page(service.store, "events", "job = ?", [job], limit=limit, after=start)
    return shown.listed([shown.event(row) for row in found.rows], has_more=found.has_more)


def checkpoints(
    job: str, request: Request, service: AService, key: AKey, after: After = None, limit: Limit = 10
) -> dict[str, Any]:
    """List the checkpoints of a job whose weights are kept, so that they can be asked; newest first."""
    only(request, "after", "limit")
    store, settings = service.store, service.settings
    told = jobs.find(store, job, key.id)
    start = behind(service.store, "checkpoints", "job = ?", [job], after)
    rows = store.rows("select * from checkpoints where job = ? order by step desc", job)
    asked = catalog.may_be_asked(store, service.models, settings, told)
    kept = [row for row in rows if asked and catalog.weights_at(store, job, row["step"]).is_dir()]
    if start is not None:
        step = next(row["step"] for row in rows if row["seq"] == start)
        kept = [row for row in kept if row["step"] < step]
    data = [shown.checkpoint(row, catalog.checkpoint_name(settings, told, row["step"])) for row in kept[:limit]]
    return shown.listed(data, has_more=len(kept) > limit, ends=True)
