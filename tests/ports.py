"""Ports of this machine for processes that tests start."""

from __future__ import annotations

import socket


def free_port() -> int:
    """Return a port that nobody listened at a moment ago."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
