"""Where the service listens, and from when until when it does.

Owns the socket, what an address that others can reach needs, and the end of a server: it stops taking requests, and
jobs go on without it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from tiebreak.config.service import load_serve
from tiebreak.errors import ConfigError
from tiebreak.folders import locked
from tiebreak.service import keys
from tiebreak.service.app import create_app
from tiebreak.service.hooks import require_secrets
from tiebreak.service.refusals import Refusal
from tiebreak.service.store import make_folder, open_store, settle

GRACE_SECONDS = 10

HEAD_SECONDS = 15.0
"""In which the head of a request comes in, and for as long again at most."""
MOST_CONNECTIONS = 800
"""At the same time: below the 1024 files that a process may have open by default."""
RETRY_SECONDS = 5
"""After which one connection too many is to try again."""
BACKLOG = 32
"""Connections that are taken at once, before any is looked at: a rush stays below that number, too."""


@dataclass(frozen=True)
class Listening:
    """A server that is about to answer."""

    url: str
    folder: Path
    models: tuple[str, ...]
    num_keys: int


@dataclass(frozen=True)
class Address:
    """Where to listen, and what protects it."""

    host: str = "127.0.0.1"
    port: int = 8080
    behind_proxy: bool = False
    certificate: str | None = None
    private_key: str | None = None

    def check(self) -> None:
        """Raise ConfigError where keys would go over a network that others read."""
        if (self.certificate is None) != (self.private_key is None):
            raise ConfigError("--certificate and --private-key go together")
        for name, file in (("--certificate", self.certificate), ("--private-key", self.private_key)):
            if file is not None and not Path(file).is_file():
                raise ConfigError(f"{name} {file}: no such file")
        if not (self.is_here or self.behind_proxy or self.certificate):
            raise ConfigError(
                f"--host {self.host}: others could reach it, and keys would travel without TLS; give --certificate and "
                "--private-key, or --behind-proxy where a proxy of yours brings TLS"
            )

    @property
    def is_here(self) -> bool:
        """Whether only this machine reaches it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def url_of(self, listener: socket.socket) -> str:
        """Return what leads to a socket that was bound here."""
        host, port = listener.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        return f"http{'s' * (self.certificate is not None)}://{shown}:{port}"

    def bound(self) -> socket.socket:
        """Return a socket at this address; raises ConfigError where that is in use or none."""
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        try:
            bound = socket.create_server((self.host, self.port), family=family, backlog=BACKLOG)
            # What it accepts inherits this. An answer is written in two pieces, and the second would otherwise wait
            # 40 ms for the first to be acknowledged: asyncio sees to it only for sockets that it made itself.
            bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return bound
        except (OSError, OverflowError) as error:
            raise ConfigError(
                f"--host {self.host} --port {self.port}: cannot be listened at ({error}); another --port may be free"
            ) from None


class Connection(H11Protocol):
    """A connection as uvicorn has it, which is given up where the head of a request does not come."""

    kind = "application/json"

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin, or say that there are too many."""
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS:
            body = self.too_many()
            head = f"HTTP/1.1 503 Service Unavailable\r\ncontent-type: {self.kind}\r\ncontent-length: {len(body)}\r\n"
            transport.write(f"{head}retry-after: {RETRY_SECONDS}\r\nconnection: close\r\n\r\n".encode() + body)
            transport.close()
            return
        self.loop.call_later(HEAD_SECONDS, self._look, None)

    def _look(self, before: object) -> None:
        """Close the connection where it waits for the same head as before."""
        if self.transport.is_closing():
            return
        waits = self.cycle is None or self.cycle.response_complete  # type: ignore[redundant-expr] # none before the first
        if waits and self.cycle is before:
            self.transport.close()
            return
        self.loop.call_later(HEAD_SECONDS, self._look, self.cycle if waits else self)

    def too_many(self) -> bytes:
        """Return what one connection too many is answered."""
        told = "Too many connections are open; try again later."
        return json.dumps(Refusal(503, told, kind="server_error", code="overloaded").body).encode()


def serve(folder: Path, config: str | None, address: Address, say: Callable[[Listening], None]) -> None:
    """Serve until a signal asks for an end; `say` is told where, once requests are taken.

    Raises ConfigError for settings or an address that cannot be used, RunError where another server has the folder.
    """
    settings, configs = load_serve(config)
    require_secrets(settings)
    address.check()
    make_folder(folder)
    with (
        locked(folder, otherwise="choose another --dir"),
        contextlib.closing(address.bound()) as listener,
        contextlib.closing(open_store(folder)) as store,
    ):
        settle(store)
        told = uvicorn.Config(
            create_app(store, settings, configs),
            http=Connection,
            backlog=BACKLOG,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=address.behind_proxy,
            ssl_certfile=address.certificate,
            ssl_keyfile=address.private_key,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
        in_use = sum(1 for key in keys.listed(store) if key.revoked is None)
        there = Listening(f"{address.url_of(listener)}/v1", folder, tuple(configs), in_use)
        run(uvicorn.Server(told), listener, lambda: say(there))


class _AskedToEnd(BaseException):
    """A signal came before the server listens to signals itself."""


def run(server: uvicorn.Server, listener: socket.socket, say: Callable[[], None]) -> None:
    """Answer until a signal asks for an end, which it may from the moment on that `say` is called.

    That is before the server listens to signals itself; `say` is left, where it waits for a reader who does not come.
    """
    may_leave = True

    def end(*_: object) -> None:  # uvicorn raises signals anew once it has ended: they asked for just that
        nonlocal may_leave
        server.should_exit = True
        if may_leave:  # once: the next one finds us leaving
            may_leave = False
            raise _AskedToEnd

    before = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        for one in before:
            signal.signal(one, end)
        say()
        may_leave = False
        server.run(sockets=[listener])
    except _AskedToEnd:
        pass
    finally:
        may_leave = False
        for one, handler in before.items():
            signal.signal(one, handler)
