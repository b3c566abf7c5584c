"""The body of a request that is no file: what it may be, and its reading, which holds up nobody else.

Owns how bytes become what a handler is given: a large body is read in a thread, and of each key one at a time. What its
fields mean is known to the contract.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any, TypeVar

import anyio.to_thread
from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.types import Receive, Scope

from tiebreak.service.contract import refusal_of
from tiebreak.service.door import asker, service_of
from tiebreak.service.refusals import Refusal

MOST_VALUES = 20_000
"""Values in a body: many times its bytes when they are read."""

LARGE = 64 * 2**10
"""Bytes of a body whose reading others would notice."""

_DEEP = b"[" * 1000

B = TypeVar("B", bound=BaseModel)


class Reading(APIRoute):
    """An address whose handler is given what a body says, read as here."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return what answers a request."""
        handle, field = super().get_route_handler(), self.body_field
        if field is None:
            return handle

        async def handler(request: Request) -> Response:
            return await handle(_Asking(request.scope, request.receive, field.field_info.annotation))

        return handler


class _Asking(Request):
    """A request whose JSON is of its form, or refused."""

    def __init__(self, scope: Scope, receive: Receive, kind: Any) -> None:
        super().__init__(scope, receive)
        self._kind = kind

    async def json(self) -> BaseModel:
        body = await self.body()
        read: Callable[[], BaseModel] = partial(parsed, self._kind, body, self.path_params)
        if len(body) <= LARGE:
            return read()
        key = await anyio.to_thread.run_sync(asker, self)
        async with service_of(self).reading[key.id]:
            return await anyio.to_thread.run_sync(read)


def parsed(kind: type[B], body: bytes, place: Mapping[str, str] | None = None) -> B:
    """Return what a body says; raises Refusal where it is no JSON, too much, or not of this form.

    A field that the address says, too, may be left out, and says the same where it is not.
    """
    require_few_values(body)
    try:
        said = json.loads(body.decode("utf-8-sig"), object_pairs_hook=_once)
    except UnicodeDecodeError:
        raise _no_json("no UTF-8") from None
    except json.JSONDecodeError:
        raise _no_json("no JSON") from None
    except RecursionError:
        raise _no_json("too deep") from None
    except ValueError:
        raise _no_json("no JSON that is read here: a number has too many digits") from None
    if isinstance(said, dict):
        for name, told in (place or {}).items():
            if name in kind.model_fields and said.setdefault(name, told) != told:
                raise Refusal(
                    400, f"{name}: is another than {told[:80]!r}, which the address says; say it once", param=name,
                    code="invalid_value",
                )  # fmt: skip
    try:
        return kind.model_validate(said)
    except ValidationError as error:
        raise refusal_of([{**one, "loc": ("body", *one["loc"])} for one in error.errors(include_url=False)]) from None


def require_few_values(body: bytes) -> None:
    """Raise Refusal for JSON of more values than a request has, before any is made."""
    if len(body) <= MOST_VALUES:
        return
    plain = body.replace(rb"\\", b"").replace(rb"\"", b"")  # each quote that is left begins or ends a text
    is_much = plain.count(b'"') > 4 * MOST_VALUES + 2  # of each value two texts at most: its name, and what it is
    bare = b"" if is_much else b"".join(plain.split(b'"')[::2])
    if _DEEP in bare:
        raise _no_json("too deep")
    if is_much or sum(bare.count(mark) for mark in (b",", b"[", b"{")) > MOST_VALUES:
        raise Refusal(400, f"The body of the request has more than {MOST_VALUES} values.", code="invalid_value")


def _no_json(what: str) -> Refusal:
    return Refusal(400, f"The body of the request is {what}.", code="invalid_json")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object; raises Refusal where it says one name twice."""
    if len(found := dict(pairs)) != len(pairs):
        name = Counter(name for name, _ in pairs).most_common(1)[0][0][:80]
        name = name.encode("ascii", "backslashreplace").decode()
        raise Refusal(400, f"{name}: is there twice.", param=name, code="invalid_value")
    return found
