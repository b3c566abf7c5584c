"""Token log-probabilities of a frozen model, kept on disk: computed once for all epochs, restarts and beta sweeps.

Owns how such values are keyed, laid out, verified and shared. Knows no model and no tokenizer: what the values depend
on besides token ids comes in as `identity`, and whether that identity is complete is for the caller to know.

    FOLDER/<fingerprint of identity>/
        identity.json             what the fingerprint was taken of, for people
        <sha256>.safetensors      a shard, named by its own bytes: logps [tokens], offsets [rows + 1], keys [rows, 32]
        <sha256>.safetensors.corrupt    a shard that failed verification; never loaded
    FOLDER/<fingerprint of identity>.stale-N/    what `forget` set aside; never loaded

A shard is never changed, and appears whole or not at all. So any number of processes may write to one folder without
a lock, and a crash costs the rows that were not yet flushed. What others write is seen at the next opening.
"""

from __future__ import annotations

import hashlib
import itertools
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tiebreak import faults
from tiebreak.engine.reference.shard import KEY_BYTES, Shard
from tiebreak.errors import RunError, one_line
from tiebreak.files import write_json
from tiebreak.fingerprint import fingerprint

SCHEMA = 2
"""For the identity: raised when a key, a digest of weights or a shard comes to mean something else."""
FLUSH_ROWS = 8192
FLUSH_SECONDS = 30.0
SWEEP_SECONDS = 24 * 3600.0

Warn = Callable[[str], None]


def completion_key(prompt_ids: Sequence[int], completion_ids: Sequence[int]) -> bytes:
    """Return the SHA-256 (32 bytes) of both lengths and all token ids, each as a little-endian int64.

    The lengths keep apart what reads the same when joined: [1, 2] + [3] is not [1] + [2, 3].
    """
    lengths = (len(prompt_ids), len(completion_ids))
    return hashlib.sha256(struct.pack(f"<{2 + sum(lengths)}q", *lengths, *prompt_ids, *completion_ids)).digest()


