"""A server on this machine that answers as chat completions do, or as a test wants it to."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Reply:
    """What is sent back: a verdict's text, or any status, body and headers; after a while, where that is wanted."""

    text: str = ""
    status: int = 200
    body: str | bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    usage: tuple[int, int] | None = (100, 10)
    forever: tuple[bytes, bytes] | None = None
    """What is sent in place of all that, and what is sent again and again after it, until nobody is there."""


@dataclass
class Endpoint:
    """The server's address, and every request that it got."""

    url: str
    requests: list[dict[str, Any]]
    headers: list[dict[str, str]]

    @property
    def users(self) -> list[str]:
        """What it was asked, each time."""
        return [request["messages"][-1]["content"] for request in self.requests]


@contextlib.contextmanager
def endpoint(answer: Callable[[str, int], Reply | str]) -> Iterator[Endpoint]:
    """Serve; `answer` is told the question and how many were asked before."""
    requests: list[dict[str, Any]] = []
    headers: list[dict[str, str]] = []
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with lock:
                number = len(requests)
                requests.append(asked)
                headers.append(dict(self.headers))
            told = answer(asked["messages"][-1]["content"], number)
            reply = Reply(told) if isinstance(told, str) else told
            time.sleep(reply.seconds)
            if reply.forever:
                self.close_connection = True
                with contextlib.suppress(OSError):
                    self.wfile.write(reply.forever[0])
                    while reply.forever[1] or self.rfile.read(1):  # which waits until nobody is there
                        self.wfile.write(reply.forever[1])
                        time.sleep(0.05 if len(reply.forever[1]) < 1000 else 0)
                return
            whole = {"choices": [{"message": {"role": "assistant", "content": reply.text}, "finish_reason": "stop"}]}
            if reply.usage:
                whole["usage"] = dict(zip(("prompt_tokens", "completion_tokens"), reply.usage, strict=True))
            said = json.dumps(whole) if reply.body is None else reply.body
            body = said.encode() if isinstance(said, str) else said
            with contextlib.suppress(OSError):  # who asked may be gone
                self.send_response(reply.status)
                for name, value in {"content-type": "application/json", **reply.headers}.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            pass

    with Quiet(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield Endpoint(f"http://127.0.0.1:{server.server_port}/v1", requests, headers)
        finally:
            server.shutdown()
            thread.join()


def part(question: str, name: str) -> str:
    """Return what stands between the marks of a part: conversation, answer A, answer B."""
    opening = next(line for line in question.split("\n") if line.startswith(f"[{name} "))
    closing = opening.replace(f"[{name} ", f"[end of {name} ")
    return question.partition(opening + "\n")[2].partition("\n" + closing)[0]


def longer(question: str, number: int = 0) -> str:
    """Answer honestly: the longer answer is better."""
    one, two = len(part(question, "answer A")), len(part(question, "answer B"))
    return f"Let me see.\n\n**Verdict: {'A' if one > two else 'B' if two > one else 'tie'}**"
