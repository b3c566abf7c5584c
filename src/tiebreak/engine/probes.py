"""Which of two ways to the same numbers is faster on this machine: measured once, kept, and answered alike ever after.

Owns the measurement and where answers are kept: they are of a processor, a version of torch and a number of threads,
and lie in the user's cache. Two ways round differently. So a run keeps the answers that it began with (`given`), and
one that goes on, here or after the cache was lost, is told them before it loads anything (`hold`). docs/decisions/0033
says why nobody goes by the name of a maker.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import platform
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import IO, Any

import platformdirs
import torch

from tiebreak import files
from tiebreak.fingerprint import fingerprint

REPEATS = 7
"""Times that each way is taken, in turns; the fastest counts: what else runs on the machine only ever adds."""
MOST_SECONDS = 0.8
"""After which a question has been asked often enough, if each way was taken twice."""
_WAITING_SECONDS = 20.0
"""For another process that measures: two at once disturb each other."""
_TRAITS = ("vendor_id", "cpu family", "model", "model name", "stepping", "flags", "Features", "CPU part")
"""What /proc/cpuinfo says of a processor, and not of its mood."""

Way = Callable[[], object]
_answers: dict[str, bool] = {}
_turn, _asking = threading.RLock(), list[Path]()


def is_faster(question: str, ways: Callable[[], tuple[Way, Way]], by: float) -> bool:
    """Whether the first of two ways takes at most one `by`-th of the time of the second, the usual one.

    `ways` makes ready what both compute with. Without real tensors (a dry run) nobody knows, and nothing is kept.
    """
    if question in _answers:
        return _answers[question]
    if not are_real():
        return False
    with _alone() as file:
        if question not in (kept := _read(file)):
            with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.no_grad():
                with torch.autocast("cpu", enabled=False):
                    one, usual = _seconds(*ways())
            kept = _read(file)  # with what they asked themselves
            kept[question] = {"faster": one * by <= usual, "seconds": [one, usual], "by": by}
            with contextlib.suppress(OSError):  # then each process asks for itself
                file.parent.mkdir(parents=True, exist_ok=True)
                files.write_json(file, {"machine": _machine(), "answers": kept})
    return _answers.setdefault(question, kept[question]["faster"])


def are_real() -> bool:
    """Whether tensors have numbers here, so that something can be measured or proven; in a dry run they have none."""
    return type(torch.empty(0, device="cpu")) is torch.Tensor


def given() -> dict[str, bool]:
    """Return the answers that this process goes by, for a manifest."""
    return dict(sorted(_answers.items()))


def hold(answers: Mapping[str, bool]) -> None:
    """Go by the answers that a run began with, whatever this machine would say now."""
    _answers.update({question: answer is True for question, answer in answers.items()})


def _seconds(one: Way, usual: Way) -> tuple[float, float]:
    found: tuple[list[float], list[float]] = ([], [])
    one(), usual()  # memory and compiled code come up
    began = time.perf_counter()
    for turn in range(REPEATS):
        for way, taken in zip((one, usual), found, strict=True):
            start = time.perf_counter()
            way()
            taken.append(time.perf_counter() - start)
        if turn and time.perf_counter() - began > MOST_SECONDS:
            break
    return min(found[0]), min(found[1])


@contextlib.contextmanager
def _alone() -> Iterator[Path]:
    """Yield the file of answers about this machine, with no other process measuring, as far as one can wait for it."""
    file = platformdirs.user_cache_path("tiebreak") / "machine" / f"{fingerprint(_machine())[:32]}.json"
    with _turn, contextlib.ExitStack() as stack:
        if not _asking:  # what is measured may ask a question of its own
            with contextlib.suppress(OSError):
                file.parent.mkdir(parents=True, exist_ok=True)
                _wait_for(stack.enter_context(files.opened(file.parent / ".lock")))
        _asking.append(file)
        stack.callback(_asking.pop)
        yield file


def _wait_for(lock: IO[bytes]) -> None:
    deadline = time.monotonic() + _WAITING_SECONDS
    while time.monotonic() < deadline:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.05)
        else:
            break


def _read(file: Path) -> dict[str, Any]:
    """Return what was answered here before; {} where there is nothing, or something else."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))["answers"]
        return {key: told for key, told in found.items() if isinstance(told["faster"], bool)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


@cache
def _processor() -> tuple[str, ...]:
    try:
        first = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").partition("\n\n")[0]
    except OSError:  # not Linux
        return (platform.processor() or platform.machine(),)
    return tuple(line for line in first.splitlines() if line.partition(":")[0].strip() in _TRAITS)


def _machine() -> dict[str, Any]:
    return {"processor": _processor(), "torch": torch.__version__, "threads": torch.get_num_threads()}
