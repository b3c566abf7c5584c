"""Reviews for tests: items whose completions say which they are, people, and a server that can be killed."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tiebreak.records import Message
from tiebreak.review.desk import Review, make
from tiebreak.review.items import Item
from tiebreak.review.order import Turn

SECRETS = ("before", "after", "base", "stories260k", "samples.jsonl", "0.731", "i-0", "trained")
"""What items and sources of these tests hold beside their texts, and what no browser may learn."""


def items_of(num: int, prompt: str = "How do I lay tile {n}?", a: str = "Cut {n} first.", b: str = "Call {n}."):
    """Items whose texts name their number."""
    return [
        Item(f"i-0{n:015x}", (Message("user", prompt.replace("{n}", str(n))),), a.replace("{n}", str(n)),
             b.replace("{n}", str(n)), origin={"model": "stories260k", "score": 0.731})
        for n in range(num)
    ]  # fmt: skip


def review_of(folder: Path, items, people=("ann",), **more) -> Review:
    """A review of items, made as a run's is."""
    source = {"kind": "run", "path": "runs/base-after/samples.jsonl", "a": "before", "b": "after"}
    return make(folder, items, people, source=source, **more)


def turns_of(review: Review, name: str) -> tuple[Turn, ...]:
    """All that a person is shown, in order."""
    return review._turns[name]


def token_of(review: Review, name: str) -> str:
    """The token of a person's link."""
    return review.links("")[name].removeprefix("/r/")


def owner_token(review: Review) -> str:
    """The token of the owner's link."""
    return review.owner_link("").removeprefix("/r/")


def lines_of(review: Review, name: str) -> list[dict]:
    """The lines of a person's log, as they stand on the disk."""
    path = review.folder / "votes" / f"{name}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@dataclass
class Server:
    """The command that serves a review, in a process of its own, on one port for as long as it is asked to be."""

    folder: Path
    port: int = 0
    process: subprocess.Popen | None = None

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it and wait until it says where it answers."""
        words = [sys.executable, "-m", "tiebreak", "review", str(self.folder), "--port", str(self.port), "--json"]
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        said = ""
        while not said.endswith("\n}\n") and (line := self.process.stdout.readline()):
            said += line
        self.process.stdout.close()
        self.port = int(json.loads(said)["url"].rpartition(":")[2])

    def kill(self) -> None:
        """End it as a machine that loses its power would."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@contextlib.contextmanager
def serving(review: Review) -> Iterator[Server]:
    """Serve a review's folder."""
    server = Server(review.folder)
    try:
        server.start()
        yield server
    finally:
        server.kill()


def fields_of(page: str) -> dict[str, str]:
    """The hidden fields of a page's form."""
    return dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', page))
