"""Chats by another server, for load: a vLLM, or whatever speaks as it does.

Owns what is passed on, which is every byte, and which adapters that server was given. Loads no torch. For handlers in
an event loop: every method is to be awaited in one and the same loop.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

import httpx2

from tiebreak.errors import one_line
from tiebreak.secrecy import masked
from tiebreak.service.refusals import Refusal

CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 600.0
_ALREADY = "already been loaded"
"""In what vLLM says of an adapter that it has."""
_KEPT = ("content-type", "retry-after")


@dataclass(frozen=True)
class Passed:
    """What the other server answers, unchanged."""

    status: int
    headers: dict[str, str]
    body: AsyncGenerator[bytes, None]
    """To be read to its end, or closed."""


@final
class Upstream:
    """Another server's `/v1`, which is given the adapters that it is to answer with."""

    def __init__(self, address: str, *, loads: bool = False, key: str | None = None) -> None:
        """`address` ends in /v1, as a client's base_url; `loads`: adapters are pushed, each once."""
        self._address: Final = address.rstrip("/")
        self._loads: Final = loads
        self._given: Final[set[str]] = set()
        self._turn: Final = asyncio.Lock()
        self._client: Final = httpx2.AsyncClient(
            headers={"accept-encoding": "identity"} | ({"authorization": f"Bearer {key}"} if key else {}),
            timeout=httpx2.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS),
            trust_env=False,  # no proxy stands between two servers of one operator unless it is their address
        )

    async def passed_on(self, body: bytes, model: str, adapter: Path | None = None) -> Passed:
        """Return what the server answers to the body of a chat; a `model` that is an adapter is given to it before.

        Raises Refusal where it cannot be reached, and where it does not take the adapter. A server that has lost an
        adapter, since it was started again, is given it once more.
        """
        pushed = adapter is not None and self._loads
        was_given = model in self._given
        if pushed:
            await self._give(model, adapter)
        found = await self._sent("/chat/completions", body)
        if found.status_code == 404 and pushed and was_given:
            await found.aclose()
            self._given.discard(model)
            await self._give(model, adapter)
            found = await self._sent("/chat/completions", body)
        kept = {name: found.headers[name] for name in _KEPT if name in found.headers}
        return Passed(found.status_code, kept, _body_of(found))

    async def close(self) -> None:
        """End all connections."""
        await self._client.aclose()

    async def _give(self, model: str, adapter: Path | None) -> None:
        async with self._turn:
            if model in self._given:
                return
            told = json.dumps({"lora_name": model, "lora_path": str(adapter)}).encode()
            found = await self._sent("/load_lora_adapter", told)
            said = masked(one_line((await found.aread()).decode(errors="replace"), 200))
            await found.aclose()
            if found.status_code >= 400 and _ALREADY not in said:
                raise _unanswered(f"the server that answers chats does not load the adapter ({found.status_code})")
            self._given.add(model)

    async def _sent(self, path: str, body: bytes) -> httpx2.Response:
        request = self._client.build_request(
            "POST", self._address + path, content=body, headers={"content-type": "application/json"}
        )
        try:
            return await self._client.send(request, stream=True)
        except httpx2.HTTPError as error:
            raise _unanswered(f"the server that answers chats cannot be reached ({type(error).__name__})") from None


async def _body_of(response: httpx2.Response) -> AsyncGenerator[bytes, None]:
    try:
        async for some in response.aiter_raw():
            yield some
    finally:
        await response.aclose()


def _unanswered(why: str) -> Refusal:
    return Refusal(503, why, kind="server_error", code="upstream_unavailable")
