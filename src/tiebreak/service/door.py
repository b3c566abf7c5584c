"""What every request passes: who asks, in whose words to answer, how long a body may be, and the form of an error.

Owns what handlers are given. What is answered is known to them.
"""

from __future__ import annotations

import logging
import re
import sqlite3
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import anyio
import anyio.to_thread
from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tiebreak.config import Config
from tiebreak.config.service import ServeConfig
from tiebreak.errors import TiebreakError
from tiebreak.service import keys, shown
from tiebreak.service.chat import Chat
from tiebreak.service.contract import refusal_of
from tiebreak.service.keys import Key, Meters
from tiebreak.service.refusals import Refusal, full_disk, unusable_database
from tiebreak.service.store import Store, new_id
from tiebreak.service.upstream import Upstream

PREFIXES = ("/v1", "/openai/v1", "/openai")
"""Where the same handlers answer: OpenAI's client, and Azure's of both generations."""

MOST_CHAT, MOST_BODY = 4 * 2**20, 512 * 2**10
"""Bytes of the body of a chat, and of any other that is no file."""

BODY_SECONDS = 30.0
"""In which a body that is no file comes in."""

SHORT = 64 * 2**10
"""Bytes of a body that may as well be read as the connection be given up."""

LINGER_SECONDS = 2.0

STALLED_SECONDS = 30.0
"""How long a client may take nothing of an answer, and a second more for each of `TAKEN_BYTES`."""
TAKEN_BYTES = 16 * 2**10

_KEY = "tiebreak.key"
"""In the scope of a request: who asks, once that was found."""

_LOG = logging.getLogger("uvicorn.error")

_STREAMED = re.compile(r"/(files|uploads/[^/]+/parts)/?\Z")
_CHAT = re.compile(r"/chat/completions/?\Z")


@dataclass(frozen=True)
class Service:
    """What handlers work with."""

    store: Store
    settings: ServeConfig
    models: Mapping[str, Config]
    chat: Chat
    upstream: Upstream | None = None
    wake: Callable[[], None] = lambda: None
    """Lets jobs be looked at now, and not a moment later."""
    meters: Meters = field(default_factory=Meters)
    joining: Mapping[str, anyio.Lock] = field(default_factory=lambda: defaultdict(anyio.Lock))
    """Held by whoever makes a file of parts, for each key."""
    reading: Mapping[str, anyio.Lock] = field(default_factory=lambda: defaultdict(anyio.Lock))
    """Held by whoever reads a large body, for each key."""


def service_of(request: Request) -> Service:
    """Return the service that a request came to."""
    found: Service = request.app.state.service
    return found


def asker(request: Request) -> Key:
    """Return the key that a request came with; raises Refusal (401) without one that is in use."""
    if (known := request.scope.get(_KEY)) is not None:
        return known  # type: ignore[no-any-return]
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    token = token.strip() if scheme.lower() == "bearer" else request.headers.get("api-key", "")
    if not token:
        raise _unknown("No API key came with the request; send 'Authorization: Bearer tbk-…', or 'api-key: tbk-…'.")
    key = keys.holder(service_of(request).store, token)
    if key is None:
        raise _unknown("This API key is not in use; 'tiebreak serve keys add NAME' makes one.")
    return key


def _unknown(message: str) -> Refusal:
    return Refusal(401, message, code="invalid_api_key")


AService = Annotated[Service, Depends(service_of)]
AKey = Annotated[Key, Depends(asker)]


def dialect_of(request: Request) -> shown.Dialect:
    """Return in whose words a request is answered: Azure's client of before /openai/v1 has its own."""
    path = request.url.path
    return shown.AZURE if path.startswith("/openai/") and not path.startswith("/openai/v1/") else shown.OPENAI


def is_again(request: Request) -> bool:
    """Return whether a client says that it sends this request again, since no answer to it came."""
    told = request.headers.get("x-stainless-retry-count", "0")
    return told.isascii() and told.isdigit() and int(told[:6]) > 0


def only(request: Request, *names: str) -> None:
    """Raise Refusal for a parameter of the address that would not be read, or is there twice."""
    for name, times in Counter(name for name, _ in request.query_params.multi_items()).items():
        if times > 1:
            raise Refusal(400, f"{name[:80]}: is there twice.", param=name[:80], code="invalid_value")
        if name not in names and name != "api-version":
            raise Refusal(400, f"Unknown parameter: '{name[:80]}'.", param=name[:80], code="unknown_parameter")


