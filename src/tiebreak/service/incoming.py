"""A form that brings a file: streamed to disk, whatever its size, and refused as soon as something is wrong.

Owns the reading of forms, and the limits on their size and slowness.
What the fields mean is known to `uploads` and `parts`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO, cast

import anyio
import anyio.to_thread
from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from tiebreak.service import shelf
from tiebreak.service.refusals import Refusal
from tiebreak.service.store import Store

PATIENCE = 60.0
"""Seconds in which an upload that goes on brings at least `LEAST` bytes."""
LEAST = 16 << 10

OVERHEAD = 64 << 10
"""Most bytes of a form besides its file."""

LONGEST = 1024
"""Most bytes of a field that is no file."""


@dataclass(frozen=True)
class Wanted:
    """What a form may hold: one file under a name, of a size, and fields under others, each of which is looked at."""

    file: str
    fields: Mapping[str, Callable[[str], None]]
    most: int
    """Most bytes of the file."""


@dataclass(frozen=True)
class Received:
    """A form that came in whole; its file is on disk, as `part`."""

    fields: Mapping[str, str]
    filename: str
    part: Path
    size: int
    sha256: str


class _Body:
    """What a client sends, chunk by chunk, and how long it is waited for."""

    def __init__(self, request: Request, patience: float) -> None:
        self._receive, self._patience = request.receive, patience
        self._new, self._until = 0, anyio.current_time() + patience
        self._ended = False

    async def chunk(self) -> bytes | None:
        """Return the next bytes, or None behind the last ones; raises Refusal where the client is gone or too slow."""
        if self._ended:
            return None
        try:
            with anyio.fail_after(max(0.0, self._until - anyio.current_time())):
                message = await self._receive()
        except TimeoutError:
            raise Refusal(408, "The upload came in too slowly, and nothing of it was kept; send it again.") from None
        if message["type"] == "http.disconnect":
            raise Refusal(400, "The upload was cut off, and nothing of it was kept; send it again.")
        body = bytes(message.get("body", b""))
        self._new += len(body)
        if self._new >= LEAST:
            self._new, self._until = 0, anyio.current_time() + self._patience
        self._ended = not message.get("more_body", False)
        return body


class _Form:
    """A form as it comes in: its fields, and the bytes of its file that were not written yet."""

    def __init__(self, content_type: str, wanted: Wanted) -> None:
        kind, options = parse_options_header(content_type)
        if kind != b"multipart/form-data" or not options.get(b"boundary"):
            raise Refusal(400, "Wanted a form (multipart/form-data with a boundary) that holds a file.")
        self.fields: dict[str, str] = {}
        self.filename: str | None = None
        self.ready = bytearray()
        self.size = 0
        self.whole = False
        self._wanted = wanted
        self._header, self._value = b"", b""
        self._headers: dict[bytes, bytes] = {}
        self._name = ""
        self._field: bytearray | None = None
        with _form_faults_said():
            self._parser = MultipartParser(
                options[b"boundary"],
                {
                    "on_part_begin": self._begin,
                    "on_header_field": self._header_field,
                    "on_header_value": self._header_value,
                    "on_header_end": self._header_end,
                    "on_headers_finished": self._headers_finished,
                    "on_part_data": self._data,
                    "on_part_end": self._end,
                    "on_end": self._whole,
                },
            )

    def feed(self, data: bytes) -> None:
        """Read more of the form; raises Refusal for what it may not hold."""
        with _form_faults_said():
            self._parser.write(data)

    def take(self) -> bytes:
        """Return the bytes of the file that are to be written, which are not given again."""
        taken = bytes(self.ready)
        self.ready.clear()
        return taken

    def _begin(self) -> None:
        self._headers, self._field = {}, None

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        self._headers[self._header.lower()] = self._value
        self._header, self._value = b"", b""

    def _headers_finished(self) -> None:
        disposition = self._headers.get(b"content-disposition", b"").decode("latin-1")
        _, options = parse_options_header(disposition)
        self._name = name = _text(options.get(b"name", b""), "name")
        if self._headers.get(b"content-transfer-encoding", b"binary").lower() not in (b"binary", b"8bit", b"7bit"):
            raise Refusal(400, f"{_shown(name)}: is encoded; wanted its bytes as they are.", param=_shown(name))
        if name == self._wanted.file:
            if self.filename is not None:
                raise Refusal(400, f"{name}: is there twice; wanted one file.", param=name)
            if b"filename" not in options:
                raise Refusal(400, f"{name}: is no file; wanted one with a filename.", param=name)
            self.filename = _text(options[b"filename"], name)
            shelf.require_name(self.filename, name)
            return
        if name not in self._wanted.fields:
            allowed = ", ".join((self._wanted.file, *self._wanted.fields))
            raise Refusal(400, f"Unknown field {_shown(name)!r}; wanted {allowed}.", param=_shown(name))
        if name in self.fields:
            raise Refusal(400, f"{name}: is there twice.", param=name)
        if b"filename" in options:
            raise Refusal(400, f"{name}: is a file; wanted text.", param=name)
        self._field = bytearray()

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._field is not None:
            self._field += data[start:end]
            if len(self._field) > LONGEST:
                raise Refusal(400, f"{self._name}: has more than {LONGEST} bytes.", param=self._name)
            return
        self.size += end - start
        if self.size > self._wanted.most:
            raise too_large(self._wanted)
        self.ready += memoryview(data)[start:end]

    def _end(self) -> None:
        if self._field is not None:
            self.fields[self._name] = value = _text(bytes(self._field), self._name)
            self._wanted.fields[self._name](value)

    def _whole(self) -> None:
        self.whole = True


@contextlib.contextmanager
def _form_faults_said() -> Iterator[None]:
    try:
        yield
    except FormParserError:
        raise Refusal(400, "The form cannot be read: its parts are not as multipart/form-data has them.") from None


def _text(data: bytes, param: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise Refusal(400, f"{param}: is no UTF-8.", param=param) from None


def _shown(name: str) -> str:
    return ascii(name[:60])[1:-1]


def too_large(wanted: Wanted) -> Refusal:
    """Return the answer to a file that is larger than what is taken."""
    return Refusal(413, f"{wanted.file}: may have {wanted.most} bytes, and this one has more.", param=wanted.file)


@contextlib.asynccontextmanager
async def received(
    request: Request, store: Store, wanted: Wanted, book: Callable[[int], None], patience: float = PATIENCE
) -> AsyncIterator[Received]:
    """Yield a form that came in whole, its file on disk beside the others; when the block ends, only what was renamed
    is still there.

    `book` hears of each megabyte before it is written. Raises Refusal, and keeps nothing, where the form is not as
    wanted, too large or slow, or cut off, and OSError where the disk is full.
    """
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length[:20]) > wanted.most + OVERHEAD:
        raise too_large(wanted)
    if request.headers.get("content-encoding", "identity") != "identity":
        raise Refusal(400, "The form is compressed; wanted its bytes as they are.")
    form, body = _Form(request.headers.get("content-type", ""), wanted), _Body(request, patience)
    part = await anyio.to_thread.run_sync(shelf.new_part, store)
    try:
        digest = hashlib.sha256()
        with part.open("r+b", buffering=0) as raw:
            file, total = cast(BinaryIO, raw), 0
            while (data := await body.chunk()) is not None:
                total += len(data)
                if total > wanted.most + OVERHEAD:
                    raise too_large(wanted)
                form.feed(data)
                if len(form.ready) >= shelf.CHUNK:
                    book(len(form.ready))
                    await anyio.to_thread.run_sync(_write, file, digest, form.take())
            if not form.whole:
                raise Refusal(400, "The form ends before its last part does; send it again.")
            if form.filename is None:
                raise Refusal(400, f"{wanted.file}: is missing; wanted a file.", param=wanted.file)
            book(len(form.ready))
            await anyio.to_thread.run_sync(partial(_write, file, digest, form.take(), last=True))
        yield Received(form.fields, form.filename, part, form.size, digest.hexdigest())
    finally:
        part.unlink(missing_ok=True)


def _write(file: BinaryIO, digest: shelf.Digest, data: bytes, *, last: bool = False) -> None:
    shelf.write(file, data, digest)
    if last:
        os.fsync(file.fileno())
