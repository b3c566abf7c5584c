"""`tiebreak serve` as a process of its own, as its operator starts it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai

from tiebreak.config.yaml_text import write_yaml
from tiebreak.service import keys
from tiebreak.service.store import Store, open_store


@dataclass
class Operated:
    """A service that its operator started, and a key of it."""

    folder: Path
    config: Path
    token: str
    process: subprocess.Popen[str] | None = None
    url: str = ""

    @property
    def store(self) -> Store:
        return Store(self.folder)

    def client(self, **told: Any) -> openai.OpenAI:
        return openai.OpenAI(base_url=self.url, api_key=self.token, **told)

    def start(self, **environment: str) -> None:
        """Start it, or start it again; its port is another one each time."""
        words = [sys.executable, "-m", "tiebreak", "serve", "--dir", str(self.folder), "--config", str(self.config)]
        log = (self.folder.parent / "server.log").open("a")
        with log:
            self.process = subprocess.Popen(
                [*words, "--port", "0", "--json"],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, **environment},
            )
        said = ""
        while not said.endswith("}\n"):
            line = self.process.stdout.readline()
            assert line, (self.folder.parent / "server.log").read_text()
            said += line
        self.url = json.loads(said)["url"]

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@contextmanager
def operated(folder: Path, models: Mapping[str, Any], **told: Any) -> Iterator[Operated]:
    """Serve models from a folder until the block ends; jobs that are left are ended with it."""
    config = folder / "serve.yaml"
    config.write_text(write_yaml({"models": dict(models)} | told), encoding="utf-8")
    _, token = keys.add(open_store(folder / "service"), "me")
    service = Operated(folder / "service", config, token)
    service.start()
    try:
        yield service
    finally:
        for row in service.store.rows("select id from jobs where finished is null"):
            service.client().fine_tuning.jobs.cancel(row["id"])
        service.process.terminate()
        service.process.communicate(timeout=60)
