"""Files that come in parts: begin, add parts, complete, cancel.

Owns what an upload is and when it ends. A part comes in as any file does (`incoming`); what parts make is a file.
"""

from __future__ import annotations

import hashlib
import os
import re
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO, Literal, cast

import anyio.to_thread
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import Field

from tiebreak.service import keys, shelf
from tiebreak.service.bodies import Reading
from tiebreak.service.contract import Body
from tiebreak.service.door import AKey, AService, Service, only
from tiebreak.service.incoming import PATIENCE, Received, Wanted, received
from tiebreak.service.keys import Key
from tiebreak.service.refusals import Refusal, making_room, not_found
from tiebreak.service.store import Store, new_id, now
from tiebreak.service.uploads import LONGEST, MB, SHORTEST, require_purpose

PENDING, COMPLETED, CANCELLED, EXPIRED = "pending", "completed", "cancelled", "expired"

SECONDS = 3600
"""How long an upload may take."""

MOST_BYTES = 64 * MB
MOST_PARTS = 10_000


class ExpiresAfter(Body):
    """When the file expires."""

    anchor: Literal["created_at"]
    seconds: int = Field(ge=SHORTEST, le=LONGEST)


class UploadRequest(Body):
    """What is to come in parts."""

    bytes: int = Field(ge=1)
    filename: str
    mime_type: str = Field(pattern=r"^[ -~]{1,255}$")
    purpose: str
    expires_after: ExpiresAfter | None = None


class CompleteRequest(Body):
    """Which parts make the file, in their order."""

    part_ids: list[str] = Field(min_length=1, max_length=MOST_PARTS, fail_fast=True)
    md5: str | None = None


@dataclass(frozen=True)
class Upload:
    """A file that comes in parts, as it stood when it was read."""

    id: str
    key: str
    purpose: str
    filename: str
    bytes: int
    """What its parts are to have together."""
    status: str
    created: int
    expires: int
    file_expires: int | None
    """Seconds after which its file expires."""
    file: str | None

    @staticmethod
    def of(row: sqlite3.Row) -> Upload:
        """Return the upload of a row; one that took too long has expired, whether or not that was written down."""
        told = {name: row[name] for name in Upload.__dataclass_fields__}
        over = told["status"] == PENDING and told["expires"] <= now()
        return Upload(**told | ({"status": EXPIRED} if over else {}))


def routes(patience: float = PATIENCE) -> APIRouter:
    """Return the addresses; `patience` is how many seconds a slow part is waited for."""
    router = APIRouter(route_class=Reading, prefix="/uploads", tags=["uploads"])

    async def add(upload: str, request: Request, service: AService, key: AKey) -> Response:
        """Add a part, which comes as a form with one file: data."""
        only(request)
        return await _add(upload, request, service, key, patience)

    router.post("")(create)
    router.post("/{upload}/parts")(add)
    router.post("/{upload}/complete")(complete)
    router.post("/{upload}/cancel")(cancel)
    return router


def create(asked: UploadRequest, request: Request, service: AService, key: AKey) -> dict[str, Any]:
    """Begin a file that comes in parts."""
    only(request)
    require_purpose(asked.purpose)
    shelf.require_name(asked.filename, "filename")
    most = service.settings.limits.file_mb * MB
    if asked.bytes > most:
        raise Refusal(413, f"bytes: a file may have {most} bytes.", param="bytes")
    row = asked.model_dump(include={"bytes", "filename", "mime_type", "purpose"})
    seconds = None if asked.expires_after is None else asked.expires_after.seconds
    name = new_id("upload_")
    own = {"id": name, "key": key.id, "status": PENDING, "created": now(), "expires": now() + SECONDS}
    with service.store.writing():
        keys.require_upload(service.store, key)
        keys.require_bytes(service.store, key, service.settings, asked.bytes)
        service.store.insert("uploads", row | own | {"file_expires": seconds})
    return shown(service.store, find(service.store, name, key.id))


