"""Work in other processes gives what work in this one gives, in order, and whatever ends it leaves no process."""

from __future__ import annotations

import math
import operator
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import psutil
import pytest

from tiebreak.data.workers import IN_FLIGHT, mapped
from tiebreak.errors import RenderError, TiebreakError


def slow_when_even(number: int) -> int:
    time.sleep(0.02 * (number % 2 == 0))
    return number * number


def process_of(_: int) -> int:
    return os.getpid()


def refuse(number: int) -> int:
    if number == 3:
        raise LookupError(f"no {number}")
    return number


class Untold(TiebreakError):
    """An error that keeps one of its two arguments, and so cannot be made anew."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def refuse_with_two_arguments(_: int) -> int:
    raise Untold("seam", "does not fit")


def refuse_to_render(_: int) -> int:
    raise RenderError("seam", "does not fit")


def print_much(number: int) -> int:
    print("noise" * 100)
    os.write(1, b"noise")
    return number


def kill_itself(number: int) -> int:
    if number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def end_itself(_: int) -> None:
    os.write(2, b"the disk is gone\n")
    os._exit(7)


def sleep_and_tell(item: tuple[float, Path]) -> None:
    seconds, told = item
    time.sleep(seconds)
    told.touch()


def environment(name: str) -> str | None:
    return os.environ.get(name)


def threads_of(_: int) -> int:
    return threading.active_count()


def children() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


@pytest.fixture(autouse=True)
def _no_process_is_left():
    before = set(children())
    yield
    assert not [child for child in children() if child not in before]


# ---------------------------------------------------------------------------------------------------------- the results


@pytest.mark.parametrize("num_workers", [1, 2, 3])
def test_results_come_in_the_order_of_the_items(num_workers):
    assert list(mapped(slow_when_even, range(12), num_workers)) == [n * n for n in range(12)]


@pytest.mark.parametrize("num", [0, 1, 2, 3, 4, 5, 9])
def test_no_result_is_lost_or_given_twice(num):
    assert list(mapped(operator.neg, range(num), 2)) == [-n for n in range(num)]


def test_one_worker_is_this_process_and_several_are_others():
    assert set(mapped(process_of, range(3), 1)) == {os.getpid()}
    others = set(mapped(process_of, range(8), 2))
    assert os.getpid() not in others
    assert len(others) == 2


def test_no_more_processes_start_than_there_are_items():
    assert len(set(mapped(process_of, [0], 8))) == 1


def test_a_function_brings_its_arguments():
    assert list(mapped(partial(math.pow, 2.0), [1.0, 2.0, 3.0], 2)) == [2.0, 4.0, 8.0]


def test_large_items_and_results_pass():
    items = [bytes([n]) * 3_000_000 for n in range(4)]
    assert list(mapped(bytes.upper, items, 2)) == [item.upper() for item in items]


def test_what_a_worker_prints_is_not_taken_for_a_result(capfd):
    assert list(mapped(print_much, range(4), 2)) == list(range(4))
    assert capfd.readouterr() == ("", "")


def test_workers_do_not_start_threads_of_their_own():
    assert set(mapped(environment, ["RAYON_NUM_THREADS", "OMP_NUM_THREADS"], 2)) == {"1"}
    assert set(mapped(threads_of, range(2), 2)) == {1}


@pytest.mark.parametrize("num_workers", [1, 2, 3])
def test_few_items_are_taken_ahead_of_their_results(num_workers):
    taken = []
    results = mapped(operator.neg, (taken.append(n) or n for n in range(100)), num_workers)
    for done in range(1, 20):
        next(results)
        assert len(taken) <= done + IN_FLIGHT * num_workers


# ----------------------------------------------------------------------------------------------------- when it goes bad


@pytest.mark.parametrize("num_workers", [1, 2])
def test_an_error_comes_out_where_its_result_would(num_workers):
    results = mapped(refuse, range(9), num_workers)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(LookupError, match="no 3") as raised:
        next(results)
    if num_workers > 1:
        assert "in refuse" in raised.value.__notes__[0]


def test_an_error_that_does_not_travel_is_told_in_words():
    with pytest.raises(TiebreakError, match="Untold in a worker process: does not fit"):
        list(mapped(refuse_with_two_arguments, [1], 2))


def test_the_reason_of_a_render_error_travels():
    with pytest.raises(RenderError) as refusal:
        list(mapped(refuse_to_render, [1], 2))
    assert (refusal.value.reason, str(refusal.value)) == ("seam", "does not fit")


def test_an_error_of_the_items_is_raised_as_it_is():
    def items():
        yield 1
        raise OSError("damaged")

    with pytest.raises(OSError, match="damaged"):
        list(mapped(operator.neg, items(), 2))


def test_a_function_that_cannot_be_imported_is_told():
    script = (
        "from tiebreak.data.workers import mapped\n"
        "def own(number): return number\n"
        "try: list(mapped(own, [1], 2))\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("TiebreakError a worker process cannot load the function that it is to apply: ")
    assert "own" in done.stdout


def test_a_killed_worker_is_an_error_and_no_hang():
    with pytest.raises(TiebreakError, match="a worker process ended by SIGKILL; where memory is short"):
        list(mapped(kill_itself, range(6), 2))


def test_a_worker_that_ends_tells_its_last_words():
    with pytest.raises(TiebreakError, match="ended with status 7: the disk is gone"):
        list(mapped(end_itself, range(2), 2))


def test_results_that_nobody_waits_for_stop_the_workers(tmp_path):
    items = [(0.0 if number == 0 else 60.0, tmp_path / str(number)) for number in range(5)]
    before = children()
    results = mapped(sleep_and_tell, items, 2)
    next(results)
    results.close()
    assert children() == before
    assert [path.name for path in tmp_path.iterdir()] == ["0"]  # nobody slept to the end


# ------------------------------------------------------------------------------------------------- scripts from outside

SCRIPT = """
import time
from tiebreak.data.workers import mapped
print("running", flush=True)
for _ in mapped(time.sleep, [0.0, 0.0, SECONDS, SECONDS], 2):
    print("done", flush=True)
"""


def started(tmp_path, seconds: int) -> subprocess.Popen:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.replace("SECONDS", str(seconds)), encoding="utf-8")
    process = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    said = [process.stdout.readline() for _ in range(3)]
    assert said == ["running\n", "done\n", "done\n"]  # the script ran once: no worker ran it again
    return process


@pytest.mark.parametrize(
    ("how", "item_seconds"),
    # An interrupted script ends its workers; one that is killed cannot, and they end with the item that they are at.
    [(signal.SIGINT, 60), (signal.SIGTERM, 2), (signal.SIGKILL, 2)],
)
def test_no_worker_outlives_a_script_without_a_main_guard(tmp_path, how, item_seconds):
    process = started(tmp_path, item_seconds)
    workers = psutil.Process(process.pid).children(recursive=True)
    assert len(workers) == 2
    process.send_signal(how)
    process.communicate(timeout=30)
    assert process.returncode == -how
    assert psutil.wait_procs(workers, timeout=30)[1] == []
