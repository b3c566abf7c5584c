"""A run that can be disturbed: its folder, its command line, and what has to hold whatever happened to it.

Owns how the command line is started, cold (a new interpreter) or warm (see warm.py), and what 'the same result' means.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import safe_open

CLOCKS = ("_seconds", "/seconds", "_per_second", "memory_bytes", "token_budget")
"""Ends of metric names that tell of the machine and not of what was learned."""
PATIENCE = 120.0
WORDS = ("cat", "dog", "mat", "park", "sun", "tree", "road", "lake", "bird", "fish", "stone", "cloud")
NUM_STEPS = 12


# ------------------------------------------------------------------------------------------------------------ processes


@dataclass(frozen=True)
class Ended:
    """A process that is over."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line about the failure; fails where there is none, or more, or a stack trace."""
        assert "Traceback" not in self.err, self.err
        lines = [line for line in self.err.splitlines() if line.startswith(("error: ", "stopped: "))]
        assert len(lines) == 1, self.err
        return lines[0]


@dataclass
class Running:
    """A process under way."""

    pid: int
    poll: Callable[[], int | None]
    out: Path
    err: Path

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait_for(self, path: Path) -> None:
        """Return once something is there."""
        self._until(lambda: path.exists() or self.poll() is not None)
        assert path.exists(), self.err.read_text(errors="replace")

    def wait(self) -> Ended:
        """Return when it is over."""
        self._until(lambda: self.poll() is not None)
        code = self.poll()
        assert code is not None
        return Ended(code, self.out.read_text(errors="replace"), self.err.read_text(errors="replace"))

    def _until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > deadline:
                self.signal(9)
                raise AssertionError(f"still running after {PATIENCE} seconds: {self.err.read_text(errors='replace')}")
            time.sleep(0.015)


class Warm:
    """The process that forks (see warm.py), as its only client sees it."""

    def __init__(self, model: Path) -> None:
        self._server = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("warm.py"), model],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        assert self._server.stdout is not None
        assert self._server.stdout.readline() == "ready\n"

    def start(self, job: dict[str, Any]) -> Running:
        pid = self._ask({"start": job})
        assert isinstance(pid, int)
        return Running(pid, lambda: self._ask({"poll": pid}), Path(job["out"]), Path(job["err"]))

    def close(self) -> None:
        self._server.communicate(timeout=PATIENCE)  # it ends where nobody asks any more

    def _ask(self, request: dict[str, Any]) -> int | None:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        return json.loads(self._server.stdout.readline())


def cold(job: dict[str, Any]) -> Running:
    """Start the job as a user does: in a new interpreter."""
    assert job["more_memory"] is job["dies_at"] is None
    with Path(job["out"]).open("w") as out, Path(job["err"]).open("w") as err:
        process = subprocess.Popen(
            [sys.executable, "-m", "tiebreak", *job["words"]],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            cwd=job["folder"],
            env=job["environment"],
        )
    return Running(process.pid, process.poll, Path(job["out"]), Path(job["err"]))


def environment(fault: str | None = None) -> dict[str, str]:
    """One thread, as the tests have it, and no fault but the one asked for."""
    inherited = {name: value for name, value in os.environ.items() if name != "TIEBREAK_FAULT"}
    return inherited | {"OMP_NUM_THREADS": "1", "COLUMNS": "300"} | ({"TIEBREAK_FAULT": fault} if fault else {})


# --------------------------------------------------------------------------------------------------------------- a case


