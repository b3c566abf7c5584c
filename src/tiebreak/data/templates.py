"""Chat templates are programs by strangers: what one may cost, and how it is tried before it is trusted.

Owns both bounds. `fault_of` tries a template in a process of its own that can be killed: that ends whatever a template
does to every chat. `limited` bounds each real rendering: the kernel refuses it more memory, and a timer stops it
between two steps of Python, which ends loops for special chats only. Not covered: one single step in C that takes for
ever, on special chats only. That nothing but text comes of a template is the sandbox of jinja, which transformers sets
up.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from tiebreak.data import template_probe

CPU_SECONDS = 5.0
MEMORY_BYTES = 2**30
OUTPUT_CHARACTERS = 2**28
"""Of one rendering; a line of a file of pairs is shorter, and tools are written once."""
_AGAIN_SECONDS = 0.5
"""Between two stops of one rendering: the first is lost where it hits a destructor."""
_TRIAL_SECONDS = 120.0
"""Of the clock, for a machine so busy that five seconds of computing take minutes."""


class Exceeded(Exception):  # noqa: N818 - named for what happened
    """A template took more time or memory, or wrote more, than any chat needs."""


# ------------------------------------------------------------------------------------------------------------ the trial


def fault_of(template: str, tokens: Mapping[str, str]) -> str | None:
    """Return what is wrong with a template that was tried on a few small chats, as 'the template …' goes on.

    Costs a quarter of a second once for each template of a process. Raises OSError where no process can be started.
    """
    return _tried(template, tuple(sorted(tokens.items())))


@functools.lru_cache(maxsize=64)
def _tried(template: str, tokens: tuple[tuple[str, str], ...]) -> str | None:
    given = json.dumps({"templates": [template], "tokens": dict(tokens)})
    # The child needs to find jinja2 where we do, and nothing else of our environment.
    environment = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    too_slow = f"takes more than {template_probe.CPU_SECONDS} seconds for a chat of a few words"
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter, our own file
            [sys.executable, "-P", str(Path(template_probe.__file__))],
            input=given.encode(),
            capture_output=True,
            timeout=_TRIAL_SECONDS,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return too_slow
    if done.returncode < 0:
        return too_slow
    if done.returncode:
        return "cannot be tried: " + done.stderr.decode(errors="replace").strip().rpartition("\n")[2][:200]
    return done.stdout.decode(errors="replace") or None


# ----------------------------------------------------------------------------------------------------------- the bounds


class _Ended(BaseException):
    """Raised by the timer inside a rendering; no handler of errors inside a template's machinery takes it."""


_one_at_a_time = threading.Lock()  # limits and timer are those of the process
_rendering = False


def limited(render: Callable[..., str], *args: Any, **kwargs: Any) -> str:
    """Return what `render` returns; raises Exceeded where that takes too much of anything.

    Time is that of computing, bounded in the main thread alone, where signals arrive; memory is bounded where the
    kernel tells and bounds the address space (Linux). One rendering at a time. Cost: twenty microseconds.
    """
    try:
        with _one_at_a_time, _bounded_memory(), _bounded_time():
            text = render(*args, **kwargs)
        if len(text) <= OUTPUT_CHARACTERS:
            return text
        excess = f"writes {len(text):,} characters"
    except _Ended:
        _stop_timer()  # where it rang before that was done
        excess = f"takes more than {CPU_SECONDS:g} seconds"
    except MemoryError:
        excess = f"takes more than {MEMORY_BYTES // 2**20} MiB of memory"
    raise Exceeded(f"the chat template {excess} for one chat")


@contextlib.contextmanager
def _bounded_time() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    global _rendering  # noqa: PLW0603 - what the signal's handler looks at
    if signal.getsignal(signal.SIGPROF) is not _ring:
        signal.signal(signal.SIGPROF, _ring)
    _rendering = True
    # What was stopped, swapped out or starved has not computed: the timer runs while this process does.
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS, _AGAIN_SECONDS)
    try:
        yield
    finally:
        _stop_timer()


def _stop_timer() -> None:
    global _rendering  # noqa: PLW0603
    _rendering = False  # first: a signal may have come that Python has not looked at
    signal.setitimer(signal.ITIMER_PROF, 0)


def _ring(_signal: int, _frame: FrameType | None) -> None:
    if _rendering:
        raise _Ended


@contextlib.contextmanager
def _bounded_memory() -> Iterator[None]:
    """Have the kernel refuse more memory than the bound, so that not even one step of a template can take it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    mapped = _mapped_bytes()
    if mapped is not None and not 0 <= soft < mapped + MEMORY_BYTES:  # less than 0: no limit
        resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY_BYTES, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _mapped_bytes() -> int | None:
    """Return the size of this process's address space; None where the system does not tell, as macOS."""
    try:
        with Path("/proc/self/statm").open("rb", buffering=0) as sizes:
            return int(sizes.read().split()[0]) * resource.getpagesize()
    except OSError:
        return None