class _Coming:
    """A body on its way, and whether all of it is here."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        headers = dict(scope["headers"])
        length = headers.get(b"content-length", b"0")
        self._receive = receive
        self._is_long = b"transfer-encoding" in headers or not length.isdigit() or int(length[:20]) > SHORT
        self._is_withheld = b"expect" in headers
        self.is_whole = False

    async def receive(self) -> Message:
        """Return what comes next."""
        self._is_withheld = False
        message = await self._receive()
        self.is_whole = message["type"] == "http.disconnect" or not message.get("more_body", False)
        return message

    async def is_over(self) -> bool:
        """Return whether the connection may be used again: the rest is thrown away for a moment, and not for longer.

        Whoever writes all that they have before they read would otherwise see a broken connection, and not the answer.
        A client that waits for a word before it sends anything gets its answer at once.
        """
        if self._is_long and not self._is_withheld:
            with anyio.move_on_after(LINGER_SECONDS):
                while not self.is_whole:
                    await self.receive()
        return self.is_whole or not self._is_long


class Edge:
    """Numbers every answer, and refuses a body that is too long before it is read whole; nobody is read for longer than
    a moment who has their answer.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, name = time.perf_counter(), new_id("req_")
        coming, unsent, is_stalled = _Coming(scope, receive), 0, False

        async def numbered(message: Message) -> None:
            nonlocal unsent, is_stalled
            if message["type"] == "http.response.start":
                took = round(1000 * (time.perf_counter() - began))
                own = [(b"x-request-id", name.encode()), (b"openai-processing-ms", str(took).encode())]
                own += [(b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store")]
                own += [] if await coming.is_over() else [(b"connection", b"close")]
                message = {**message, "headers": [*message.get("headers", ()), *own]}
            try:
                with anyio.fail_after(STALLED_SECONDS + unsent / TAKEN_BYTES):  # until what was sent before is taken
                    await send(message)
            except TimeoutError:
                is_stalled = True
                raise
            unsent = len(message.get("body", b""))

        streamed = scope["method"] == "POST" and _STREAMED.search(scope["path"])
        try:
            await self._app(scope, coming.receive if streamed else _plain(scope, coming), numbered)
        except Exception:  # noqa: BLE001 - it was answered; the log says what, under the number of the answer
            if is_stalled:
                _LOG.warning("%s: the answer was not read, and was given up", name)
                return
            _LOG.exception("%s: %s %s failed", name, scope["method"], ascii(scope["path"])[:200])


def _plain(scope: Scope, coming: _Coming) -> Receive:
    """Return what receives a body that is no file: of a key that is in use, and not too long or slow."""
    most = MOST_CHAT if _CHAT.search(scope["path"]) else MOST_BODY
    size, until = 0, 0.0

    async def receive() -> Message:
        nonlocal size, until
        if coming.is_whole:
            return await coming.receive()
        if not until:
            scope[_KEY] = await anyio.to_thread.run_sync(asker, Request(scope))
            until = anyio.current_time() + BODY_SECONDS
        try:
            with anyio.fail_after(max(0.0, until - anyio.current_time())):
                message = await coming.receive()
        except TimeoutError:
            raise Refusal(408, "The body of the request came in too slowly; send it again.") from None
        size += len(message.get("body", b""))
        if size > most:
            raise Refusal(413, f"The body of the request is longer than {most} bytes.", code="request_too_large")
        return message

    return receive


def answer_errors(app: FastAPI) -> None:
    """Let every error be answered in the one form that clients read."""
    handlers: dict[Any, Callable[[Any], Refusal]] = {
        Refusal: lambda error: error,
        RequestValidationError: lambda error: refusal_of(error.errors()),
        HTTPException: _of_the_framework,
        TiebreakError: lambda error: Refusal(500, str(error), kind="server_error", code="server_error"),
        OSError: _of_the_disk,
        sqlite3.Error: _of_the_disk,
        Exception: lambda _: _failed(),
    }
    for kind, refusal in handlers.items():

        def handler(_: Request, error: Exception, refusal: Callable[[Any], Refusal] = refusal) -> JSONResponse:
            found = refusal(error)
            return JSONResponse(found.body, found.status, found.headers)

        app.add_exception_handler(kind, handler)


def _failed() -> Refusal:
    return Refusal(500, "The service failed; its log says more, under the x-request-id.", kind="server_error")


def _of_the_disk(error: Exception) -> Refusal:
    if (refusal := full_disk(error)) is not None:
        return refusal
    if (refusal := unusable_database(error)) is not None:
        _LOG.warning("a request failed: %s", error)
        return refusal
    _LOG.error("a request failed", exc_info=error)
    return _failed()


def _of_the_framework(error: HTTPException) -> Refusal:
    if isinstance(error.__cause__, OSError | sqlite3.Error):
        return _of_the_disk(error.__cause__)
    if isinstance(error.__cause__, Refusal):  # raised while the framework read the body
        return error.__cause__
    status, code = error.status_code, "not_found" if error.status_code == 404 else None
    said = {404: "There is nothing at this address.", 405: "This address takes another method."}
    return Refusal(status, said.get(status, str(error.detail)), code=code)
