"""How much memory this process holds, and what is done where it runs out.

Owns the question for every kind of device.
"""

from __future__ import annotations

import contextlib
import resource
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import psutil
import torch

from tiebreak.engine.ranks import Ranks
from tiebreak.errors import TrainingError

T = TypeVar("T")


def memory_bytes(device: torch.device) -> int:
    """Return the peak of a GPU since the start, or the resident size now on a CPU, in bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return int(psutil.Process().memory_info().rss)


def peak_memory_bytes(device: torch.device) -> int:
    """Return the most bytes that were in use since the process began."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def usable_bytes() -> tuple[int, int]:
    """Return how much memory of this machine is free for this process, and how much there is in all, in bytes.

    A container, and a job of a scheduler, may have less than the machine: beyond that the system kills the process.
    """
    machine = psutil.virtual_memory()
    free, total = int(machine.available), int(machine.total)
    for folder in _groups():
        for limit, used, *files in _LIMITS:
            with contextlib.suppress(OSError, ValueError):  # none here, or "max"
                most = int((folder / limit).read_text())
                told = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
                # What files were read into can be let go of, were they read once or twice.
                held = int((folder / used).read_text()) - sum(int(told.get(name, 0)) for name in files)
                free, total = min(free, max(0, most - held)), min(total, most)
    return free, total


_GROUPS, _OF_THIS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
_LIMITS = (
    ("memory.max", "memory.current", "active_file", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_active_file", "total_inactive_file"),
)
"""What the second and the first version of Linux' control groups call the limit, what is held, and files among it."""


def _groups() -> Iterator[Path]:
    """Yield the folders of the control groups that this process is in, each of which may have a limit; none elsewhere.

    Within a container the group may be named as its host does, and stand at the root.
    """
    with contextlib.suppress(OSError, ValueError):
        for line in _OF_THIS.read_text().splitlines():
            _, kinds, name = line.split(":", 2)
            if not kinds or "memory" in kinds.split(","):
                root = _GROUPS / "memory" if kinds else _GROUPS
                own = root / name.lstrip("/")
                yield from (root, *(one for one in (own, *own.parents) if root in one.parents))


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory ran out, of a GPU or of the machine."""
    text = str(error)
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and ("can't allocate memory" in text or "not enough memory" in text)
    )


class RanOutElsewhere(MemoryError):  # noqa: N818 - named for what was found
    """Memory ran out in another process, and not here."""


def all_or_none(ranks: Ranks, work: Callable[[], T], *, in_shares: bool = False) -> T:
    """Return what comes of some work in this process; raises MemoryError in all processes where one ran out.

    So no process waits for another one that does something else. Where weights lie `in_shares` the others wait within
    the work already: TrainingError ends the run.
    """
    ran_out, found = False, None
    try:
        found = work()
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        ran_out = True
    if ran_out and in_shares:
        raise TrainingError(
            "out of memory in a step whose weights lie in shares, so that no process can cut it smaller alone; set "
            "training.token_budget lower, or training.gradient_checkpointing=true, and run the same command again"
        )
    if ranks.any(ran_out):  # out of the handler, whose error holds what was computed so far
        raise MemoryError if ran_out else RanOutElsewhere
    return found  # type: ignore[return-value]


def release_cached(device: torch.device) -> None:
    """Give cached, unused blocks of a GPU back."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
