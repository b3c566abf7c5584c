"""Faults on purpose: what can be armed, when it fires, and that nothing happens where nothing was asked for."""

from __future__ import annotations

import errno
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tiebreak import faults
from tiebreak.errors import ConfigError

SOURCE = Path(faults.__file__).parent


@pytest.fixture(autouse=True)
def _disarmed():
    yield
    faults.arm(None)


def _fires(name):
    """Visit a point; say whether its armed lack of memory came."""
    try:
        return faults.point(name)
    except MemoryError:
        return True


def test_nothing_happens_where_nothing_is_armed():
    faults.arm(None)
    assert not any(faults.point(name) for name in faults.POINTS)
    faults.arm("")
    assert not any(faults.point(name) for name in faults.POINTS)


def test_a_fault_fires_at_its_visit_and_only_there():
    faults.arm("nan@step:gradient:3")
    assert [faults.point("step:gradient") for _ in range(5)] == [False, False, True, False, False]


def test_without_a_visit_it_is_the_first():
    faults.arm("oom@save:policy")
    assert [_fires("save:policy") for _ in range(2)] == [True, False]


def test_visits_of_other_points_do_not_count():
    faults.arm("oom@step:end:2")
    seen = [_fires(name) for name in ("step:begin", "step:end", "step:begin", "step:begin", "step:end")]
    assert seen == [False, False, False, False, True]


def test_several_faults_each_have_their_place():
    faults.arm("oom@step:begin:1, oom@step:begin:3,oom@audit")
    assert [_fires("step:begin") for _ in range(4)] == [True, False, True, False]
    assert _fires("audit")


def test_arming_again_forgets_what_was_armed_and_what_was_visited():
    faults.arm("oom@audit:2")
    faults.point("audit")
    faults.arm("oom@audit:2")
    assert [_fires("audit") for _ in range(3)] == [False, True, False]
    faults.arm(None)
    assert not faults.point("audit")


def test_a_full_disk_and_short_memory_are_raised_as_the_system_raises_them():
    faults.arm("full@save:state,oom@reference")
    with pytest.raises(OSError, match="No space left") as full:
        faults.point("save:state")
    assert full.value.errno == errno.ENOSPC
    with pytest.raises(MemoryError):
        faults.point("reference")


@pytest.mark.parametrize(
    ("action", "number"),
    [(name, getattr(signal, f"SIG{name.upper()}")) for name in ("term", "int", "hup", "usr1", "xcpu")],
)
def test_signals_reach_this_process(action, number):
    received = []
    before = signal.signal(number, lambda found, _: received.append(found))
    try:
        faults.arm(f"{action}@report")
        faults.point("report")
    finally:
        signal.signal(number, before)
    assert received == [number]


def test_a_kill_leaves_no_time_for_anything():
    code = (
        "import atexit; from tiebreak import faults\natexit.register(print, 'late', flush=True)\n"
        "faults.arm('kill@policy:2')\nfor _ in range(3):\n    faults.point('policy'); print('alive', flush=True)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (-signal.SIGKILL, "alive\n", "")


@pytest.mark.parametrize("action", sorted(set(faults.ACTIONS) - {"nan"}))
@pytest.mark.parametrize("name", faults.POINTS)
def test_every_action_but_nan_can_be_armed_at_every_point(action, name):
    faults.arm(f"{action}@{name}:7")
    assert not faults.point(name)


@pytest.mark.parametrize("name", faults.POINTS)
def test_nan_can_be_armed_only_where_numbers_can_be_spoilt(name):
    if name == "step:gradient":
        faults.arm(f"nan@{name}")
        assert faults.point(name)
        return
    with pytest.raises(ConfigError, match=f"no number can be spoilt at '{name}'; nan is for step:gradient"):
        faults.arm(f"nan@{name}:2")


def test_the_places_that_heed_a_point_are_those_where_nan_can_be_armed():
    text = "".join(path.read_text(encoding="utf-8") for path in SOURCE.rglob("*.py") if path.name != "faults.py")
    assert set(re.findall(r"\S[ (]faults\.point\(\s*\"([^\"]+)\"", text)) == set(faults.NAN_POINTS)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("kill", "wanted ACTION@POINT:VISIT"),
        ("kill save:policy", "wanted ACTION@POINT:VISIT"),
        ("explode@save:policy", "with an action of kill, term"),
        ("@save:policy", "wanted ACTION@POINT:VISIT"),
        ("kill@", "is no point"),
        ("kill@save", "is no point"),
        ("kill@save:polcy", "Did you mean 'save:policy'?"),
        ("kill@save:policy:two", "is no point"),
        ("kill@save:policy:-1", "is no point"),
        ("kill@save:policy:0", "visit"),
        ("kill@audit,", "wanted ACTION@POINT:VISIT"),
        ("kill@audit:²", "is no point"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(text, words):
    with pytest.raises(ConfigError) as refused:
        faults.arm(text)
    assert words in str(refused.value)
    assert "TIEBREAK_FAULT=" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_what_is_refused_arms_nothing():
    faults.arm(None)
    with pytest.raises(ConfigError):
        faults.arm("oom@audit,kill@nowhere")
    assert not faults.point("audit")


def test_every_point_is_visited_somewhere_and_every_visit_has_a_point():
    # Read, not run: tests/faults runs them. A point that nobody visits would make a kill there pass unseen.
    text = "".join(path.read_text(encoding="utf-8") for path in SOURCE.rglob("*.py") if path.name != "faults.py")
    visited = re.findall(r"faults\.point\(\s*\"([^\"]+)\"", text)
    assert set(visited) == set(faults.POINTS)


def test_only_the_command_line_reads_the_environment(monkeypatch):
    monkeypatch.setenv(faults.VARIABLE, "oom@audit")
    assert not faults.point("audit")


def test_the_command_line_refuses_a_fault_that_cannot_be_meant(tmp_path):
    ended = subprocess.run(
        [sys.executable, "-m", "tiebreak", "config"],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin:/bin", "TIEBREAK_FAULT": "kill@save:polcy"},
        cwd=tmp_path,
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("error: TIEBREAK_FAULT=kill@save:polcy: ")
    assert "Did you mean 'save:policy'?" in ended.stderr
