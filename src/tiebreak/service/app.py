"""The service as a program of the web: all addresses, and the threads behind them.

Owns what begins and ends with the server.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Mapping

from fastapi import APIRouter, FastAPI
from starlette.types import ASGIApp

import tiebreak
from tiebreak.config import Config
from tiebreak.config.service import ServeConfig
from tiebreak.service import answering, fine_tuning, parts, uploads
from tiebreak.service.chat import Chat
from tiebreak.service.door import PREFIXES, Edge, Service, answer_errors
from tiebreak.service.hooks import telling
from tiebreak.service.retention import sweeping
from tiebreak.service.store import Store
from tiebreak.service.supervisor import Supervisor, launcher_of
from tiebreak.service.upstream import Upstream

UPSTREAM_KEY = "TIEBREAK_UPSTREAM_KEY"
"""Environment variable that holds the key of the server that answers chats, never kept."""


def create_app(store: Store, settings: ServeConfig, configs: Mapping[str, Config]) -> ASGIApp:
    """Return the service over an open store; jobs are carried out for its lifespan, and go on in the next one."""
    supervisor = Supervisor(store, settings, configs, launcher_of(settings.launcher, store))
    limits, serving = settings.limits, settings.serving
    chat = Chat(store.folder / "chat.log", most_waiting=limits.chat_queue, idle_seconds=60 * limits.chat_idle_minutes)
    upstream = serving.upstream and Upstream(
        serving.upstream, loads=serving.lora == "load", key=os.environ.get(UPSTREAM_KEY)
    )

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        with sweeping(store, settings), telling(store, settings):
            supervisor.start()
            try:
                yield
            finally:
                supervisor.close()
                await chat.close()
                if upstream:
                    await upstream.close()

    app = FastAPI(
        title="tiebreak",
        version=tiebreak.__version__,
        description="Fine-tuning jobs, files, models and chat as OpenAI's client speaks them.",
        lifespan=lifespan,
        docs_url=None,  # both pages load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,  # it would lead where the header Host says
    )
    app.state.service = Service(store, settings, configs, chat, upstream or None, supervisor.wake)
    answer_errors(app)
    for prefix in PREFIXES:
        router = APIRouter()
        for room in (fine_tuning, uploads, parts, answering):
            router.include_router(room.routes())
        app.include_router(router, prefix=prefix, include_in_schema=prefix == PREFIXES[0])
    return Edge(app)
