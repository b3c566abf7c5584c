"""The addresses of files: send one, list, ask, read, delete.

Owns what the form of an upload means. How it comes in is known to `incoming`, and what is kept to `shelf`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Annotated, Any, BinaryIO, Literal
from urllib.parse import quote

import anyio.to_thread
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from tiebreak.service import keys, shelf
from tiebreak.service.door import AKey, AService, Service, dialect_of, only
from tiebreak.service.incoming import PATIENCE, Received, Wanted, received
from tiebreak.service.keys import Key
from tiebreak.service.refusals import Refusal, not_found
from tiebreak.service.shown import listed as told_of
from tiebreak.service.store import now

MB = 1 << 20
ANCHOR = "created_at"
SHORTEST, LONGEST = 3600, 2_592_000
"""Seconds after which a file may expire."""


def routes(patience: float = PATIENCE) -> APIRouter:
    """Return the addresses; `patience` is how many seconds a slow upload is waited for."""
    router = APIRouter(prefix="/files", tags=["files"])

    async def create(request: Request, service: AService, key: AKey) -> Response:
        """Keep a file that comes as a form: purpose, expires_after[anchor], expires_after[seconds] and file."""
        only(request)
        return await _create(request, service, key, patience)

    router.post("")(create)
    router.get("")(listed)
    router.get("/{file}")(retrieve)
    router.delete("/{file}")(delete)
    router.get("/{file}/content")(content)
    return router


async def _create(request: Request, service: Service, key: Key, patience: float) -> Response:
    settings = service.settings
    held = await anyio.to_thread.run_sync(keys.held_bytes, service.store, key)
    with service.meters.coming(key, settings, held) as book:
        wanted = Wanted("file", _FIELDS, settings.limits.file_mb * MB)
        async with received(request, service.store, wanted, book, patience) as form:
            file = await anyio.to_thread.run_sync(partial(_keep, service, key, form))
    dialect = dialect_of(request)
    place = {"location": f"{request.url.path.rstrip('/')}/{file.id}"} if dialect.created == 201 else None
    return JSONResponse(shelf.shown(file), dialect.created, place)


def _keep(service: Service, key: Key, form: Received) -> shelf.File:
    purpose, expires = form.fields.get("purpose"), _expires(form.fields)
    if purpose is None:
        raise Refusal(400, "purpose: is missing; wanted fine-tune.", param="purpose")
    store = service.store
    return shelf.place(
        store, key.id, purpose, form.filename, form.part, form.size, form.sha256, expires=expires,
        within=lambda _: keys.require_bytes(store, key, service.settings, 0),
    )  # fmt: skip


def require_purpose(purpose: str) -> None:
    """Raise Refusal for a file that nothing here would read."""
    if purpose != shelf.UPLOADED:
        raise Refusal(
            400, f"purpose: {purpose[:60]!a} is for what this service does not do; wanted {shelf.UPLOADED}.",
            param="purpose",
        )  # fmt: skip


def require_anchor(anchor: str) -> None:
    """Raise Refusal where a file is to expire after anything but its creation."""
    if anchor != ANCHOR:
        raise Refusal(400, f"expires_after.anchor: wanted {ANCHOR}.", param="expires_after.anchor")


def require_seconds(seconds: str) -> None:
    """Raise Refusal where a file is to expire too soon or too late."""
    told = seconds.isascii() and seconds.isdigit() and len(seconds) < 12
    if not told or not SHORTEST <= int(seconds) <= LONGEST:
        raise Refusal(
            400, f"expires_after.seconds: wanted a whole number from {SHORTEST} to {LONGEST}.",
            param="expires_after.seconds",
        )  # fmt: skip


_FIELDS: Mapping[str, Callable[[str], None]] = {
    "purpose": require_purpose,
    "expires_after[anchor]": require_anchor,
    "expires_after[seconds]": require_seconds,
    "expires_after.anchor": require_anchor,
    "expires_after.seconds": require_seconds,
}
"""Fields beside the file; those with dots are as Azure's specification has them."""


def _expires(fields: Mapping[str, str]) -> int | None:
    """Return when a file expires; raises Refusal where half of it is said, or all of it twice."""
    told = {part: [fields[name] for name in fields if name.strip("]").endswith(part)] for part in ("anchor", "seconds")}
    for part, values in told.items():
        if len(values) > 1:
            raise Refusal(400, f"expires_after.{part}: is there twice.", param=f"expires_after.{part}")
        if not values and any(told.values()):
            raise Refusal(400, f"expires_after.{part}: is missing.", param=f"expires_after.{part}")
    return now() + int(told["seconds"][0]) if told["seconds"] else None


def listed(
    request: Request,
    service: AService,
    key: AKey,
    purpose: Annotated[str | None, Query(max_length=60)] = None,
    limit: Annotated[int, Query(ge=0, le=shelf.MOST)] = shelf.MOST,
    order: Literal["asc", "desc"] = "desc",
    after: Annotated[str | None, Query(max_length=200)] = None,
) -> dict[str, Any]:
    """List files, newest first."""
    only(request, "purpose", "limit", "order", "after")
    found, more = shelf.listed(service.store, key.id, purpose=purpose, limit=limit, order=order, after=after)
    return told_of([shelf.shown(file) for file in found], has_more=more, ends=True)


def retrieve(file: str, request: Request, service: AService, key: AKey) -> dict[str, Any]:
    """Say what is known of a file."""
    only(request)
    return shelf.shown(shelf.find(service.store, file, key.id))


def content(file: str, request: Request, service: AService, key: AKey) -> Response:
    """Send the bytes of a file, which no browser is to show."""
    only(request)
    found = shelf.find(service.store, file, key.id)
    try:
        handle = shelf.path_of(service.store, found).open("rb")
    except FileNotFoundError:  # deleted meanwhile
        raise not_found("file", file) from None
    quoted = quote(found.filename, safe="")
    name = f'filename="{quoted}"' if quoted == found.filename else f"filename*=UTF-8''{quoted}"
    headers = {
        "content-length": str(os.fstat(handle.fileno()).st_size),
        "content-disposition": f"attachment; {name}",
        "content-security-policy": "sandbox; default-src 'none'",
    }
    return StreamingResponse(_chunks(handle), headers=headers, media_type="application/octet-stream")


def _chunks(handle: BinaryIO) -> Iterator[bytes]:
    with handle:
        while chunk := handle.read(shelf.CHUNK):
            yield chunk


def delete(file: str, request: Request, service: AService, key: AKey) -> dict[str, Any]:
    """Delete a file; jobs that were made with it go on."""
    only(request)
    found = shelf.find(service.store, file, key.id)
    shelf.delete(service.store, found)
    return {"id": found.id, "object": "file", "deleted": True}
