"""Where the numbers of training go: metrics.jsonl, TensorBoard, and any tracker that accelerate speaks to.

Owns the sinks. Knows nothing of what the numbers mean.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from accelerate.state import PartialState
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

from tiebreak.errors import ConfigError, RunError, nearest, one_line
from tiebreak.files import opened
from tiebreak.progress import aside
from tiebreak.runs import Run


class Recorder:
    """Writes each row to metrics.jsonl at once, and to every tracker."""

    def __init__(self, run: Run, trackers: Sequence[str] = (), settings: Mapping[str, Any] | None = None) -> None:
        """`settings` are the flat hyper-parameters that trackers show beside the curves."""
        self._trackers = [_tracker(name, run.path) for name in trackers]
        self._path = run.metrics_file
        self._file = opened(self._path)
        self._digest = hashlib.sha256()
        with aside():
            for tracker in self._trackers:
                tracker.store_init_configuration(dict(settings or {}))

    def write(self, row: Mapping[str, float]) -> None:
        """Record one row; its `step` is the number of finished optimizer steps.

        Raises RunError where the file is gone: what is learned from there on could not be kept.
        """
        if not os.fstat(self._file.fileno()).st_nlink:
            raise RunError(f"{self._path}: was deleted while the run was at work; its last checkpoint is what is left")
        line = json.dumps(row, allow_nan=False).encode() + b"\n"
        self._file.write(line)
        self._file.flush()
        self._digest.update(line)
        values = {key: value for key, value in row.items() if key != "step"}
        with aside():
            for tracker in self._trackers:
                tracker.log(values, step=int(row["step"]))

    @property
    def num_bytes(self) -> int:
        """Length of metrics.jsonl."""
        return self._file.tell()

    @property
    def sha256(self) -> str:
        """Digest of metrics.jsonl."""
        return self._digest.hexdigest()

    def rewind(self, num_bytes: int, sha256: str = "") -> None:
        """Forget the rows after the first `num_bytes`: their steps are taken again. Trackers keep what they got.

        Where the file is shorter, as after a power cut, whole rows are kept and the others are lost. Raises RunError
        where it is not what was written, by its digest.
        """
        self._file.seek(0)
        kept = self._file.read(num_bytes)
        if sha256 and len(kept) == num_bytes and hashlib.sha256(kept).hexdigest() != sha256:
            raise RunError(
                f"{self._path}: is not what was written; bring it back from a copy, or remove it, and training goes on "
                "without the numbers of the steps before"
            )
        kept = kept[: kept.rfind(b"\n") + 1]
        self._digest = hashlib.sha256(kept)
        self._file.truncate(len(kept))
        self._file.seek(0, os.SEEK_END)

    def sync(self) -> None:
        """Wait until the rows are on the disk: a checkpoint counts on them."""
        os.fsync(self._file.fileno())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()
        with aside():
            for tracker in self._trackers:
                tracker.finish()


def check_trackers(names: Sequence[str]) -> None:
    """Raise ConfigError for a tracker that accelerate does not know, or that is not installed."""
    installed = {str(name) for name in get_available_trackers()}
    for name in names:
        if name not in LOGGER_TYPE_TO_CLASS:
            known = ", ".join(sorted(LOGGER_TYPE_TO_CLASS))
            raise ConfigError(
                f"output.trackers: '{name}' is not known; choose from {known}.{nearest(name, known.split(', '))}"
            )
        if name not in installed:
            raise ConfigError(f"output.trackers: {name} is not installed; pip install {name}, or leave it out")


def _tracker(name: str, folder: Path) -> Any:
    PartialState()  # accelerate's trackers ask it whether this is the main process
    kind = LOGGER_TYPE_TO_CLASS[name]
    try:
        with aside():
            tracker = kind("tensorboard", str(folder)) if kind.requires_logging_directory else kind(folder.name)
            tracker.start()
    except Exception as error:  # noqa: BLE001 - foreign services fail in ways of their own: no login, no network
        cause = one_line(error, 200)
        raise ConfigError(f"output.trackers: {name} does not start ({type(error).__name__}: {cause})") from None
    return tracker
