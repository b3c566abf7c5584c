"""Which of two ways to the same numbers is faster on this machine: measured once, kept, and answered alike ever after.

Owns the measurement and where answers are kept: they are of a processor, a version of torch and a number of threads,
and lie in the user's cache. Two ways round differently. So all is asked while models are loaded, a run keeps the
answers that it began with (`given`), and whoever goes on with it, measures it, or computes another share of it is told
them (`hold`); what nobody asked by then goes the usual way. docs/decisions/0033 says why nobody goes by a maker's name.
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
from tiebreak.errors import TiebreakError
from tiebreak.fingerprint import fingerprint

REPEATS = 7
"""Times that each way is taken, in turns; the fastest counts: what else runs on the machine only ever adds."""
MOST_SECONDS = 0.8
"""After which a question has been asked often enough, if each way was taken twice."""
_WAITING_SECONDS = 20.0
"""For another process that measures: two at once disturb each other."""
_TRAITS = ("vendor_id", "cpu family", "model", "model name", "stepping", "flags", "Features", "CPU part")
"""What /proc/cpuinfo says of a processor, and not of its mood."""

_LIKELY = (1e-9, 1e3)
"""Seconds that a way may have taken; a file that says more or less was written by somebody else."""
_MOST_BYTES = 2**20
"""Of a file of answers: some thousand of them."""

Way = Callable[[], object]
_asked, _held = dict[str, bool](), dict[str, bool]()
"""What this machine answered, and what a run goes by in its place."""
_turn, _asking, _gave_up = threading.RLock(), list[str](), threading.Event()


def is_faster(question: str, ways: Callable[[], tuple[Way, Way]], by: float) -> bool:
    """Whether the first of two ways takes at most one `by`-th of the time of the second, the usual one.

    `ways` makes ready what both compute with. Without real tensors (a dry run) nobody knows, and nothing is kept.
    """
    if (found := known(question)) is not None:
        return found
    if not are_real():
        return False
    file = platformdirs.user_cache_path("tiebreak") / "machine" / f"{fingerprint(_machine())[:32]}.json"
    with _turn:
        if (kept := _read(file).get(question)) is None:
            with _alone(file, question):
                if (kept := _read(file).get(question)) is None:  # another process may have asked meanwhile
                    with _nothing_around():
                        kept = _seconds(*ways())
                    _write(file, _read(file) | {question: kept})
        return _asked.setdefault(question, kept[0] * by <= kept[1])


def known(question: str) -> bool | None:
    """Return what was answered; None where nobody asked."""
    return _held.get(question, _asked.get(question))


def are_real() -> bool:
    """Whether tensors have numbers here, so that something can be measured or proven; in a dry run they have none."""
    return type(torch.empty(0, device="cpu")) is torch.Tensor


def given() -> dict[str, bool]:
    """Return the answers that this process goes by, for a manifest."""
    return dict(sorted((_asked | _held).items()))


def hold(answers: Mapping[str, bool]) -> None:
    """Go by the answers that a run began with, whatever this machine would say, and by those of no other run."""
    found = {question: answer is True for question, answer in answers.items()}
    _held.clear()
    _held.update(found)


@contextlib.contextmanager
def _nothing_around() -> Iterator[None]:
    """Compute as if nobody had asked: whoever did may be within autocast or inference, and draws on after it."""
    place = torch.device("cpu")
    rng, narrow = torch.random.fork_rng(devices=[]), torch.autocast("cpu", enabled=False)
    with place, rng, narrow, torch.inference_mode(False), torch.no_grad():
        yield


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
def _alone(file: Path, question: str) -> Iterator[None]:
    """See to it that no other process measures meanwhile, as far as one can wait for it."""
    with contextlib.ExitStack() as stack:
        if not _asking and not _gave_up.is_set():  # what is measured may ask a question of its own
            with contextlib.suppress(OSError, TiebreakError):
                file.parent.mkdir(parents=True, exist_ok=True)
                _wait_for(stack.enter_context(files.opened(file.parent / ".lock")))
        _asking.append(question)
        stack.callback(_asking.pop)
        yield


def _wait_for(lock: IO[bytes]) -> None:
    deadline = time.monotonic() + _WAITING_SECONDS
    while time.monotonic() < deadline:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.05)
        else:
            return
    _gave_up.set()  # once is enough: whoever holds it was stopped


def _read(file: Path) -> dict[str, tuple[float, float]]:
    """Return the seconds that both ways of each question took; {} where there is nothing, or something else."""
    try:
        with files.opened(file) as handle:
            handle.seek(0)
            text = handle.read(_MOST_BYTES + 1)
        found = json.loads(text)["answers"] if len(text) <= _MOST_BYTES else {}
        pairs = {question: told["seconds"] for question, told in found.items()}
        "".join(pairs).encode()  # a question that could not be written again is somebody else's
        return {question: (one, two) for question, (one, two) in pairs.items() if _is_time(one) and _is_time(two)}
    except (OSError, TiebreakError, ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
        return {}


def _is_time(told: object) -> bool:
    return isinstance(told, int | float) and not isinstance(told, bool) and _LIKELY[0] <= told <= _LIKELY[1]


def _write(file: Path, seconds: Mapping[str, tuple[float, float]]) -> None:
    answers = {question: {"seconds": list(both)} for question, both in seconds.items()}
    with contextlib.suppress(OSError, TiebreakError, ValueError):  # then each process asks for itself
        file.parent.mkdir(parents=True, exist_ok=True)
        files.write_json(file, {"machine": _machine(), "answers": answers})


@cache
def _processor() -> tuple[str, ...]:
    try:
        first = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").partition("\n\n")[0]
    except OSError:  # not Linux
        return (platform.processor() or platform.machine(),)
    return tuple(line for line in first.splitlines() if line.partition(":")[0].strip() in _TRAITS)


def _machine() -> dict[str, Any]:
    return {"processor": _processor(), "torch": torch.__version__, "threads": torch.get_num_threads()}
