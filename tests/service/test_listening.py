"""The socket of the service."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import threading
import time
from types import SimpleNamespace

import pytest

from served import answering, until_closed
from tiebreak.service import listening
from tiebreak.service.listening import Address, Connection


def test_an_answer_in_two_pieces_does_not_wait_for_the_first_to_be_acknowledged():
    """On loopback that is 40 ms of each request."""
    with Address(port=0).bound() as listening, socket.create_connection(listening.getsockname()):
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def app(_, receive, send):
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})


@pytest.fixture
def place():
    with answering(app, Connection) as place:
        yield place


@pytest.mark.parametrize("first", [b"", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"])
def test_a_head_that_comes_slowly_is_given_up(place, monkeypatch, first):
    monkeypatch.setattr(listening, "HEAD_SECONDS", 0.5)
    with socket.create_connection(place) as slow:
        slow.sendall(first + b"GET / HTTP/1.1\r\nX-")
        since = time.monotonic()
        assert until_closed(slow).count(b"204") == (1 if first else 0)
        assert time.monotonic() - since < 4


def test_too_many_connections_are_told_so_in_the_form_of_every_error(place, monkeypatch):
    monkeypatch.setattr(listening, "MOST_CONNECTIONS", 3)
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(socket.create_connection(place)).sendall(b"GET")
        time.sleep(0.2)
        with socket.create_connection(place) as one_more:
            head, _, body = until_closed(one_more).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503")
    assert json.loads(body)["error"]["code"] == "overloaded"


@pytest.mark.parametrize("asked", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("early", [True, False], ids=["once it says where it is", "as it begins"])
def test_a_signal_that_comes_before_the_server_listens_to_signals_ends_it(asked, early):
    def come() -> None:
        signal.raise_signal(asked)

    class Beginning:
        should_exit = False

        def run(self, sockets):
            assert sockets == [None]
            if not early:
                come()

    server, before = Beginning(), signal.getsignal(asked)
    listening.run(server, None, come if early else lambda: None)
    assert server.should_exit
    assert signal.getsignal(asked) is before


def test_a_server_whose_words_nobody_reads_can_be_asked_to_end():
    reader, writer = os.pipe()
    server = SimpleNamespace(should_exit=False, run=lambda sockets: pytest.fail("it was asked to end"))

    def say() -> None:
        while True:
            os.write(writer, bytes(2**16))  # it waits once the pipe is full

    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
    listening.run(server, None, say)
    assert server.should_exit
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize("asked", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("when", ["it begins", "it ends", "its words break a pipe"])
def test_a_signal_that_comes_while_a_server_takes_up_signals_or_leaves_them_is_no_error(asked, when, monkeypatch):
    real, before = signal.signal, {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
    is_due = when == "it begins"

    def come():
        if is_due and signal.getsignal(asked) is not before[asked]:
            signal.raise_signal(asked)

    def say():
        nonlocal is_due
        is_due = True
        if when == "its words break a pipe":
            raise BrokenPipeError

    server = SimpleNamespace(should_exit=False, run=lambda sockets: come())
    monkeypatch.setattr(signal, "signal", lambda *told: (real(*told), come())[0])
    with pytest.raises(BrokenPipeError) if "pipe" in when else contextlib.nullcontext():
        listening.run(server, None, say)
    assert server.should_exit or "pipe" in when
    assert {one: signal.getsignal(one) for one in before} == before


@pytest.mark.parametrize("asked", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_comes_twice_while_a_server_is_left_is_heard_once(asked):
    def say():
        try:
            signal.raise_signal(asked)
        finally:
            signal.raise_signal(asked)
            heard.append("it leaves")

    server, heard = SimpleNamespace(should_exit=False, run=lambda sockets: pytest.fail("it was asked to end")), []
    listening.run(server, None, say)
    assert server.should_exit
    assert heard == ["it leaves"]
