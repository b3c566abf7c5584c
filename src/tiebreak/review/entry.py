"""What every request of a review passes: which host it names, who asks, how long a form may be, what a browser may do.

Owns the cookie, the token against forged forms, and the headers of every answer. Nothing of it is kept on the server,
so that people go on where they were after it was ended and started anew.
"""

from __future__ import annotations

import hmac
import ipaddress
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qs

import anyio
from fastapi import Request, Response
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tiebreak.review.desk import Review

MOST_BODY = 64 * 2**10
"""Bytes of a form. The longest note, in letters of which each is sent as twelve, fits."""

MOST_FIELDS = 100
FORM_SECONDS = 15.0
"""In which a form comes in whole, as the head before it does: who sends it by drops holds a connection for nothing."""

POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'none'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'"
)

_HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
_OWN_HEADERS = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]

NOBODY = "There is nothing at this address. Open the link that was given to you."
"""What an unknown token, a foreign one and none at all are answered: whoever asks cannot tell."""


class Entry:
    """Lets in what names this machine, so that no page elsewhere reaches it by a name of its own; names what a browser
    may do with the answer.
    """

    def __init__(self, app: ASGIApp, hosts: Sequence[str]) -> None:
        self._app = app
        self._names = {"localhost", *(host.lower() for host in hosts)}
        self._any_address = any(is_everywhere(host) for host in hosts)
        if self._any_address:
            self._names |= {socket.gethostname().lower(), socket.getfqdn().lower()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer in one line that it is for another."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *_OWN_HEADERS]}
            await send(message)

        named = [value for name, value in scope["headers"] if name == b"host"]
        known = len(named) == 1 and self._is_ours(named[0].decode("latin-1"))
        told = PlainTextResponse("This server answers by another name: open the link as it was printed.\n", 421)
        await (self._app if known else told)(scope, receive, guarded)

    def _is_ours(self, named: str) -> bool:
        host = named.rpartition(":")[0] if named.rpartition(":")[2].isdigit() else named
        host = host.removeprefix("[").removesuffix("]").lower()
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return host in self._names
        # A name can be made to mean this machine; an address cannot be made to mean another one.
        return self._any_address or address.is_loopback or host in self._names


def is_everywhere(host: str) -> bool:
    """Whether a host means all addresses of this machine."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


@dataclass(frozen=True)
class Guest:
    """Whoever asks: by which name votes are kept, and what their forms must bring with them."""

    name: str
    pass_word: str


def person_of(request: Request, review: Review) -> Guest:
    """Return who asks, by their cookie; raises HTTPException (404) where that is nobody."""
    token = request.cookies.get(_cookie(request, "person"), "")
    name = review.person(token) if token else None
    if name is None:
        raise HTTPException(404, NOBODY)
    return Guest(name, _pass_word(token))


def owner_only(request: Request, review: Review) -> None:
    """Raise HTTPException (404) unless the owner of the review asks."""
    token = request.cookies.get(_cookie(request, "owner"), "")
    if not (token and review.is_owner(token)):
        raise HTTPException(404, NOBODY)


def remember(request: Request, response: Response, token: str, *, owner: bool) -> None:
    """Let a browser bring a token from now on: to this server alone, out of reach of scripts."""
    response.set_cookie(
        _cookie(request, "owner" if owner else "person"),
        token,
        path="/",
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )


def _cookie(request: Request, who: str) -> str:
    """Browsers tell hosts apart and not ports: two reviews on one machine have two cookies."""
    return f"tiebreak-{who}-{(request.scope.get('server') or ('', 0))[1]}"


def _pass_word(token: str) -> str:
    return hmac.digest(token.encode("utf-8", "replace"), b"a form of this review", "sha256").hex()


@dataclass(frozen=True)
class Form:
    """The fields that a form brought; of a name that came several times, all of them."""

    fields: Mapping[str, Sequence[str]]

    def one(self, name: str) -> str:
        """Return the last value of a field; "" where it did not come."""
        return self.fields.get(name, [""])[-1]

    def many(self, name: str) -> tuple[str, ...]:
        """Return all values of a field."""
        return tuple(self.fields.get(name, ()))

    def check(self, guest: Guest) -> None:
        """Raise HTTPException (403) unless the form stands on a page that was made for whoever sends it."""
        if not hmac.compare_digest(self.one("csrf").encode(), guest.pass_word.encode()):
            raise HTTPException(403, "This form is not of your page: reload the page and try again.")


async def form_of(request: Request) -> Form:
    """Return the form of a request; raises HTTPException for one that is too long (413) or none (415, 400)."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise HTTPException(415, "A form of this page is sent as application/x-www-form-urlencoded.")
    body = bytearray()
    try:
        with anyio.fail_after(FORM_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MOST_BODY:
                    told = f"The form is longer than {MOST_BODY} bytes: shorten the note. Nothing was kept."
                    raise HTTPException(413, told)
    except TimeoutError:
        told = "The form came in too slowly, and nothing of it was kept; send it again."
        raise HTTPException(408, told, {"connection": "close"}) from None
    try:
        fields = parse_qs(body.decode("ascii"), keep_blank_values=True, errors="replace", max_num_fields=MOST_FIELDS)
    except ValueError:
        raise HTTPException(400, "The form cannot be read. Nothing was kept.") from None
    return Form(fields)