def find(store: Store, upload: str, key: str) -> Upload:
    """Return an upload of a key, by its id; raises Refusal where the key has none."""
    row = store.row("select * from uploads where id = ? and key = ?", upload, key)
    if row is None:
        raise not_found("upload", upload)
    return Upload.of(row)


def shown(store: Store, upload: Upload) -> dict[str, Any]:
    """Return an upload as clients read it, with its file where it has become one that is still there."""
    row = store.row("select * from files where id = ? and deleted is null", upload.file)
    return {
        "id": upload.id,
        "object": "upload",
        "bytes": upload.bytes,
        "created_at": upload.created,
        "expires_at": upload.expires,
        "filename": upload.filename,
        "purpose": upload.purpose,
        "status": upload.status,
        "file": None if row is None else shelf.shown(shelf.File.of(row)),
    }


def _require_pending(upload: Upload, be: str) -> None:
    if upload.status != PENDING:
        raise Refusal(
            400, f"The upload {upload.id} is {upload.status} and cannot be {be}.", param="id", code="invalid_state"
        )


async def _add(upload: str, request: Request, service: Service, key: Key, patience: float) -> Response:
    await anyio.to_thread.run_sync(_require_open, service.store, upload, key)
    held = await anyio.to_thread.run_sync(keys.held_bytes, service.store, key)
    with service.meters.coming(key, service.settings, held) as book:
        async with received(request, service.store, Wanted("data", {}, MOST_BYTES), book, patience) as form:
            told = await anyio.to_thread.run_sync(partial(_keep_part, upload, service, key, form))
    return JSONResponse(told)


def _require_open(store: Store, upload: str, key: Key) -> None:
    _require_pending(find(store, upload, key.id), "added to")


def _keep_part(upload: str, service: Service, key: Key, form: Received) -> dict[str, Any]:
    """Make a part of bytes that are on disk; whatever ends the upload meanwhile ends before or after this."""
    store = service.store
    if form.size == 0:
        raise Refusal(400, "data: is empty; wanted bytes.", param="data")
    part = {"id": new_id("part_"), "upload": upload, "bytes": form.size, "sha256": form.sha256, "created": now()}
    target = store.file_path(str(part["id"]))
    try:
        with store.writing():
            _require_open(store, upload, key)
            keys.require_bytes(store, key, service.settings, form.size)
            count = store.row("select count(*) from parts where upload = ?", upload)
            if count is not None and count[0] >= MOST_PARTS:
                raise Refusal(400, f"The upload has {MOST_PARTS} parts, and may have no more.", param="data")
            form.part.rename(target)
            store.insert("parts", part)
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    return {"id": part["id"], "object": "upload.part", "created_at": part["created"], "upload_id": upload}


async def complete(
    upload: str, asked: CompleteRequest, request: Request, service: AService, key: AKey
) -> dict[str, Any]:
    """Make a file of parts, in the order that is given; asked again, it says the same again.

    A file is there twice while it is made, so that each key has one made at a time; others wait for their turn.
    """
    only(request)
    async with service.joining[key.id]:
        return await anyio.to_thread.run_sync(_complete, upload, asked, service, key)


def _complete(upload: str, asked: CompleteRequest, service: Service, key: Key) -> dict[str, Any]:
    store, found = service.store, find(service.store, upload, key.id)
    if found.status != COMPLETED:
        _require_pending(found, "completed")
        try:
            _join(service, key, found, asked)
        except Refusal:
            if find(store, upload, key.id).status != COMPLETED:  # by the same request, sent twice
                raise
    _sweep(store, upload)
    return shown(store, find(store, upload, key.id))


