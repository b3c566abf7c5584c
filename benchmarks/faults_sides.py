"""tiebreak and TRL as programs that are started, resumed, killed and damaged on disk, each as its users have it.

Owns how a fault is asked of each, and where each keeps what can be damaged. Knows no case and judges nothing.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import struct
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from datasets import Dataset
from faults_stage import Stage
from safetensors.torch import load_file

HERE = Path(__file__).parent
EPOCHS, PAIRS_PER_STEP, SAVE_STEPS = 3, 4, 4
TIMEOUT_SECONDS = 600
_FAULTS = {
    "stop": "int@step:end",
    "kill": "kill@step:end",
    "kill_save": "kill@save:optimizer",
    "term": "term@step:begin",
    "nan": "nan@step:gradient",
    "oom": "oom@step:gradient",
}
_KEYS = {
    "learning_rate": "training.learning_rate",
    "beta": "loss.beta",
    "dropout": "adapter.dropout",
    "model": "model.name",
    "epochs": "training.epochs",
}


@dataclass(frozen=True)
class Ended:
    """How a process ended, and what it wrote to stderr."""

    code: int
    lines: tuple[str, ...]


class Side(Protocol):
    """One of the two programs, started and resumed as its users do."""

    name: str
    output: Path
    optimizer_file: str
    weights_file: str

    def start(self, fault: str = "", at: int = 0, **changes: Any) -> subprocess.Popen[str]:
        """Start, or resume what lies in the output folder."""

    def checkpoints(self) -> list[Path]:
        """Return the visible checkpoints, oldest first."""

    def final(self) -> Path:
        """Return the path of the trained adapter."""

    def log(self) -> list[dict[str, Any]]:
        """Return what was logged, step by step."""

    def forget_reference(self) -> None:
        """Delete what is stored of the reference."""

    def flip_reference(self) -> str:
        """Flip one bit of one stored reference log-probability, and say which."""


class Tiebreak:
    """`python -m tiebreak train`, always the same command line."""

    name = "tiebreak"
    optimizer_file, weights_file = "optimizer.safetensors", "policy.safetensors"

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._store = stage.folder / "store"
        self._config = stage.folder / "faults.json"
        self.output = stage.folder / "tiebreak" / "run"
        self._config.write_text(json.dumps(self._settings()), encoding="utf-8")  # JSON is YAML

    def _settings(self) -> dict[str, Any]:
        return {
            "model": {"name": str(self._stage.model), "device": "cpu"},
            "data": {"train": str(self._stage.pairs), "heldout": str(self._stage.folder / "heldout.jsonl")},
            "adapter": {"kind": "lora", "rank": 4, "alpha": 8.0, "dropout": 0.1},
            "reference": {"store": str(self._store)},
            "training": {
                "epochs": EPOCHS,
                "pairs_per_step": PAIRS_PER_STEP,
                "learning_rate": 1e-3,
                "checkpoint_steps": SAVE_STEPS,
                "keep_checkpoints": 2,
            },
            "evaluation": {"probes": 1, "num_samples": 1, "max_new_tokens": 4},
            "output": {"dir": str(self.output), "trackers": []},
        }

    def start(self, fault: str = "", at: int = 0, **changes: Any) -> subprocess.Popen[str]:
        sets = [part for key, value in changes.items() for part in ("--set", f"{_KEYS[key]}={value}")]
        visit = at // SAVE_STEPS if fault == "kill_save" else at
        armed = {"TIEBREAK_FAULT": f"{_FAULTS[fault]}:{visit}"} if fault else {}
        command = [sys.executable, "-m", "tiebreak", "train", str(self._config), *sets]
        return launched(command, self._stage.environment | armed)

    def checkpoints(self) -> list[Path]:
        return sorted((self.output / "checkpoints").glob("step-*"))

    def final(self) -> Path:
        return self.output / "policy" / "adapter_model.safetensors"

    def log(self) -> list[dict[str, Any]]:
        path = self.output / "metrics.jsonl"
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []

    def forget_reference(self) -> None:
        shutil.rmtree(self._store, ignore_errors=True)

    def flip_reference(self) -> str:
        path = max(self._store.glob("*/*.safetensors"), key=lambda found: found.stat().st_size)
        return flip_value(path, load_file(path)["logps"][:4].tolist())


class Trl:
    """`faults_trl_case.py`: DPOTrainer, resumed with `resume_from_checkpoint=True` where a checkpoint lies."""

    name = "trl"
    optimizer_file, weights_file = "optimizer.pt", "adapter_model.safetensors"

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.output = stage.folder / "trl" / "run"

    def start(self, fault: str = "", at: int = 0, **changes: Any) -> subprocess.Popen[str]:
        case = {
            "model": str(self._stage.model),
            "data": str(self._stage.pairs),
            "output": str(self.output),
            "learning_rate": 1e-3,
            "beta": 0.1,
            "epochs": EPOCHS,
            "pairs_per_step": PAIRS_PER_STEP,
            "save_steps": SAVE_STEPS,
            "resume": bool(self.checkpoints()),
            "fault": fault,
            "at": at,
        } | {key: str(value) if isinstance(value, Path) else value for key, value in changes.items()}
        command = [sys.executable, str(HERE / "faults_trl_case.py"), json.dumps(case)]
        return launched(command, self._stage.environment)

    def checkpoints(self) -> list[Path]:
        return sorted(self.output.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))

    def final(self) -> Path:
        return self.output / "final" / "adapter_model.safetensors"

    def log(self) -> list[dict[str, Any]]:
        path = self.output / "log.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []

    def forget_reference(self) -> None:
        for path in self._stored():
            path.unlink()

    def flip_reference(self) -> str:
        # DPOTrainer leaves two files of the same values; which one it reads is its own business.
        told = {flip_value(path, Dataset.from_file(str(path))["ref_chosen_logps"][:4]) for path in self._stored()}
        return " and ".join(told)

    def _stored(self) -> list[Path]:
        caches = sorted((self._stage.folder / "huggingface").rglob("cache-*.arrow"))
        return [path for path in caches if "ref_chosen_logps" in Dataset.from_file(str(path)).column_names]


def launched(command: Sequence[str], environment: dict[str, str]) -> subprocess.Popen[str]:
    """Start a process whose stderr is kept."""
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace"
    )


def ended(process: subprocess.Popen[str]) -> Ended:
    """Wait for a process."""
    _, text = process.communicate(timeout=TIMEOUT_SECONDS)
    return Ended(process.returncode, tuple(line.strip() for line in text.splitlines() if line.strip()))


def flip_bytes(path: Path, num: int = 100) -> None:
    """Invert bytes of the tensors in a safetensors file, at places drawn with a fixed seed."""
    content = bytearray(path.read_bytes())
    header = 8 + struct.unpack("<Q", content[:8])[0]
    for place in random.Random(0).sample(range(header, len(content)), num):
        content[place] ^= 0xFF
    path.write_bytes(content)


def flip_value(path: Path, values: Sequence[float]) -> str:
    """Flip bit 28, one of the exponent, of the first of these consecutive float32 values in a file."""
    content = bytearray(path.read_bytes())
    wanted = struct.pack(f"<{len(values)}f", *values)
    if content.count(wanted) != 1:
        raise ValueError(f"{path.name}: the values stand {content.count(wanted)} times in the file")
    place = content.index(wanted)
    content[place + 3] ^= 0x10
    path.write_bytes(content)
    return f"{values[0]:.1f} nats became {struct.unpack('<f', content[place : place + 4])[0]:.1e}"


class Canary:
    """Pickled, it makes a folder when it is loaded."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (self._path,)
