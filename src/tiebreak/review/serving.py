"""Where a review is served, and until when.

Owns that one server at a time has a review's folder, and the name by which its links go. What an address is, how long a
connection may say nothing, and how a server ends, is the service's.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from dataclasses import dataclass

import uvicorn

from tiebreak.folders import locked
from tiebreak.review.desk import Review
from tiebreak.review.entry import is_everywhere
from tiebreak.review.pages import create_app
from tiebreak.service import listening
from tiebreak.service.listening import GRACE_SECONDS, Address


@dataclass(frozen=True)
class Open:
    """A review that is about to be served."""

    url: str
    links: dict[str, str]
    """By annotator."""
    owner: str
    is_here: bool
    """Whether nobody else in the network reaches it."""
    name: str = ""
    """What this machine is called in the links, where it listens at all of its addresses; others must know the name."""


class Connection(listening.Connection):
    """A connection as the service has it, given up where no head of a request comes; too many are told so as text."""

    kind = "text/plain"

    def too_many(self) -> bytes:
        """Return what one connection too many is answered."""
        return b"Too many connections are open; try again in a moment.\n"


def serve(review: Review, address: Address, say: Callable[[Open], None]) -> None:
    """Serve until a signal asks for an end; `say` is told where, once requests are taken.

    Raises ConfigError for an address that cannot be used, RunError where another server has the folder.
    """
    with locked(review.folder, otherwise="stop that server"), contextlib.closing(address.bound()) as listener:
        host, port = listener.getsockname()[:2]
        told = uvicorn.Config(
            create_app(review, (address.host, host)),
            http=Connection,
            backlog=listening.BACKLOG,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
        name = socket.gethostname() if is_everywhere(host) else ""
        url = f"http://{name}:{port}" if name else address.url_of(listener)
        there = Open(url, review.links(url), review.owner_link(url), address.is_here, name)
        listening.run(uvicorn.Server(told), listener, lambda: say(there))