def _join(service: Service, key: Key, upload: Upload, asked: CompleteRequest) -> None:
    store = service.store
    names = _in_order(store, upload, asked.part_ids)
    digests = (hashlib.sha256(), hashlib.md5(usedforsecurity=False))
    whole = shelf.new_part(store)
    try:
        with whole.open("r+b", buffering=0) as raw:
            file = cast(BinaryIO, raw)
            size = sum(shelf.append(file, store.file_path(name), *digests) for name in names)
            os.fsync(file.fileno())
        _require_md5(asked.md5, digests[1].hexdigest())

        def complete_with(file: shelf.File) -> None:
            _require_pending(find(store, upload.id, key.id), "completed")
            store.change("update uploads set status = ?, file = ? where id = ?", COMPLETED, file.id, upload.id)

        expires = None if upload.file_expires is None else now() + upload.file_expires
        shelf.place(
            store, key.id, upload.purpose, upload.filename, whole, size, digests[0].hexdigest(), expires=expires,
            within=complete_with,
        )  # fmt: skip
    except FileNotFoundError:  # its parts went with the end of the upload
        _require_pending(find(store, upload.id, key.id), "completed")
        raise
    finally:
        whole.unlink(missing_ok=True)


def _in_order(store: Store, upload: Upload, named: Sequence[str]) -> Sequence[str]:
    """Return the parts that are named; raises Refusal where they are not parts of the upload, or not all its bytes."""
    there = {row["id"]: row["bytes"] for row in store.rows("select id, bytes from parts where upload = ?", upload.id)}
    if unknown := [name for name in named if name not in there]:
        raise Refusal(400, f"part_ids: the upload has no part {unknown[0][:80]!a}.", param="part_ids")
    if len(set(named)) != len(named):
        raise Refusal(400, "part_ids: a part is named twice.", param="part_ids")
    if (size := sum(there[name] for name in named)) != upload.bytes:
        raise Refusal(400, f"part_ids: have {size} bytes; the upload is to have {upload.bytes}.", param="part_ids")
    return named


def _require_md5(told: str | None, found: str) -> None:
    if told is not None and told.lower() != found:
        what = "is no MD5" if not re.fullmatch("[0-9a-fA-F]{32}", told) else f"the parts together have {found}"
        raise Refusal(400, f"md5: {what}; send the parts again.", param="md5")


def cancel(upload: str, request: Request, service: AService, key: AKey) -> dict[str, Any]:
    """End an upload that is not complete; its parts go."""
    only(request)
    store = service.store
    find(store, upload, key.id)  # of another key nothing is given up

    def end() -> None:
        with store.writing():
            found = find(store, upload, key.id)
            if found.status != CANCELLED:
                _require_pending(found, "cancelled")
                store.change("update uploads set status = ? where id = ?", CANCELLED, upload)
        _sweep(store, upload)

    making_room(end, partial(_give_up, store, upload))
    return shown(store, find(store, upload, key.id))


def expire(store: Store, upload: str) -> None:
    """Write down that an upload took too long; its parts go."""

    def end() -> None:
        sql = "update uploads set status = ? where id = ? and status = ? and expires <= ?"
        if store.change(sql, EXPIRED, upload, PENDING, now()):
            _sweep(store, upload)

    making_room(end, partial(_give_up, store, upload))


def forget(store: Store, before: int) -> int:
    """Remove the rows of uploads that have ended and were to end before a time; return how many."""
    return store.change("delete from uploads where status != ? and expires <= ?", PENDING, before)


def _give_up(store: Store, upload: str) -> None:
    """Remove the bytes of an upload's parts, which are to go with it: on a full disk that makes room for saying so."""
    for row in store.rows("select id from parts where upload = ?", upload):
        store.file_path(row["id"]).unlink(missing_ok=True)


def _sweep(store: Store, upload: str) -> None:
    """Remove the parts of an upload that has ended: their rows, and then their bytes."""
    with store.writing():
        gone = [row["id"] for row in store.rows("select id from parts where upload = ?", upload)]
        store.change("delete from parts where upload = ?", upload)
    for name in gone:
        store.file_path(name).unlink(missing_ok=True)
