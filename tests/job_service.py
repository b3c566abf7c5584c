"""A job service without its addresses: a store, a tiny model that may be asked for, jobs, and who carries them out."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import safe_open

from tiebreak.config import Config, build_config
from tiebreak.config.service import ServeConfig
from tiebreak.service import jobs, shelf, translate
from tiebreak.service.contract import JobRequest
from tiebreak.service.jobs import Job
from tiebreak.service.launching import Local
from tiebreak.service.store import Store, open_store
from tiebreak.service.supervisor import Pace, Supervisor

WORDS = ("cat", "dog", "mat", "park", "sun", "tree", "road", "lake", "bird", "fish", "stone", "cloud")
PATIENCE = 900.0
QUICK = Pace(look_seconds=0.05, grace_seconds=20.0, pauses=(0.05,))


def pair(index: int) -> dict[str, Any]:
    """One preference as OpenAI's files have it."""
    words = [WORDS[(index * factor + shift) % len(WORDS)] for factor, shift in ((1, 0), (5, 3), (7, 1), (11, 2))]
    return {
        "input": {"messages": [{"role": "user", "content": f"{index} is the {' '.join(words[:2])} here"}]},
        "preferred_output": [{"role": "assistant", "content": f"yes the {words[2]}"}],
        "non_preferred_output": [{"role": "assistant", "content": f"no the {words[3]} {words[0]}"}],
    }


def lines(numbers: range) -> bytes:
    """Preferences, one a line."""
    return "".join(json.dumps(pair(number)) + "\n" for number in numbers).encode()


def model_settings(model: Path) -> dict[str, Any]:
    """What the operator says of a tiny model: checkpoints every second step, little that is measured."""
    return {
        "model": {"name": str(model), "device": "cpu"},
        "data": {"heldout_share": 0.3},
        "adapter": {"kind": "lora", "rank": 4, "alpha": 8.0, "dropout": 0.1},
        "loss": {"beta": 0.3},
        "reference": {"store": "off"},
        "training": {
            "epochs": 2,
            "pairs_per_step": 4,
            "learning_rate": 5e-3,
            "token_budget": 192,
            "checkpoint_steps": 2,
            "keep_checkpoints": 2,
        },
        "evaluation": {
            "num_samples": 2,
            "max_new_tokens": 4,
            "probes": 3,
            "drawn_prompts": 2,
            "num_draws": 2,
            "neutral_probe": False,
        },
        "signals": {"looks": 0},
        "output": {"trackers": []},
    }


@dataclass
class Service:
    """A folder of the service, and one key's files and jobs in it."""

    store: Store
    settings: ServeConfig
    models: Mapping[str, Config]
    launcher: Any = field(default_factory=Local)
    key: str = "key-one"

    def upload(self, content: bytes, name: str = "pairs.jsonl", key: str | None = None) -> str:
        source = self.store.folder / "upload"
        source.write_bytes(content)
        return shelf.keep(self.store, key or self.key, shelf.UPLOADED, name, source).id

    def create(self, content: bytes | None = None, *, key: str | None = None, **body: Any) -> Job:
        """Make a job, as its address does."""
        key = key or self.key
        body.setdefault("training_file", self.upload(lines(range(33)) if content is None else content, key=key))
        asked = JobRequest.model_validate({"model": "tiny", "method": {"type": "dpo"}} | body)
        accepted, resolved = translate.accepted(self.store, asked, self.models, self.settings, key)
        job = jobs.create(self.store, key, accepted, resolved, hashlib.sha256(json.dumps(body).encode()).hexdigest())
        translate.lay_out(self.store, job)
        return job

    def supervisor(self, pace: Pace = QUICK) -> Supervisor:
        return Supervisor(self.store, self.settings, self.models, self.launcher, pace)

    def job(self, job: Job) -> Job:
        return jobs.find(self.store, job.id)

    def folder(self, job: Job) -> Path:
        return self.store.job_folder(job.id)

    def until(self, supervisor: Supervisor, job: Job, *states: str) -> Job:
        """Let the supervisor look again and again until a job is in one of these states."""
        return self.when(supervisor, lambda: (found := self.job(job)).state in states and found)

    def when(self, supervisor: Supervisor, found: Callable[[], Any]) -> Any:
        """Let the supervisor look again and again until something is found, and return that."""
        deadline = time.monotonic() + PATIENCE
        while not (seen := found()):
            assert time.monotonic() < deadline, [
                (row["state"], row["error"]) for row in self.store.rows("select * from jobs")
            ]
            supervisor.look()
            time.sleep(supervisor.pace.look_seconds)
        return seen

    def events(self, job: Job) -> list[dict[str, Any]]:
        """Events of a job, oldest first."""
        return [dict(row) for row in self.store.rows("select * from events where job = ? order by seq", job.id)]

    def messages(self, job: Job) -> list[str]:
        return [event["message"] for event in self.events(job)]

    def log(self, job: Job) -> str:
        return (self.folder(job) / "worker.log").read_text(errors="replace")


def service(folder: Path, model: Path, launcher: Any = None, **settings: Any) -> Service:
    """A service that offers one tiny model."""
    told = model_settings(model)
    config = build_config(told, where="tiny")
    serve = ServeConfig.model_validate({"models": {"tiny": told}} | settings)
    return Service(open_store(folder), serve, {"tiny": config}, launcher or Local())


def weights(folder: Path) -> dict[str, tuple[str, tuple[int, ...], str]]:
    """Type, shape and digest of the bytes of every tensor in a folder."""
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "np") as file:
            for name in file.keys():  # noqa: SIM118 - the file is no mapping
                array = file.get_tensor(name)
                found[name] = (str(array.dtype), array.shape, hashlib.sha256(array.tobytes()).hexdigest())
    assert found
    return found
