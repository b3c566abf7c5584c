"""Chat templates are programs by strangers: what one may cost, and how it is tried before it is trusted.

Owns both bounds. `fault_of` tries a template in a process of its own that can be killed: that ends whatever a template
does to every chat. `limited` watches each real rendering from a second thread and stops it between two steps of Python:
that ends loops that write and loops that write nothing, for special chats only. Not covered: one single step in C that
takes for ever, on special chats only. That nothing but text comes of a template is the sandbox of jinja, which
transformers sets up.
"""

from __future__ import annotations

import ctypes
import functools
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil

from tiebreak.data import template_probe

CPU_SECONDS = 5.0
MEMORY_BYTES = 2**30
OUTPUT_CHARACTERS = 2**28
"""Of one rendering; a line of a file of pairs is shorter, and tools are written once."""
_INTERVAL_SECONDS = 0.05
_IDLE_ROUNDS = 40
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


# ------------------------------------------------------------------------------------------------------------ the watch


class _Ended(BaseException):
    """Thrown into a rendering from outside; no handler of errors inside a template's machinery takes it."""


class _Job:
    """A rendering that goes on, and what its thread had used when the watch first saw it."""

    clock: int | None = None
    seconds = 0.0
    memory = 0
    reason = ""

    def look(self, thread: int) -> str:
        """Return what it takes beyond its bounds; '' where nothing. Time is the thread's own, not the wall's."""
        if self.clock is None:
            self.clock = _clock_of(thread)
            self.seconds, self.memory = time.clock_gettime(self.clock), _memory()
            return ""
        if time.clock_gettime(self.clock) - self.seconds > CPU_SECONDS:
            self.seconds += CPU_SECONDS  # once more later, should what is thrown be lost in a destructor
            return f"more than {CPU_SECONDS:g} seconds"
        if _memory() - self.memory > MEMORY_BYTES:
            self.memory += MEMORY_BYTES
            return f"more than {MEMORY_BYTES // 2**20} MiB of memory"
        return ""


# Renderings by thread. Who takes a job out owns its end: the thread itself, or the watch, which then throws.
_jobs: dict[int, _Job] = {}
_overdue: dict[int, _Job] = {}
_lock = threading.Lock()
_watching = False


def limited(render: Callable[..., str], *args: Any, **kwargs: Any) -> str:
    """Return what `render` returns; raises Exceeded where that takes too much of anything. Works in every thread.

    Cost: half a microsecond, and 20 looks a second by a thread that ends when nothing is rendered.
    """
    thread, job, text = threading.get_ident(), _Job(), ""
    try:
        try:
            _jobs[thread] = job
            if not _watching:
                _start()
            text = render(*args, **kwargs)
        finally:
            if _jobs.pop(thread, None) is None:
                _call_off(thread)
    except _Ended:
        _call_off(thread)  # it may have come while the rendering finished
    if job.reason:
        raise Exceeded(f"the chat template takes {job.reason} for one chat")
    if len(text) > OUTPUT_CHARACTERS:
        raise Exceeded(f"the chat template writes {len(text):,} characters for one chat")
    return text


def _call_off(thread: int) -> None:
    """Take back what was thrown and has not arrived."""
    _jobs.pop(thread, None)
    with _lock:
        _overdue.pop(thread, None)
        _throw(thread, None)


def _start() -> None:
    global _watching  # noqa: PLW0603 - one watch for all threads of a process
    _watching = True
    threading.Thread(target=_watch, name="template watch", daemon=True).start()


def _watch() -> None:
    global _watching  # noqa: PLW0603
    idle = 0
    while idle < _IDLE_ROUNDS:
        time.sleep(_INTERVAL_SECONDS)
        _look_at_all()
        idle = 0 if _jobs or _overdue else idle + 1
    _watching = False
    if _jobs:  # one that began in between
        _start()


def _look_at_all() -> None:
    with _lock:
        for thread, job in list(_jobs.items()):
            if (reason := job.look(thread)) and _jobs.pop(thread, None) is job:
                job.reason = reason
                _overdue[thread] = job
                _throw(thread, _Ended)
        for thread, job in _overdue.items():
            if job.look(thread):
                _throw(thread, _Ended)


def _throw(thread: int, kind: type[BaseException] | None) -> None:
    """Have a thread raise before its next step in Python; None takes back what has not been raised yet."""
    what = ctypes.py_object() if kind is None else ctypes.py_object(kind)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), what)


def _clock_of(thread: int) -> int:
    # What was stopped, swapped out or starved has not computed. macOS has only the clock of the wall.
    named = getattr(time, "pthread_getcpuclockid", None)
    return time.CLOCK_MONOTONIC if named is None else int(named(thread))


def _memory() -> int:
    return int(psutil.Process().memory_info().rss)


def _after_fork() -> None:
    """A forked child has no watch, and the lock as it happened to be held."""
    global _lock, _watching
    _lock, _watching = threading.Lock(), False
    _jobs.clear()
    _overdue.clear()


os.register_at_fork(after_in_child=_after_fork)
