"""The addresses of models and of chats with them.

Owns what weights a name stands for when it is asked something, and who answers: a process of this service, or the
operator's server.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool

from tiebreak.service import catalog, shown
from tiebreak.service.bodies import Reading
from tiebreak.service.catalog import Offered
from tiebreak.service.chat import while_there
from tiebreak.service.completions import ChatRequest
from tiebreak.service.door import AKey, AService, Service, only
from tiebreak.service.keys import Key
from tiebreak.service.refusals import Refusal
from tiebreak.service.upstream import Upstream

GONE = 499
"""Of an answer that nobody is there to read, as proxies count it."""

ADAPTER = "adapter_config.json"
"""Stands in the folder of an artefact that is an adapter."""


def routes() -> APIRouter:
    """Return the addresses."""
    router = APIRouter(route_class=Reading)
    router.get("/models", tags=["models"])(listed)
    router.get("/models/{model}", tags=["models"])(retrieve)
    router.delete("/models/{model}", tags=["models"])(delete)
    router.post("/chat/completions", tags=["chat"])(complete)
    router.post("/deployments/{model}/chat/completions", include_in_schema=False)(complete)  # as Azure's client asks
    return router


def listed(request: Request, service: AService, key: AKey) -> dict[str, Any]:
    """List the models that are offered, and those that jobs of this key made."""
    only(request)
    found = catalog.listed(service.store, service.models, service.settings, key.id)
    return shown.listed([one.shown() for one in found], has_more=False)


def retrieve(model: str, request: Request, service: AService, key: AKey) -> dict[str, Any]:
    """Say whose a model is, and since when it is there."""
    only(request)
    return _find(service, key, model).shown()


def delete(model: str, request: Request, service: AService, key: AKey) -> dict[str, Any]:
    """Take a model that a job made out of the list."""
    only(request)
    catalog.delete(service.store, service.models, service.settings, key.id, model)
    return {"id": model, "object": "model", "deleted": True}


def _find(service: Service, key: Key, model: str) -> Offered:
    return catalog.find(service.store, service.models, service.settings, key.id, model)


async def complete(asked: ChatRequest, request: Request, service: AService, key: AKey) -> Response:
    """Answer a chat, whole or as a stream."""
    only(request)
    model = await run_in_threadpool(_find, service, key, asked.model)
    prompt, told = prompt_tokens(asked), asked.asked
    taken = service.meters.take_tokens(key, service.settings, prompt + told["n"] * told["max_tokens"])
    settle = partial(service.meters.settle_tokens, taken)
    try:
        if service.upstream is not None:
            body = named(await request.body(), asked.model) if "model" in request.path_params else await request.body()
            passed = await _passed_on(service.upstream, model, asked.model, body)
            if passed.status_code >= 400:
                settle(0)
            return passed
        held = weights(service, model)
        if asked.stream:
            stream = await while_there(request.is_disconnected, service.chat.stream(key.id, held, asked, settle))
            if stream is not None:
                return StreamingResponse(stream, media_type="text/event-stream")
        else:
            answer = await while_there(request.is_disconnected, service.chat.complete(key.id, held, asked))
            if answer is not None:
                settle(answer["usage"]["total_tokens"])
                return JSONResponse(answer)
    except BaseException:  # nothing came of it
        settle(0)
        raise
    settle(prompt)
    return Response(status_code=GONE)


def prompt_tokens(asked: ChatRequest) -> int:
    """Return about how many tokens a conversation has, before anything counted them: a half of its characters."""
    return sum(len(message.content) // 2 + 4 for message in asked.messages)


def named(body: bytes, model: str) -> bytes:
    """Return the body of a chat that says which model it is for, whether or not it had left that to the address."""
    said = json.loads(body)
    return body if "model" in said else json.dumps({"model": model, **said}).encode()


async def _passed_on(upstream: Upstream, model: Offered, name: str, body: bytes) -> Response:
    if model.step is not None:
        raise Refusal(400, "model: checkpoints are not given to the server that answers here", param="model")
    adapter = model.folder if model.folder and (model.folder / ADAPTER).is_file() else None
    passed = await upstream.passed_on(body, name, adapter)
    return StreamingResponse(passed.body, passed.status, passed.headers)


def weights(service: Service, model: Offered) -> Mapping[str, Any]:
    """Return what the process that answers is told of a model: the operator's, an artefact, or a run's checkpoint."""
    if model.step is not None and model.job is not None:
        return {"kind": "run", "folder": str(service.store.job_folder(model.job) / "run"), "checkpoint": model.step}
    settings = service.models[model.base].model
    if model.folder is not None:
        settings = settings.model_copy(update={"name": str(model.folder), "revision": None})
    return {"kind": "base", "settings": settings.model_dump(mode="json")}
