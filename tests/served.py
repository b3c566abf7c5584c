"""The service's addresses on a free port of this machine, in this process or in one of their own."""

from __future__ import annotations

import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partialmethod
from pathlib import Path
from typing import Any

import openai
import uvicorn
from fastapi import APIRouter, FastAPI

from tiebreak.config.service import ServeConfig
from tiebreak.service import keys
from tiebreak.service.door import PREFIXES, Edge, Service, answer_errors
from tiebreak.service.store import Store, open_store


def fill(monkeypatch, room: Callable[[], bool] = lambda: False) -> None:
    """Let the disk of every store be full for as long as there is no `room`."""
    insert, change = Store.insert, Store.change

    def full(*told, write, **more):
        if not room():
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error
        return write(*told, **more)

    monkeypatch.setattr(Store, "insert", partialmethod(full, write=insert))
    monkeypatch.setattr(Store, "change", partialmethod(full, write=change))


def settings_of(**told) -> ServeConfig:
    return ServeConfig.model_validate({"models": {"tiny": {"model": {"name": "tiny"}}}} | told)


def app_of(store: Store, settings: ServeConfig, routers: list[APIRouter]) -> Edge:
    app = FastAPI()
    app.state.service = Service(store, settings, {}, None)
    for prefix in PREFIXES:
        for router in routers:
            app.include_router(router, prefix=prefix)
    answer_errors(app)
    return Edge(app)


@dataclass(frozen=True)
class Served:
    """A service that listens, its store, and the secret of a key."""

    store: Store
    settings: ServeConfig
    key: keys.Key
    token: str
    port: int
    clients: list[openai.OpenAI] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def client(self, token: str | None = None, **told) -> openai.OpenAI:
        made = openai.OpenAI(base_url=self.address, api_key=token or self.token, **told)
        self.clients.append(made)
        return made

    def close(self) -> None:
        """Let go of what clients hold open."""
        for client in self.clients:
            client.close()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    @property
    def parts(self) -> list[str]:
        """What lies in the folder of files that is not whole."""
        return sorted(path.name for path in self.store.files_folder.glob(".*"))


@contextmanager
def served(folder: Path, routers: list[APIRouter], **told) -> Iterator[Served]:
    settings, store = settings_of(**told), open_store(folder)
    key, token = keys.add(store, "somebody")
    listening = listener()
    server = uvicorn.Server(uvicorn.Config(app_of(store, settings, routers), log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        wait(lambda: server.started)
        yield (here := Served(store, settings, key, token, listening.getsockname()[1]))
        here.close()
    finally:
        server.should_exit = server.force_exit = True
        thread.join(20)
        listening.close()


def listener() -> socket.socket:
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


APART = """
import sys, uvicorn
from pathlib import Path
from served import app_of, settings_of
from tiebreak.service import parts, uploads
from tiebreak.service.store import open_store

app = app_of(open_store(Path(sys.argv[1])), settings_of(), [uploads.routes(), parts.routes()])
uvicorn.run(app, fd=int(sys.argv[2]), log_level="warning", lifespan="off")
"""


@contextmanager
def served_apart(folder: Path, *, before: tuple[str, ...] = ()) -> Iterator[tuple[Served, subprocess.Popen]]:
    """Serve in a process of its own, behind words that start it; yields it, too."""
    store = open_store(folder)
    key, token = keys.add(store, "somebody")
    listening = listener()
    listening.set_inheritable(True)
    words = [*before, sys.executable, "-c", APART, str(folder), str(listening.fileno())]
    path = [str(Path(__file__).parent), *sys.path]
    process = subprocess.Popen(words, pass_fds=[listening.fileno()], env={"PYTHONPATH": ":".join(path), "PATH": ""})
    try:
        here = Served(store, settings_of(), key, token, listening.getsockname()[1])
        yield here, process
        here.close()
    finally:
        process.kill()
        process.wait()
        listening.close()


def wait(holds, seconds: float = 20.0) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, "did not happen in time"
        time.sleep(0.02)


@contextmanager
def answering(app: Any, connection: type) -> Iterator[tuple[str, int]]:
    """Answer on a free port by connections of a kind; the address is yielded once it is listened at."""
    bound = listener()
    server = uvicorn.Server(uvicorn.Config(app, http=connection, log_level="critical", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
    thread.start()
    wait(lambda: server.started)
    yield bound.getsockname()
    server.should_exit = server.force_exit = True
    thread.join(20)
    bound.close()


def until_closed(connection: socket.socket) -> bytes:
    """Return what a connection is sent until its other side closes it."""
    connection.settimeout(10)
    got = b""
    with suppress(ConnectionResetError):
        while more := connection.recv(65536):
            got += more
    return got
