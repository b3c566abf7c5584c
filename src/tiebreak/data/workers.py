"""A function over many items in several processes: results in order, memory flat, no process left behind.

Owns how work leaves this process. Workers are fresh interpreters at the other end of two pipes: nothing is forked, so
no thread of torch is torn, and the user's script is not run again, as `multiprocessing` would do. A worker ends when
its pipe does, so even a parent that is killed leaves none behind. Knows nothing of what the work is.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import pickle
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import IO, Any, TypeVar, cast

from tiebreak.errors import TiebreakError, one_line

Item = TypeVar("Item")
Result = TypeVar("Result")

WORTH_BYTES = 32 * 2**20
"""Files smaller than this, packed or not, are read by one process."""
_Todo = queue.SimpleQueue[tuple[Future[Any], Any] | None]
IN_FLIGHT = 2
"""Items for each worker that are taken ahead of the first result: one at work, one that waits."""
# The first thing down the pipe is where to import from; -P keeps the current folder out of it until then.
_BOOT = "import pickle, sys; sys.path[:] = pickle.load(sys.stdin.buffer); import tiebreak.data.workers as w; w.serve()"
# The workers are the parallelism; threads inside them would only wait for each other.
_SINGLE_THREAD = {"TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


def num_workers_for(paths: Iterable[Path]) -> int:
    """Return how many processes pay for reading these files: one for small ones, for they take seconds to start."""
    if sum(path.stat().st_size for path in paths) < WORTH_BYTES:
        return 1
    return num_cores()


def num_cores() -> int:
    """Return the cores that this process may use; where the system does not tell, all of them."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def mapped(function: Callable[[Item], Result], items: Iterable[Item], num_workers: int) -> Iterator[Result]:
    """Yield `function(item)` for every item, in order, from so many processes; from this one where it is 1.

    The function goes to each worker once and each item to one of them, pickled: so it is one of a module, not of a
    script, or a `functools.partial` of one. At most `IN_FLIGHT` items a worker are taken ahead of their results. What
    the function raises is raised here; a worker that dies is a TiebreakError. A worker takes about a second to start.
    """
    if num_workers == 1:
        yield from map(function, items)
        return
    start = pickle.dumps(sys.path) + _framed(function)
    todo: _Todo = queue.SimpleQueue()
    results: deque[Future[Result]] = deque()
    workers: list[_Worker] = []
    try:
        for item in items:
            if len(workers) < num_workers:
                workers.append(_Worker(start, todo))
            results.append(Future())
            todo.put((results[-1], item))
            if len(results) >= IN_FLIGHT * num_workers:
                yield results.popleft().result()
        while results:
            yield results.popleft().result()
    finally:
        for result in results:
            result.cancel()
        for worker in workers:
            worker.kill()
            todo.put(None)  # whichever thread takes it
        for worker in workers:
            worker.end()


_open: set[_Worker] = set()


class _Worker:
    """A process that holds the function and gives a result for an item, and the thread that hands it one by one."""

    def __init__(self, start: bytes, todo: _Todo) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `end`
        # In a process group of its own Ctrl-C does not reach it; this process does, and ends it.
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter, our own words
            [sys.executable, "-P", "-c", _BOOT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            process_group=0,
        )
        self._start = start
        self._todo = todo
        # A daemon: an interpreter that ends waits for no other thread, and this one may wait for its worker for long.
        self._thread = threading.Thread(target=self._work_off, daemon=True)
        _open.add(self)
        self._thread.start()

    def _work_off(self) -> None:
        while (job := self._todo.get()) is not None:
            result, item = job
            if not result.set_running_or_notify_cancel():
                continue
            try:
                result.set_result(self.result(item))
            except Exception as error:  # noqa: BLE001 - raised where the result is waited for
                result.set_exception(error)

    def result(self, item: Any) -> Any:
        """Return the function of the item, or raise what it raised."""
        message = self._start + _framed(item)
        pipe = cast(IO[bytes], self._process.stdin)
        try:
            pipe.write(message)
            pipe.flush()
            self._start = b""
            succeeded, found = _received(cast(IO[bytes], self._process.stdout))
        except (EOFError, OSError, ValueError, pickle.UnpicklingError):  # ValueError: the pipe is closed already
            raise self._death() from None
        if not succeeded:
            raise found
        return found

    def end(self) -> None:
        """Wait until process and thread have ended, and let go of the pipes."""
        self._process.wait()
        self._thread.join()
        _open.discard(self)
        for pipe in (self._process.stdin, self._process.stdout, self._errors):
            with contextlib.suppress(OSError):  # what could not be written to it any more
                cast(IO[bytes], pipe).close()

    def kill(self) -> None:
        """End the process and wait for nothing."""
        self._process.kill()

    def _death(self) -> TiebreakError:
        status = self._process.wait()
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip().splitlines()
        if status < 0:
            cause = f"by {signal.Signals(-status).name}; where memory is short, use fewer workers"
        else:
            cause = f"with status {status}" + (f": {one_line(said[-1], 200)}" if said else "")
        return TiebreakError(f"a worker process ended {cause}")


@atexit.register
def _end_all() -> None:
    """End what is still at work: whoever was interrupted over a result holds the generator, and never closes it."""
    for worker in list(_open):
        worker.kill()


def serve() -> None:
    """Be a worker: read the function, then answer item after item until the pipe ends."""
    os.environ.update(_SINGLE_THREAD)
    source, sink = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not get between the results
    with contextlib.suppress(EOFError, BrokenPipeError):
        function, fault = _received(source), ""
        try:
            function = _made(function)
        except Exception as error:  # noqa: BLE001 - whatever it is, the parent is told with the first item
            fault = f"a worker process cannot load the function that it is to apply: {one_line(error, 200)}"
        while True:
            item = _received(source)
            try:
                if fault:
                    raise TiebreakError(fault)
                answer = pickle.dumps((True, function(_made(item))))
            except Exception as error:  # noqa: BLE001 - it is raised where the result is asked for
                answer = pickle.dumps((False, _portable(error)))
            sink.write(answer)
            sink.flush()
    os._exit(0)  # the parent is gone or done; whatever threads a library has left, nothing is to be waited for


def _received(source: IO[bytes]) -> Any:
    return pickle.load(source)  # noqa: S301 - from a process of ours, never from a file


def _made(pickled: bytes) -> Any:
    return pickle.loads(pickled)  # noqa: S301 - as above


def _framed(value: Any) -> bytes:
    """Return a value pickled twice, so that a failure to make it leaves the pipe at the next one."""
    return pickle.dumps(pickle.dumps(value))


def _portable(error: Exception) -> Exception:
    """Return the error, saying where it was raised; only its words where it cannot be made anew."""
    if not isinstance(error, TiebreakError):
        error.add_note("in a worker process:\n" + "".join(traceback.format_exception(error)))
    try:
        _made(pickle.dumps(error))
    except Exception:  # noqa: BLE001 - constructors are foreign code
        return TiebreakError(f"{type(error).__name__} in a worker process: {one_line(error, 500)}")
    return error
