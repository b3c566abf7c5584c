"""Who is at work in a folder, told from outside and without being in the way."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from tiebreak import files
from tiebreak.folders import holder


def test_a_lock_that_is_held_is_told_and_stays_held(tmp_path):
    assert holder(tmp_path) is None
    with files.locked(tmp_path):
        found = holder(tmp_path)
        assert (found.name, found.alive) == (f"{socket.gethostname()} pid {os.getpid()}", True)
        with pytest.raises(files.RunError, match="in use"), files.locked(tmp_path):
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
