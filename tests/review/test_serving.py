"""Connections of a review: who says nothing, or a little at a time, keeps nobody else out."""

from __future__ import annotations

import contextlib
import socket
import time

import pytest

pytest.importorskip("fastapi", reason="the extra 'serve' is not installed")


from reviewed import items_of, review_of, token_of
from served import answering, until_closed
from tiebreak.review import entry, serving
from tiebreak.review.pages import create_app
from tiebreak.service import listening


@pytest.fixture
def review(tmp_path):
    return review_of(tmp_path / "r", items_of(3))


@pytest.fixture
def place(review):
    with answering(create_app(review), serving.Connection) as place:
        yield place


def test_too_many_connections_are_told_so_in_one_line_of_text(place, monkeypatch):
    monkeypatch.setattr(listening, "MOST_CONNECTIONS", 3)
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(socket.create_connection(place)).sendall(b"GET")
        time.sleep(0.2)
        with socket.create_connection(place) as one_more:
            head, _, body = until_closed(one_more).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503")
    assert b"text/plain" in head
    assert (body.count(b"\n"), b"{" in body) == (1, False)


def test_heads_that_do_not_come_are_given_up_and_others_are_answered(place, monkeypatch, review):
    monkeypatch.setattr(listening, "MOST_CONNECTIONS", 3)
    monkeypatch.setattr(listening, "HEAD_SECONDS", 0.3)
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(socket.create_connection(place)).sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
        time.sleep(1.2)
        with socket.create_connection(place) as one_more:
            asked = f"GET /r/{token_of(review, 'ann')} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            one_more.sendall(asked.encode())
            assert until_closed(one_more).startswith(b"HTTP/1.1 303")


def test_a_form_that_comes_slowly_is_given_up_and_its_connection_closed(place, monkeypatch):
    monkeypatch.setattr(entry, "FORM_SECONDS", 0.5)
    head = "POST /choose HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    with socket.create_connection(place) as slow:
        slow.sendall(f"{head}Content-Length: 1000\r\n\r\nchoice=".encode())
        since = time.monotonic()
        answer = until_closed(slow)
        assert time.monotonic() - since < 4
    assert answer.startswith(b"HTTP/1.1 408")
    assert answer.partition(b"\r\n\r\n")[2].count(b"\n") == 1


def test_the_server_of_a_review_takes_such_connections(review, monkeypatch):
    given = []
    monkeypatch.setattr(serving.uvicorn, "Config", lambda app, **more: given.append(more["http"]))
    monkeypatch.setattr(serving.uvicorn, "Server", lambda _: type("Server", (), {"run": lambda *_, **__: None})())
    serving.serve(review, listening.Address(port=0), lambda _: None)
    assert given == [serving.Connection]
