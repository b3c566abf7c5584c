"""The program of a worker: how it ends, and what it leaves about it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tiebreak.errors import ConfigError, NotFinite, Preempted
from tiebreak.service import work
from tiebreak.service.launching import LOCK, is_held, signature


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ConfigError("training.epochs: wanted a number"), 2, "training.epochs: wanted a number"),
        (NotFinite("step 3:\nthe loss is nan"), 1, "step 3: the loss is nan"),
        (Preempted("SIGTERM"), 75, "stopped by SIGTERM; run the same command again to resume"),
        (KeyboardInterrupt(), 130, "interrupted; what was finished before is kept"),
        (MemoryError(), 1, "out of memory"),
        (OSError(28, "No space left on device"), 1, "[Errno 28] No space left on device"),
        (ZeroDivisionError("by zero"), 1, "unforeseen ZeroDivisionError (by zero)"),
    ],
)
def test_an_end_is_an_exit_code_and_one_line(error, code, said, capsys):
    assert work.end_of(error) == (code, said)
    assert capsys.readouterr().err.rstrip().endswith(said)


def test_secrets_stand_in_no_line_and_no_log(monkeypatch, capsys):
    monkeypatch.setenv("SOME_TOKEN", "abracadabra-42")
    _, said = work.end_of(ValueError("login of abracadabra-42 at https://me:pass@host failed"))
    log = capsys.readouterr().err
    assert "Traceback" in log or "ValueError" in log
    for text in (said, log):
        assert "abracadabra" not in text
        assert "pass@" not in text


def _start(folder: Path, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tiebreak.service.work", str(folder)],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )


def test_a_folder_without_settings_ends_with_two_and_says_so(tmp_path):
    (tmp_path / "work.json").write_text('{"form": "adapter", "attempt": 3}')
    worker = _start(tmp_path)
    _, log = worker.communicate(timeout=60)
    told = json.loads((tmp_path / "ended.json").read_text())
    assert (worker.returncode, told["exit"], told["attempt"]) == (2, 2, 3)
    assert "config.yaml" in told["message"]
    assert log.splitlines()[-1] == f"error: {told['message']}"
    assert "Traceback" not in log


def test_a_worker_that_a_scheduler_started_waits_for_the_one_that_lives(tmp_path):
    code = (
        "import os, sys, time; from pathlib import Path; from tiebreak.service.work import hold, sign; "
        "sign(hold(Path(sys.argv[1]), None), os.getpid()); print('held', flush=True); time.sleep(60)"
    )
    first = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None
    assert first.stdout.readline() == "held\n"
    assert is_held(tmp_path / LOCK)
    (tmp_path / "work.json").write_text('{"form": "adapter", "attempt": 2}')
    second = _start(tmp_path)
    time.sleep(1.0)
    assert second.poll() is None
    assert signature(tmp_path)["pid"] == first.pid
    assert not (tmp_path / "ended.json").exists()
    first.kill()
    first.communicate()
    second.communicate(timeout=60)
    assert json.loads((tmp_path / "ended.json").read_text())["attempt"] == 2


def test_a_signal_ends_a_worker_with_75_before_anything_computes(tmp_path):
    os.mkfifo(tmp_path / "work.json")  # it waits for what nobody writes
    worker = _start(tmp_path)
    deadline = time.monotonic() + 60
    while not signature(tmp_path):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    worker.send_signal(signal.SIGTERM)
    worker.communicate(timeout=60)
    assert worker.returncode == 75
    assert json.loads((tmp_path / "ended.json").read_text())["exit"] == 75


def test_a_worker_that_is_ended_early_tells_which_attempt_it_was(tmp_path):
    """Else the server takes it for another one's word, and the job for one whose worker died."""
    (tmp_path / "work.json").write_text('{"form": "adapter", "attempt": 3}')
    code = (
        "import sys, time; from tiebreak.service import work; "
        "work.take = lambda path, wait: work.os.open(path, 66); "
        "work.sign = lambda *_: (print('signed', flush=True), time.sleep(60)); sys.exit(work.main(sys.argv[1:]))"
    )
    worker = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert worker.stdout.readline() == "signed\n"
    worker.send_signal(signal.SIGTERM)
    worker.communicate(timeout=60)
    told = json.loads((tmp_path / "ended.json").read_text())
    assert (worker.returncode, told["exit"], told["attempt"]) == (75, 75, 3)


def test_a_signal_that_a_library_swallowed_ends_the_worker_before_it_trains(tmp_path):
    (tmp_path / "work.json").write_text('{"form": "adapter", "attempt": 1}')
    code = (
        "import contextlib, signal, sys; from tiebreak.service import work\n"
        "def sign(*_):\n"
        "    with contextlib.suppress(BaseException):\n"
        "        signal.raise_signal(signal.SIGTERM)\n"
        "work.sign = sign; sys.exit(work.main(sys.argv[1:]))"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path)], timeout=120, check=False)
    assert ended.returncode == 75


def test_the_server_loads_nothing_that_computes():
    code = (
        "import sys; import tiebreak.service.supervisor, tiebreak.service.work; "
        "print([name for name in ('torch', 'numpy', 'transformers', 'peft', 'pyarrow') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"
