"""The run folder: names of files, how they are written, and who may write.

Owns paths and file formats. A file appears whole or not at all: temporary file, fsync, rename.

    run.json            manifest: status, fingerprints, versions, the verdict
    config.yaml         the resolved configuration
    data.json           counts, reasons, lengths
    audit.json          what the doctor found in the data before training
    dropped.jsonl       every record that was not used: file, line, reason
    train_prompts.json  hashes of the prompts that were trained on
    heldout_pairs.jsonl the held-out pairs as text, so that a run can be evaluated without its source file
    metrics.jsonl       one line each step, and the held-out probes
    policy/             the trained adapter or model, with its tokenizer
    reference/          the starting adapter, only where the policy continued one
    evaluation.json     before and after, intervals, verdict
    evidence.jsonl      one line for each held-out pair
    samples.jsonl       answers before and after
    tensorboard/        the curves for TensorBoard
    report.html         all of it on one page
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from tiebreak.config import Config, load_config
from tiebreak.errors import RunError

SCHEMA = 1
PART = ".tiebreak-part"
"""Ends the hidden names of what is being written, so that nothing of anybody else's is taken for a leftover."""
RUNNING, DONE, INTERRUPTED, FAILED = "running", "done", "interrupted", "failed"


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """Give a file to write to that appears at `path` whole, or not at all."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=PART)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o666 & ~_umask())
        Path(name).replace(path)
        _sync(path.parent)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    with whole_file(path) as file:
        file.write(content)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write one JSON document, readable by people."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object a line."""
    with whole_file(path) as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n")


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Read one JSON object a line; no file, no rows."""
    if not path.exists():
        return []
    try:
        # Not splitlines: it also breaks at U+2028 and its like, which JSON leaves inside text.
        return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path}: cannot be read ({error})") from None


@contextlib.contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """Yield a hidden folder that becomes `target` when the block ends well, and vanishes when it does not."""
    target.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.", suffix=PART))
    try:
        yield building
        _settle(building)
        if target.exists():
            target.rmdir() if not any(target.iterdir()) else shutil.rmtree(target)
        building.replace(target)
        _sync(target.parent)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Remove what a killed process left half written in a folder whose lock is held."""
    for left in folder.glob(f".*{PART}"):
        shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)


def _settle(folder: Path) -> None:
    """Give what was built the usual modes (temporary folders and safetensors files begin as private), and sync it."""
    for path in (*folder.rglob("*"), folder):
        path.chmod((0o777 if path.is_dir() else 0o666) & ~_umask())
        _sync(path)


def _umask() -> int:
    current = os.umask(0o077)  # the only way to read it is to set it
    os.umask(current)
    return current


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class Run:
    """A run folder, existing or about to be made."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    @property
    def manifest(self) -> dict[str, Any]:
        """The content of run.json."""
        return self._json("run.json")

    @property
    def config(self) -> Config:
        """The resolved configuration."""
        return load_config(self.path / "config.yaml")

    @property
    def data(self) -> dict[str, Any]:
        """The account of the data."""
        return self._json("data.json")

    @property
    def evaluation(self) -> dict[str, Any]:
        """Before, after and verdict."""
        return self._json("evaluation.json")

    @property
    def train_prompt_ids(self) -> list[str]:
        """Hashes of the prompts that were trained on."""
        return [str(item) for item in self._json("train_prompts.json")["prompt_ids"]]

    @property
    def verdict(self) -> str:
        """pass, fail or inconclusive."""
        return str(self.evaluation["verdict"])

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """One row a step, and the held-out probes."""
        return read_jsonl(self.path / "metrics.jsonl")

    @property
    def samples(self) -> list[dict[str, Any]]:
        """Answers before and after."""
        return read_jsonl(self.path / "samples.jsonl")

    def _json(self, name: str) -> dict[str, Any]:
        try:
            value = json.loads((self.path / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            maker = "'tiebreak evaluate RUN' makes it" if name == "evaluation.json" else "'tiebreak train' makes a run"
            raise RunError(f"{self.path}: holds no {name}; {maker}") from None
        except (OSError, ValueError, RecursionError) as error:
            raise RunError(f"{self.path / name}: cannot be read ({error})") from None
        if not isinstance(value, dict):
            raise RunError(f"{self.path / name}: cannot be read (wanted a JSON object)")
        return value

    def update_manifest(self, **changes: Any) -> None:
        """Write run.json anew with some fields changed."""
        current = self.manifest if (self.path / "run.json").exists() else {}
        write_json(self.path / "run.json", current | changes)


def open_run(path: str | Path) -> Run:
    """Return a run that has a trained policy, or raise RunError."""
    run = Run(path)
    if not run.path.is_dir():
        raise RunError(f"{run.path}: no such run folder; 'tiebreak train' makes one")
    status = run.manifest.get("status")
    # policy/ appears whole or not at all, so it can be used even where what came after it was cut off.
    if not (run.path / "policy").is_dir():
        raise RunError(f"{run.path}: the run is '{status}' and holds no trained policy; run 'tiebreak train' again")
    return run


@contextlib.contextmanager
def locked(folder: Path, say: Callable[[str], None] = lambda _: None) -> Iterator[None]:
    """Hold the folder's lock; a second process gets a RunError that names the first.

    The lock of a process that died is free; `say` is told whose it was.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a+") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            handle.seek(0)
            owner = handle.read().strip() or "another process"
            raise RunError(f"{folder}: in use by {owner}; wait for it or choose another output.dir") from None
        handle.seek(0)
        if left := handle.read().strip():
            say(f"{folder}: {left} died without giving up this folder; taken over")
        handle.seek(0)
        handle.truncate()
        handle.write(f"{socket.gethostname()} pid {os.getpid()}")
        handle.flush()
        try:
            yield
        finally:
            handle.seek(0)
            handle.truncate()
