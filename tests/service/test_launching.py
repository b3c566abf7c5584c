"""Workers of this machine: a second one never begins while one lives, whatever becomes of who started it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tiebreak.service.launching import ENDED, LOCK, Local, begun, is_held, sign, signature, take

# Workers as work.py begins: the lock is held and signed first.
BEGIN = "import sys, time, os, signal; from pathlib import Path; from tiebreak.service.work import hold, sign; "
HOLD = "sign(hold(Path(sys.argv[1]), int(sys.argv[3])), os.getpid()); (Path(sys.argv[1]) / 'ready').touch(); "


@pytest.fixture
def start(tmp_path):
    """Start a worker that does what some code says; ends all of them at last."""
    launcher = Local()
    handle = {"folder": str(tmp_path), "job": "ftjob-one", "attempt": 1}

    def begin(code: str, attempt: int = 1):
        told = launcher.start(handle | {"attempt": attempt}, [sys.executable, "-c", BEGIN + HOLD + code, str(tmp_path)])
        _until((tmp_path / "ready").exists)
        return told

    begin.launcher = launcher
    yield begin
    pid = signature(tmp_path)["pid"]
    if is_held(tmp_path / LOCK):
        os.killpg(pid, signal.SIGKILL)
    _until(lambda: launcher.poll(handle) != "running" and begun(pid) is None)


def _until(found) -> None:
    deadline = time.monotonic() + 30
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_worker_runs_in_a_session_of_its_own_behind_the_server_and_reads_nothing(start, tmp_path):
    told = start("assert sys.stdin.read() == ''; print('said', flush=True); time.sleep(60)")
    assert start.launcher.poll(told) == "running"
    assert os.getsid(told["pid"]) == told["pid"]
    assert os.getpriority(os.PRIO_PROCESS, told["pid"]) == os.getpriority(os.PRIO_PROCESS, 0) + 5
    assert signature(tmp_path) == {"pid": told["pid"], "begun": begun(told["pid"]), "host": os.uname().nodename}
    _until(lambda: "said" in (tmp_path / "worker.log").read_text())


def test_a_second_start_finds_the_first_worker(start):
    first = start("time.sleep(60)")
    for launcher in (start.launcher, Local()):
        assert launcher.start(first, [sys.executable, "-c", "raise SystemExit('never')"])["pid"] == first["pid"]


def test_how_a_worker_ended_is_read_from_its_folder_and_no_zombie_stays(start, tmp_path):
    told = start(f"(Path(sys.argv[1]) / '{ENDED}').write_text('{{\"exit\": 0, \"attempt\": 1}}')")
    _until(lambda: start.launcher.poll(told) != "running")
    assert begun(told["pid"]) is None
    assert start.launcher.poll(told) == "done"
    assert start.launcher.poll(told | {"attempt": 2}) == "lost"


def test_a_worker_whose_lock_is_free_before_it_is_gone_leaves_no_zombie_although_nobody_asks_again(start, tmp_path):
    # As all do for a moment: the system closes the files of one that ends before it can be reaped.
    told = start("os.close(int(sys.argv[-1])); time.sleep(0.5)")
    _until(lambda: not is_held(tmp_path / LOCK))
    assert begun(told["pid"]) is not None
    assert start.launcher.poll(told) == "lost"
    assert begun(told["pid"]) is None


def test_a_worker_that_is_killed_is_lost(start):
    told = start("time.sleep(60)")
    os.kill(told["pid"], signal.SIGKILL)
    _until(lambda: start.launcher.poll(told) == "lost")


@pytest.mark.parametrize(
    ("code", "how", "said"),
    [
        ("raise SystemExit('no library of that name')", "exit code 1", "no library of that name"),
        ("1 / 0", "exit code 1", "ZeroDivisionError: division by zero"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "signal 9", "nothing was printed"),
        ("raise SystemExit('Authorization: Bearer abcdefgh12345678')", "exit code 1", "Authorization: Bearer ***"),
    ],
    ids=["a word", "an error", "a signal", "a secret"],
)
def test_of_a_worker_that_dies_at_once_the_operator_learns_how(tmp_path, caplog, code, how, said):
    launcher, handle = Local(), {"folder": str(tmp_path), "job": "ftjob-one", "attempt": 1}
    told = launcher.start(handle, [sys.executable, "-c", f"import os, signal\n{code}"])
    _until(lambda: launcher.poll(told) == "lost")
    assert launcher.poll(told) == "lost"
    assert caplog.messages == [f"ftjob-one: its worker ended with {how} and left no word: {said}"]
    assert (tmp_path / "worker.log").read_text().endswith(f"the worker ended with {how}, and left no word\n")


def test_of_a_worker_that_left_word_nothing_more_is_told(start, tmp_path, caplog):
    told = start(f"(Path(sys.argv[1]) / '{ENDED}').write_text('{{\"exit\": 1, \"attempt\": 1}}')")
    _until(lambda: start.launcher.poll(told) == "done")
    assert caplog.messages == []


@pytest.mark.parametrize(
    "code",
    [
        "os.fork() or time.sleep(60)",
        "import subprocess; subprocess.Popen(['sleep', '60'], close_fds=False, start_new_session=True)",
    ],
    ids=["a process that only forks", "a program"],
)
def test_what_a_worker_starts_does_not_hold_its_lock_any_longer(start, code):
    told = start(f"{code}; os.getpid() == os.getsid(0) and time.sleep(60)")
    time.sleep(0.2)
    os.kill(told["pid"], signal.SIGKILL)
    _until(lambda: start.launcher.poll(told) == "lost")


def test_what_a_dead_worker_left_in_its_session_is_ended(start, tmp_path):
    told = start("pid = os.fork(); pid or time.sleep(60); (Path(sys.argv[1]) / 'child').write_text(str(pid))")
    _until(lambda: (tmp_path / "child").exists() and (tmp_path / "child").read_text())
    child = int((tmp_path / "child").read_text())
    _until(lambda: start.launcher.poll(told) == "lost" and begun(told["pid"]) is None)
    start.launcher.poll(told)
    _until(lambda: begun(child) is None or _is_zombie(child))


def _is_zombie(pid: int) -> bool:
    with Path(f"/proc/{pid}/stat").open() as file:
        return file.read().rpartition(")")[2].split()[0] == "Z"


def test_a_worker_is_asked_once_and_ended_with_its_session_when_it_does_not_heed(start, tmp_path):
    told = start(
        "signal.signal(signal.SIGTERM, lambda *_: print('asked', flush=True)); "
        "(Path(sys.argv[1]) / 'deaf').touch(); [time.sleep(0.05) for _ in range(1200)]"
    )
    _until((tmp_path / "deaf").exists)
    told = start.launcher.stop(told, None)
    told = start.launcher.stop(told | {"asked": told["asked"] - 1000}, None)  # what is to be saved may take long
    told = start.launcher.stop(told | {"asked": time.time()}, 30)
    for _ in range(3):
        told = start.launcher.stop(told, 30)
    _until(lambda: "asked" in (tmp_path / "worker.log").read_text())
    time.sleep(0.2)
    assert (tmp_path / "worker.log").read_text().count("asked") == 1
    assert start.launcher.poll(told) == "running"
    start.launcher.stop(told, 0)
    _until(lambda: start.launcher.poll(told) == "lost")


def test_a_process_that_has_the_number_of_a_dead_worker_is_left_alone(tmp_path):
    stranger = subprocess.Popen(["sleep", "60"], start_new_session=True)
    lock = take(tmp_path / LOCK)
    sign(lock, stranger.pid)
    told = signature(tmp_path) | {"begun": "1"}
    os.pwrite(lock, json.dumps(told).ljust(256).encode(), 0)
    handle = {"folder": str(tmp_path), "job": "ftjob-one", "attempt": 1}
    assert Local().poll(handle) == "running"
    assert "asked" not in Local().stop(handle, 0)
    os.close(lock)
    assert Local().poll(handle) == "lost"
    assert stranger.poll() is None
    stranger.kill()
    stranger.wait()


def test_a_worker_outlives_the_server_that_started_it_and_is_known_to_the_next(tmp_path):
    code = (
        "import sys, time; from tiebreak.service.launching import Local; "
        "told = Local().start({'folder': sys.argv[1], 'job': 'j', 'attempt': 1}, [sys.executable, '-c', sys.argv[2], "
        "sys.argv[1]]); print(told['pid'], flush=True); time.sleep(60)"
    )
    server = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path), BEGIN + HOLD + "time.sleep(60)"], stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    pid = int(server.stdout.readline())
    server.kill()
    server.communicate()
    handle = {"folder": str(tmp_path), "job": "j", "attempt": 1}
    launcher = Local()
    assert launcher.poll(handle) == "running"
    assert launcher.start(handle, [sys.executable, "-c", "raise SystemExit"])["pid"] == pid
    _until((tmp_path / "ready").exists)
    launcher.stop(launcher.stop(handle, 30), 0)
    _until(lambda: launcher.poll(handle) == "lost")