class LogpStore:
    """fp32 log-probabilities (nats) of the tokens of completions under one frozen model, kept on disk.

    Memory: every row is held, 4 bytes a token and about 300 bytes a row. One thread at a time. No failure of the disk
    reaches the caller: it is told through `warn`, one line each, and values are recomputed or stay in memory.
    """

    def __init__(self, folder: Path | None, identity: Mapping[str, Any], warn: Warn = lambda _: None) -> None:
        """Load and verify what was stored under `identity`; this writes nothing, it only sets aside what is broken.

        Without a folder, rows are kept in memory alone.
        """
        self._identity = dict(identity)
        self._folder = folder and folder / fingerprint(self._identity)[:32]
        if self._folder and self._folder.is_symlink():
            raise RunError(f"{self._folder}: is a link, which a store does not hold; move it away")
        self._warn = warn
        self._shards: list[Shard] = []
        self._index: dict[bytes, tuple[int, int]] = {}
        self._buffer: dict[bytes, Tensor] = {}
        self._buffered_since = 0.0
        self._write_failed = self._made = False
        self._open()

    def __len__(self) -> int:
        return len(self._index) + len(self._buffer)

    @property
    def is_waiting(self) -> bool:
        """Whether rows are held that are on no disk yet."""
        return bool(self._buffer)

    def __contains__(self, key: bytes) -> bool:
        return key in self._index or key in self._buffer

    def get(self, key: bytes) -> Tensor | None:
        """Return a row as it was put, bit for bit, as a copy in CPU memory; None where there is none."""
        if key in self._buffer:
            return self._buffer[key].clone()
        if key not in self._index:
            return None
        shard, row = self._index[key]
        return self._shards[shard].row(row)

    def put(self, key: bytes, token_logps: Tensor) -> None:
        """Keep one row; a key that is already known keeps its first value. Raises ValueError for what is no row."""
        row = _checked(key, token_logps)
        if key in self:
            return
        if not self._buffer:
            self._buffered_since = time.monotonic()
        self._buffer[key] = row

    def flush_when_due(self) -> None:
        """Write to disk when 8192 rows wait by now, or the first of them has for 30 seconds.

        Called between micro-batches and not within one: values computed together are stored together, or a run that
        was killed would compute some of them again in other company, with other last bits.
        """
        waited = time.monotonic() - self._buffered_since if self._buffer else 0.0
        # After a failure only an explicit flush tries again: a cache must not fight a checkpoint for the last bytes.
        if (len(self._buffer) >= FLUSH_ROWS or waited >= FLUSH_SECONDS) and not self._write_failed:
            self.flush()

    def flush(self) -> None:
        """Write the rows that wait as one new shard, whole or not at all.

        Where that fails, it warns once until a write succeeds; the rows stay in memory, are served, and wait for the
        next call.
        """
        if not self._buffer or self._folder is None:
            return
        shard = Shard.of(self._buffer)
        try:
            faults.point("store:flush")
            # Once: where the run that it lies in was deleted, it does not bring the folder back.
            self._folder.mkdir(parents=not self._made, exist_ok=True)
            self._made = True
            if not (self._folder / "identity.json").exists():
                write_json(self._folder / "identity.json", self._identity)
            shard.write(self._folder)
        except OSError as error:
            if not self._write_failed:
                self._warn(
                    f"{self._folder}: reference log-probabilities cannot be written ({one_line(error)}); "
                    "training goes on with them in memory, the next run computes them again"
                )
            self._write_failed = True
            return
        self._write_failed = False
        self._add(shard)
        self._buffer.clear()

    def forget(self) -> Path | None:
        """Empty the store and set its shards aside, for when a live value disagrees with a stored one.

        Returns the folder where they are now; None where nothing was on disk or it could not be moved.
        """
        self._shards.clear()
        self._index.clear()
        self._buffer.clear()
        if self._folder is None:
            return None
        names = (self._folder.with_name(f"{self._folder.name}.stale-{n}") for n in itertools.count(1))
        try:
            return self._folder.rename(next(name for name in names if not name.exists()))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            self._warn(f"{self._folder}: cannot be set aside ({one_line(error)}); delete it, or it is loaded again")
            return None

    def _open(self) -> None:
        if self._folder is None:
            return
        try:
            # In the order of names: where two writers kept the same key, every process serves the same one of the two.
            paths = sorted(self._folder.glob("*.safetensors")) if self._folder.is_dir() else []
            _sweep(self._folder)
        except OSError as error:
            self._warn(f"{self._folder}: cannot be read ({one_line(error)}); its rows are computed again")
            return
        for path in paths:
            try:
                self._add(Shard.read(path.read_bytes(), path.stem))
            except OSError as error:
                self._warn(f"{path}: cannot be read ({one_line(error)}); its rows are computed again")
            except ValueError as error:
                aside = _quarantine(path)
                self._warn(f"{path}: {error}; {aside}, its rows are computed again")

    def _add(self, shard: Shard) -> None:
        number = len(self._shards)
        self._shards.append(shard)
        for row, key in enumerate(shard.row_keys()):
            self._index.setdefault(key, (number, row))


def _checked(key: bytes, token_logps: Tensor) -> Tensor:
    """Return a copy in CPU memory that nobody else can change, or raise ValueError."""
    if len(key) != KEY_BYTES:
        raise ValueError(f"a key has {len(key)} bytes, wanted {KEY_BYTES}: take completion_key")
    if token_logps.dtype != torch.float32 or token_logps.dim() != 1 or not len(token_logps):
        found = f"{token_logps.dtype} of shape {list(token_logps.shape)}"
        raise ValueError(f"token log-probabilities are {found}, wanted torch.float32 of shape [tokens], not empty")
    row = token_logps.detach().to("cpu", copy=True)
    if not row.isfinite().all():
        raise ValueError("token log-probabilities are not all finite, and such values are not kept")
    return row


def _quarantine(path: Path) -> str:
    """Rename a broken shard and return what became of it; a second process may have been faster."""
    try:
        return f"set aside as {path.rename(path.with_name(path.name + '.corrupt')).name}"
    except FileNotFoundError:
        return "already set aside"
    except OSError as error:
        return f"not loaded, and cannot be set aside ({one_line(error)})"


def _sweep(folder: Path) -> None:
    """Delete what writers left behind that died long ago."""
    for path in (*folder.glob(".*.safetensors.*"), *folder.glob(".identity.json.*")):
        try:
            if time.time() - path.stat().st_mtime > SWEEP_SECONDS:
                path.unlink()
        except OSError:  # gone, or not ours to delete: it is never read, so nothing is lost
            continue
