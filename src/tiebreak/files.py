"""How files are written: whole or not at all, and by one process at a time.

Owns temporary names, fsync and rename, lines that are appended, and locks. Knows nothing of what the files mean.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from tiebreak.errors import RunError

PART = ".tiebreak-part"
"""Ends the hidden names of what is being written, so that nothing of anybody else's is taken for a leftover."""


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


def append_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Add one JSON object a line to a file of work that could be done again; numbers need not be finite.

    What a killed process left of a line goes first, so that nothing is glued to it. A full disk costs these rows and
    says nothing; any other OSError is raised.
    """
    try:
        with path.open("ab+") as file:
            if (end := file.seek(0, os.SEEK_END)) and file.seek(end - 1) and file.read(1) != b"\n":
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)
            file.write(b"".join(json.dumps(row).encode() + b"\n" for row in rows))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise


def appended_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects of a file that was appended to; no file, no rows, and a line that is none is left out."""
    for line in path.read_bytes().split(b"\n") if path.exists() else ():
        with contextlib.suppress(ValueError, RecursionError):
            row = json.loads(line.decode("utf-8"))
            if isinstance(row, dict):
                yield row


@contextlib.contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """Yield a hidden folder that becomes `target` when the block ends well, and vanishes when it does not."""
    target.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.", suffix=PART))
    try:
        yield building
        # Temporary folders and safetensors files begin as private: give what was built the usual modes, and sync it.
        for path in (*building.rglob("*"), building):
            path.chmod((0o777 if path.is_dir() else 0o666) & ~_umask())
            _sync(path)
        if target.exists():
            target.rmdir() if not any(target.iterdir()) else shutil.rmtree(target)
        building.replace(target)
        _sync(target.parent)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def point_link(link: Path, target: str) -> None:
    """Make a symbolic link lead to `target`: whoever follows it sees the old place or the new one."""
    new = Path(tempfile.mkdtemp(dir=link.parent, prefix=f".{link.name}.", suffix=PART))
    try:
        (new / "link").symlink_to(target)
        (new / "link").replace(link)
        _sync(link.parent)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Remove what a killed process left half written in a folder whose lock is held."""
    for left in folder.glob(f".*{PART}"):
        shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)


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


@contextlib.contextmanager
def locked(
    folder: Path, say: Callable[[str], None] = lambda _: None, otherwise: str = "choose another output.dir"
) -> Iterator[None]:
    """Hold the folder's lock; a second process gets a RunError that names the first, and what to do `otherwise`.

    The lock of a process that died is free; `say` is told whose it was.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a+") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            handle.seek(0)
            owner = handle.read().strip() or "another process"
            raise RunError(f"{folder}: in use by {owner}; wait for it or {otherwise}") from None
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
