"""Where a review is served, and until when.

Owns that one server at a time has a review's folder. What an address is, and how a server ends, is the service's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

import uvicorn

from tiebreak.files import locked
from tiebreak.review.desk import Review
from tiebreak.review.pages import create_app
from tiebreak.service.listening import GRACE_SECONDS, Address, ending_quietly


@dataclass(frozen=True)
class Open:
    """A review that is about to be served."""

    url: str
    links: dict[str, str]
    """By annotator."""
    owner: str
    is_here: bool
    """Whether nobody else in the network reaches it."""


def serve(review: Review, address: Address, say: Callable[[Open], None]) -> None:
    """Serve until a signal asks for an end; `say` is told where, once requests are taken.

    Raises ConfigError for an address that cannot be used, RunError where another server has the folder.
    """
    with locked(review.folder, otherwise="stop that server"), contextlib.closing(address.bound()) as listener:
        told = uvicorn.Config(
            create_app(review, (address.host,)),
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
        url = address.url_of(listener)
        say(Open(url, review.links(url), review.owner_link(url), address.is_here))
        with ending_quietly():
            uvicorn.Server(told).run(sockets=[listener])
