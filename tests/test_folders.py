"""Who is at work in a folder, told from outside and without being in the way: asking takes a lock from nobody."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import subprocess
import sys
import threading

import pytest

from tiebreak import files, folders
from tiebreak.errors import InUse, RunError
from tiebreak.folders import holder
from tiebreak.service import launching


def test_a_lock_that_is_held_is_told_and_stays_held(tmp_path):
    assert holder(tmp_path) is None
    with folders.locked(tmp_path):
        found = holder(tmp_path)
        assert (found.name, found.alive) == (f"{socket.gethostname()} pid {os.getpid()}", True)
        with pytest.raises(files.RunError, match="in use"), folders.locked(tmp_path):
            pass
    assert holder(tmp_path) is None


def test_who_died_with_it_is_dead_and_a_number_given_anew_is_nobody(tmp_path):
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    for pid in (done.pid, os.getpid()):  # the second is alive, and holds no lock
        (tmp_path / ".lock").write_text(f"{socket.gethostname()} pid {pid}")
        assert holder(tmp_path).alive is False


def test_of_another_machine_nothing_is_said(tmp_path):
    (tmp_path / ".lock").write_text("elsewhere pid 1")
    assert holder(tmp_path).alive is None


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"words", b"host pid 99999999999999"])
def test_what_is_no_owner_is_nobody(tmp_path, content):
    (tmp_path / ".lock").write_bytes(content)
    assert holder(tmp_path) is None


def test_a_pipe_or_a_link_in_its_place_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / ".lock")
    assert holder(tmp_path) is None
    (tmp_path / ".lock").unlink()
    (tmp_path / ".lock").symlink_to("/dev/zero")
    assert holder(tmp_path) is None


# -------------------------------------------------------------------------------------------------------------- asking

# A process that asks, and is slow about it: it says that it has its share, and keeps it until it is told.
_ASKS = """
import fcntl, sys
def slowly(handle, kind, flock=fcntl.flock):
    flock(handle, kind)
    if kind & fcntl.LOCK_SH:
        print("asks", flush=True)
        sys.stdin.readline()
fcntl.flock = slowly
from pathlib import Path
from tiebreak.service.launching import is_held
print(is_held(Path(sys.argv[1])), flush=True)
"""
_HOLDS = """
import sys
from pathlib import Path
from tiebreak.service.launching import take
print(take(Path(sys.argv[1])) is not None, flush=True)
sys.stdin.readline()
"""


@contextlib.contextmanager
def _process(code, file):
    call = [sys.executable, "-c", code, str(file)]
    with subprocess.Popen(call, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def file(tmp_path):
    tmp_path.joinpath(".lock").touch()
    return tmp_path / ".lock"


def _freed(asking, take):
    """Return what taking gives that began while another process asked, and what that one was told."""
    assert asking.stdout.readline() == "asks\n"
    done = threading.Event()
    answer = []

    def end():
        done.wait(0.2)  # taking would have given up by now
        answer.append(asking.communicate("\n")[0])

    ending = threading.Thread(target=end)
    ending.start()
    found = take()
    ending.join()
    return found, answer[0]


def test_who_takes_a_lock_gets_it_although_another_process_asks_for_it_just_then(file):
    with _process(_ASKS, file) as asking:
        handle, told = _freed(asking, lambda: launching.take(file))
    assert handle is not None
    assert told == "False\n"
    os.close(handle)


def test_a_folder_is_not_called_in_use_because_somebody_asks(file):
    def enter():
        with folders.locked(file.parent):
            return True

    with _process(_ASKS, file) as asking:
        assert _freed(asking, enter) == (True, "False\n")


def test_two_who_ask_at_once_do_not_believe_each_other_to_hold_it(file):
    with _process(_ASKS, file) as asking:
        assert asking.stdout.readline() == "asks\n"
        assert not launching.is_held(file)
        assert asking.communicate("\n")[0] == "False\n"


def test_a_lock_that_is_held_is_given_to_nobody_and_told_to_all(file):
    with _process(_HOLDS, file) as holding:
        assert holding.stdout.readline() == "True\n"
        assert launching.take(file) is None
        assert launching.is_held(file)
        with pytest.raises(RunError, match="in use by"), folders.locked(file.parent):
            pass
        # Asking leaves nothing behind that would keep the lock from the next.
        holding.communicate("\n")
    with folders.locked(file.parent):
        assert folders.is_at_work(file.parent)
    assert not launching.is_held(file)


def test_who_asks_for_ever_counts_as_holding(file, monkeypatch):
    monkeypatch.setattr(folders, "_ASKING_SECONDS", 0.01)
    other = os.open(file, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_SH)
    assert launching.take(file) is None
    os.close(other)


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK])
def test_a_file_system_without_locks_is_named_as_such_and_nobody_is_waited_for(tmp_path, monkeypatch, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(folders.fcntl, "flock", refuse)
    with (
        pytest.raises(RunError, match=r"has no locks .* choose another") as found,
        folders.locked(tmp_path),
    ):
        pass
    assert not isinstance(found.value, InUse)


def test_the_lock_of_a_folder_that_was_moved_meanwhile_does_not_count_for_the_one_in_its_place(tmp_path, monkeypatch):
    folder, real = tmp_path / "run", folders.seized

    def moved_first(handle):
        folder.rename(tmp_path / "elsewhere")
        folder.mkdir()
        return real(handle)

    folder.mkdir()
    monkeypatch.setattr(folders, "seized", moved_first)
    with pytest.raises(RunError, match="deleted or moved"), folders.locked(folder):
        pass
    (tmp_path / "elsewhere").rename(tmp_path / "away")
    with pytest.raises(OSError, match="deleted or moved"):
        launching.take(folder / ".worker")
    monkeypatch.setattr(folders, "seized", real)
    with folders.locked(folder):  # nobody is left with a lock of it
        pass
