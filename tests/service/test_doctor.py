"""The doctor's process: it ends with the server that asked, whatever ends that."""

from __future__ import annotations

import subprocess
import sys
import time

import psutil
import pytest

from served import wait
from tiebreak.service.examining import examine

ASKS = """
import sys, time
from pathlib import Path
from tiebreak.service.examining import examine

print(examine(Path(sys.argv[1])).process.pid, flush=True)
time.sleep(60)
"""


def _is_gone(process):
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize("seconds", [0.0, 0.5])
def test_a_doctor_ends_with_a_server_that_is_killed(tmp_path, seconds):
    # Of so many pairs it has nothing to say before seconds are over.
    pairs = (f'{{"prompt": "a {number}", "chosen": "b", "rejected": "c"}}\n' for number in range(20_000))
    (tmp_path / "pairs.jsonl").write_text("".join(pairs))
    (tmp_path / "config.yaml").write_text(f"data: {{train: {tmp_path}/pairs.jsonl}}\n")
    server = subprocess.Popen([sys.executable, "-c", ASKS, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    doctor = psutil.Process(int(server.stdout.readline()))
    time.sleep(seconds)
    server.kill()
    server.wait()
    server.stdout.close()
    wait(lambda: _is_gone(doctor))
    (printed,) = tmp_path.glob(".check-*")
    assert printed.read_bytes() == b""  # it did not come to an end by itself


def test_a_doctor_says_what_it_found_to_a_server_that_lives(tmp_path):
    examination = examine(tmp_path)
    wait(lambda: examination.is_over, 60)
    found = examination.result({}, ())
    assert found.error["code"] == "invalid_settings"  # there are none in the folder
    assert not list(tmp_path.glob(".check-*"))


def test_a_doctor_that_is_ended_leaves_nothing(tmp_path):
    examination = examine(tmp_path)
    examination.end()
    assert examination.is_over
    assert not list(tmp_path.glob(".check-*"))