def write_pairs(path: Path, num_prompts: int = 33) -> None:
    """Thirty-three prompts: 23 are trained on, so the last step of an epoch has fewer pairs than the others."""
    rows = []
    for index in range(num_prompts):
        words = [WORDS[(index * factor + shift) % len(WORDS)] for factor, shift in ((1, 0), (5, 3), (7, 1), (11, 2))]
        prompt = f"{index} is the {' '.join(words[:2])} here"
        rows.append({"prompt": prompt, "chosen": f"yes the {words[2]}", "rejected": f"no the {words[3]} {words[0]}"})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def settings(adapter: str = "lora") -> dict[str, Any]:
    """Two epochs of six steps with dropout, a checkpoint every second step, several micro-batches a step."""
    return {
        "model": {"name": "model", "device": "cpu", "chat_template": "template.jinja"},
        "data": {"train": "pairs.jsonl", "heldout_share": 0.3, "store": "prepared"},
        "adapter": {"kind": adapter, "rank": 4, "alpha": 8.0, "dropout": 0.1},
        "loss": {"beta": 0.3},
        "reference": {"store": "store"},
        "training": {
            "epochs": 2,
            "pairs_per_step": 4,
            "learning_rate": 5e-3 if adapter == "lora" else 5e-4,
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
        # Whatever they take: what was looked at must not hang on a clock.
        "signals": {"looks": 4, "prompts": 2, "max_new_tokens": 4, "most_share": None},
        "stopping": {},
        "output": {"dir": "run", "trackers": []},
    }


@dataclass
class Case:
    """A folder with everything that one training needs, named the same in every case: only what happens differs."""

    folder: Path
    start_warm: Callable[[dict[str, Any]], Running]
    settings: dict[str, Any] = field(default_factory=settings)
    num_runs: int = 0

    @property
    def run(self) -> Path:
        return self.folder / "run"

    def lay_out(self, model: Path) -> Case:
        """Put model, data, template and configuration there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        shutil.copytree(model, self.folder / "model")
        shutil.copyfile(model / "chat_template.jinja", self.folder / "template.jinja")
        write_pairs(self.folder / "pairs.jsonl")
        return self.configure()

    def configure(self, **changes: Any) -> Case:
        """Write the configuration, with some keys changed: `section__key=value`."""
        for name, value in changes.items():
            section, key = name.split("__")
            self.settings[section][key] = value
        # JSON is YAML, and needs no second opinion about how numbers are written.
        (self.folder / "cfg.yaml").write_text(json.dumps(self.settings, indent=1), encoding="utf-8")
        return self

    def copied(self, folder: Path) -> Case:
        """Return the same case, as far as it got, in another folder."""
        shutil.copytree(self.folder, folder, symlinks=True, dirs_exist_ok=True)
        return Case(folder, self.start_warm, json.loads(json.dumps(self.settings)))

    def start(
        self,
        *words: str,
        fault: str | None = None,
        as_user: bool = False,
        more_memory: int | None = None,
        dies_at: int | None = None,
        command: tuple[str, ...] = ("train", "cfg.yaml"),
    ) -> Running:
        """Start the command line here.

        `as_user` in a new interpreter, `more_memory` with so many bytes to spare; the file system it touches less than
        `dies_at` times.
        """
        self.num_runs += 1
        job = {
            "words": [*command, *words],
            "folder": str(self.folder),
            "environment": environment(fault),
            "out": str(self.folder / f"out-{self.num_runs}.txt"),
            "err": str(self.folder / f"err-{self.num_runs}.txt"),
            "more_memory": more_memory,
            "dies_at": dies_at,
        }
        return (cold if as_user else self.start_warm)(job)

    def train(self, *words: str, **how: Any) -> Ended:
        """Run the command line to its end."""
        return self.start(*words, **how).wait()

    # ------------------------------------------------------------------------------------------------ what a run left

    @property
    def manifest(self) -> dict[str, Any]:
        return json.loads((self.run / "run.json").read_text(encoding="utf-8"))

    @property
    def checkpoints(self) -> list[Path]:
        """Visible checkpoints, oldest first."""
        return sorted((self.run / "checkpoints").glob("step-*"))

    @property
    def shards(self) -> list[Path]:
        return sorted((self.folder / "store").glob("*/*.safetensors"))

    def weights(self) -> dict[str, tuple[str, tuple[int, ...], str]]:
        """Type, shape and digest of the bytes of every tensor of the trained policy."""
        found = {}
        for path in sorted((self.run / "policy").glob("*.safetensors")):
            with safe_open(path, "np") as file:
                for name in file.keys():  # noqa: SIM118 - the file is no mapping
                    array = file.get_tensor(name)
                    found[name] = (str(array.dtype), array.shape, hashlib.sha256(array.tobytes()).hexdigest())
        return found

    def rows(self) -> list[dict[str, Any]]:
        """All rows of metrics.jsonl without what a clock or the machine says."""
        lines = (self.run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        return [{key: value for key, value in json.loads(line).items() if not key.endswith(CLOCKS)} for line in lines]

    def losses(self) -> list[tuple[int, float]]:
        return [(row["step"], row["loss"]) for row in self.rows() if "loss" in row]

    def result(self) -> dict[str, Any]:
        """Everything that must not depend on what happened on the way."""
        evaluation = json.loads((self.run / "evaluation.json").read_text(encoding="utf-8"))
        looks = {path.name: path.read_bytes() for path in sorted((self.run / "looks").glob("*"))}
        return {"weights": self.weights(), "rows": self.rows(), "evaluation": evaluation, "looks": looks}


# ------------------------------------------------------------------------------------------------------- what must hold


def assert_nothing_partial(case: Case) -> None:
    """Whatever is visible is whole: each checkpoint as its manifest says, the policy as libraries load it."""
    for path in case.checkpoints:
        manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
        assert {file.name for file in path.iterdir()} == {*manifest["files"], "manifest.json"}
        for name, told in manifest["files"].items():
            content = (path / name).read_bytes()
            assert (len(content), hashlib.sha256(content).hexdigest()) == (told["bytes"], told["sha256"]), path / name
    if (case.run / "policy").exists():
        assert case.weights()
        assert (case.run / "policy" / "tokenizer.json").stat().st_size > 0
    for path in (case.run / name for name in ("run.json", "evaluation.json", "data.json", "audit.json")):
        if path.exists():
            json.loads(path.read_text(encoding="utf-8"))


def assert_nothing_hidden(case: Case) -> None:
    """No temporary file or folder is left; the lock is no temporary."""
    hidden = [str(path.relative_to(case.folder)) for path in case.run.rglob(".*") if path.name != ".lock"]
    assert hidden == []
    assert [path.name for path in case.folder.iterdir() if path.name.startswith(".")] == []


def assert_finished_like(case: Case, wanted: dict[str, Any]) -> None:
    """The run is done, and nothing of its result tells that it was disturbed."""
    found = case.result()
    steps = [step for step, _ in case.losses()]
    assert steps == list(range(1, len(steps) + 1))
    assert found["rows"] == wanted["rows"]
    assert found["weights"] == wanted["weights"]
    assert found["evaluation"] == wanted["evaluation"]
    assert found["looks"] == wanted["looks"]
    assert case.manifest["status"] == "done"
    assert_nothing_partial(case)
    assert_nothing_hidden(case)


def assert_resumes(case: Case, wanted: dict[str, Any], *words: str) -> Ended:
    """The same command again brings the run to the undisturbed end; return that process."""
    again = case.train(*words)
    assert again.code == 0, again.err
    assert_finished_like(case, wanted)
    return again
