"""The socket of the service."""

from __future__ import annotations

import socket

from tiebreak.service.listening import Address


def test_an_answer_in_two_pieces_does_not_wait_for_the_first_to_be_acknowledged():
    """On loopback that is 40 ms of each request."""
    with Address(port=0).bound() as listening, socket.create_connection(listening.getsockname()):
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
