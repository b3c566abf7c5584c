"""How one contestant runs alone: a job in, a result out, a process of its own for each.

Owns the settings of a benchmark and what crosses the border between processes. Imports no torch, so the process that
waits stays small and nothing of it is inside anybody's peak memory.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
Row = dict[str, Any]
"""`pair_id`, `prompt_id`, `prompt_ids`, `chosen_ids`, `rejected_ids` of a tokenised pair."""
Result = dict[str, Any]

MODULES = {
    "prepare": "contestant_tiebreak",
    "tiebreak": "contestant_tiebreak",
    "tiebreak_cached": "contestant_tiebreak",
    "trl_default": "contestant_trl",
    "trl_tuned": "contestant_trl",
    "trl_tuned_grouped": "contestant_trl",
    "sgemm": "machine",
    "synthesize": "scaling",
    "scale": "scaling",
}
"""Kind of job -> the module beside this file whose `run` does it."""
CONTESTANTS = tuple(kind for kind, module in MODULES.items() if kind != "prepare" and module.startswith("contestant"))


@dataclass(frozen=True)
class Settings:
    """What was asked for; part of the result."""

    data: str
    model: str
    method: str
    max_length: int
    pairs_per_step: int
    steps: int
    rounds: int
    learning_rate: float
    group_pool: int
    grouped_steps: int
    scaling_steps: int
    sgemm_sizes: tuple[int, ...]
    threads: int | None
    dtype: str = "float32"


@dataclass(frozen=True)
class Job:
    """One piece of work for one process: `folder` is everybody's, `scratch` is empty and its own.

    `warmup` goes before the steps, unmeasured; `facts` is what the `prepare` job found out.
    """

    kind: str
    folder: str
    settings: Settings
    scratch: str = ""
    rows: list[Row] = field(default_factory=list)
    warmup: list[Row] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)


class JobError(Exception):
    """A process ended without a result."""


def call(job: Job) -> Result:
    """Do a job in a fresh process and return its result; raises JobError with the last lines it wrote."""
    with tempfile.TemporaryDirectory(dir=job.folder) as scratch:
        task, answer, log = (Path(scratch) / name for name in ("job.json", "result.json", "log.txt"))
        task.write_text(json.dumps(asdict(job) | {"scratch": scratch, "answer": str(answer)}), encoding="utf-8")
        with log.open("wb") as sink:
            done = subprocess.run(
                [sys.executable, str(HERE / "throughput.py"), "--worker", str(task)],
                env=_environment(job, Path(scratch)),
                stdout=sink,
                stderr=subprocess.STDOUT,
                check=False,
            )
        if done.returncode or not answer.exists():
            raise JobError(f"{job.kind}: {_cause(done.returncode)}\n{_tail(log)}")
        result: Result = json.loads(answer.read_text(encoding="utf-8"))
        return result


def work(task: Path) -> None:
    """Do the job of a file and write the result to the file that it names; runs inside the fresh process."""
    content = json.loads(task.read_text(encoding="utf-8"))
    answer = Path(content.pop("answer"))
    content["settings"] = Settings(**content["settings"])
    job = Job(**content)
    result = importlib.import_module(MODULES[job.kind]).run(job)
    answer.write_text(json.dumps(result), encoding="utf-8")


def _environment(job: Job, scratch: Path) -> dict[str, str]:
    """Return the environment of a job: the threads asked for and, for all but `prepare`, an empty cache of its own.

    A first run may not find what another process kept, such as reference values. Models of a hub stay where they are.
    """
    environment = dict(os.environ) | {"HF_HUB_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "false"}
    if job.settings.threads is not None:
        environment |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(job.settings.threads))
    if job.kind != "prepare":
        usual = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        environment.setdefault("HF_HOME", str(usual / "huggingface"))
        environment["XDG_CACHE_HOME"] = str(scratch / "cache")
    return environment


def _cause(code: int) -> str:
    if code < 0:
        name = signal.Signals(-code).name
        return f"ended by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    return f"ended with exit code {code}"


def _tail(log: Path, lines: int = 15) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
