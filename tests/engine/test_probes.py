"""What a machine is faster at is measured once, kept, and answered alike; a run keeps the answers it began with."""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import threading
import time
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from tiebreak.engine import probes
from tiebreak.engine.probes import given, hold, is_faster


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("_asked", "_held"):
        monkeypatch.setattr(probes, name, {})
    monkeypatch.setattr(probes, "_gave_up", threading.Event())


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes only where a way takes its time."""
    now = [0.0]
    monkeypatch.setattr(probes.time, "perf_counter", lambda: now[0])
    return now


def _ways(clock, one, usual):
    """Ways that take seconds: the first time in each, the second in every later one."""
    calls = [0, 0]

    def way(place, seconds):
        def take():
            calls[place] += 1
            clock[0] += seconds[min(calls[place], len(seconds)) - 1]

        return take

    made = []

    def ways():
        made.append(True)
        return way(0, one), way(1, usual)

    return ways, calls, made


def _files(tmp_path):
    return list((tmp_path / "cache" / "tiebreak" / "machine").glob("*.json"))


@pytest.mark.parametrize(
    ("one", "by", "wanted"), [(0.10, 2.0, True), (0.11, 2.0, False), (0.19, 1.03, True), (0.2, 1.03, False)]
)
def test_it_has_to_gain_what_is_asked(clock, one, by, wanted):
    ways, _, _ = _ways(clock, [one], [0.2])
    assert is_faster("q", ways, by) is wanted


def test_the_fastest_of_several_turns_counts_and_the_first_is_not_counted(clock):
    ways, calls, _ = _ways(clock, [9.0, 0.05, 0.01, 0.05], [9.0, 0.02])
    assert is_faster("q", ways, 1.5)
    assert calls == [1 + probes.REPEATS] * 2


def test_what_takes_long_is_measured_twice_and_no_more(clock):
    ways, calls, _ = _ways(clock, [5.0], [6.0])
    assert is_faster("q", ways, 1.1)
    assert calls == [3, 3]


def test_an_answer_is_kept_for_this_process_and_the_next(clock, tmp_path, monkeypatch):
    ways, calls, made = _ways(clock, [0.1], [0.2])
    assert is_faster("q", ways, 1.5)
    assert is_faster("q", ways, 1.5)
    monkeypatch.setattr(probes, "_asked", {})  # another process
    ways, calls, made = _ways(clock, [0.3], [0.2])
    assert is_faster("q", ways, 1.5)
    assert calls == [0, 0]
    assert not made
    [file] = _files(tmp_path)
    told = json.loads(file.read_text())["answers"]["q"]
    assert told == {"seconds": pytest.approx([0.1, 0.2])}


def test_what_is_kept_are_seconds_so_that_more_or_less_can_be_asked_of_them(clock, monkeypatch):
    assert is_faster("q", _ways(clock, [0.1], [0.2])[0], 1.5)
    monkeypatch.setattr(probes, "_asked", {})
    assert not is_faster("q", _ways(clock, [0.1], [0.2])[0], 2.5)


def test_another_number_of_threads_is_another_machine(clock, tmp_path, monkeypatch):
    assert is_faster("q", _ways(clock, [0.1], [0.2])[0], 1.5)
    monkeypatch.setattr(probes, "_asked", {})
    monkeypatch.setattr(probes.torch, "get_num_threads", lambda: 77)
    assert not is_faster("q", _ways(clock, [0.3], [0.2])[0], 1.5)
    assert len(_files(tmp_path)) == 2


@pytest.mark.parametrize(
    "content",
    [
        *("", "{", "[]", '{"answers": []}', '{"answers": {"q": 1}}', '{"answers": {"q": {"faster": true}}}'),
        *('{"answers": {"q": {"seconds": [1, 2, 3]}}}', '{"answers": {"q": {"seconds": [1, "x"]}}}'),
        *('{"answers": {"q": {"seconds": [NaN, Infinity]}}}', '{"answers": {"q": {"seconds": [0, -1]}}}'),
        *('{"answers": {"q": {"seconds": ' + "[" * 100_000, '{"answers": {"q": {"seconds": [' + "9" * 9999 + ", 1]}}}"),
        '{"answers": {"\\ud800": {"seconds": [1, 2]}}}',
        *(
            f'{{"answers": {{"q": {{"seconds": {told}}}}}}}'
            for told in ("[1e-300, 1e300]", "[false, true]", '["1", "2"]')
        ),
        *(f'{{"answers": {{"q": {{"seconds": {told}}}}}}}' for told in ('"12"', '{"1": 0, "2": 0}', "[1, 1e9]")),
        '{"answers": {"q": {"seconds": [2, 1]}}}' + " " * 2**21,
    ],
    ids=lambda text: text[:40],
)
def test_a_file_that_is_no_such_is_measured_anew(clock, tmp_path, monkeypatch, content):
    assert is_faster("q", _ways(clock, [0.1], [0.2])[0], 1.5)
    [file] = _files(tmp_path)
    file.write_text(content)
    monkeypatch.setattr(probes, "_asked", {})
    assert is_faster("q", _ways(clock, [0.1], [0.2])[0], 1.5)
    monkeypatch.setattr(probes, "_asked", {})  # and the next process reads it again
    assert is_faster("q", _ways(clock, [0.3], [0.2])[0], 1.5)


@pytest.mark.parametrize("name", [".lock", "answers"])
@pytest.mark.parametrize("kind", ["folder", "link", "loop", "pipe", "second name"])
def test_something_else_in_the_place_of_a_file_is_nothing(clock, tmp_path, monkeypatch, name, kind):
    assert is_faster("q", _ways(clock, [0.1], [0.2])[0], 1.5)
    [file] = _files(tmp_path)
    place = file if name == "answers" else file.with_name(".lock")
    place.unlink()
    (tmp_path / "other").write_text('{"answers": {"q": {"seconds": [2, 1]}}}')
    if kind == "folder":
        place.mkdir()
    elif kind == "pipe":
        os.mkfifo(place)
    elif kind == "second name":
        place.hardlink_to(tmp_path / "other")
    else:
        place.symlink_to(place if kind == "loop" else tmp_path / "other")
    monkeypatch.setattr(probes, "_asked", {})
    assert is_faster("q", _ways(clock, [0.1], [0.2])[0], 1.5)
    assert (tmp_path / "other").read_text() == '{"answers": {"q": {"seconds": [2, 1]}}}'


def test_without_a_place_to_keep_it_a_process_still_answers_alike(clock, tmp_path):
    (tmp_path / "cache").write_text("a file, where the folder should be")
    ways, calls, _ = _ways(clock, [0.1], [0.2])
    assert is_faster("q", ways, 1.5)
    num = list(calls)
    assert is_faster("q", ways, 1.5)
    assert calls == num


def test_a_run_that_goes_on_goes_by_the_answers_it_began_with(clock):
    assert not is_faster("q", _ways(clock, [0.3], [0.2])[0], 1.5)
    hold({"q": True, "other": False, "odd": "yes"})
    ways, calls, _ = _ways(clock, [0.3], [0.2])
    assert is_faster("q", ways, 1.5)
    assert not is_faster("other", ways, 1.5)
    assert calls == [0, 0]
    assert given() == {"odd": False, "other": False, "q": True}


def test_the_next_run_of_a_process_goes_by_no_answers_of_the_one_before(clock):
    assert not is_faster("q", _ways(clock, [0.3], [0.2])[0], 1.5)
    hold({"q": True, "other": True})
    hold({})
    assert not is_faster("q", _ways(clock, [0.3], [0.2])[0], 1.5)
    assert given() == {"q": False}


def test_a_dry_run_answers_no_and_keeps_nothing(clock, tmp_path):
    ways, calls, _ = _ways(clock, [0.1], [0.2])
    with FakeTensorMode():
        assert not is_faster("q", ways, 1.5)
    assert calls == [0, 0]
    assert given() == {}
    assert is_faster("q", ways, 1.5)


def test_measuring_leaves_random_numbers_and_gradients_as_they_were(clock):
    torch.manual_seed(3)
    wanted = torch.rand(2).tolist()
    torch.manual_seed(3)
    seen = []

    def ways():
        seen.append((torch.is_grad_enabled(), torch.is_autocast_enabled("cpu"), torch.is_inference_mode_enabled()))
        torch.rand(5)
        return (lambda: None), (lambda: None)

    with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
        is_faster("q", ways, 1.5)
    assert seen == [(False, False, False)]
    assert torch.rand(2).tolist() == wanted
    assert torch.is_grad_enabled()


def test_a_question_within_a_question_is_answered_and_both_are_kept(clock, tmp_path):
    def ways():
        assert is_faster("inner", _ways(clock, [0.1], [0.2])[0], 1.5)
        return _ways(clock, [0.3], [0.2])[0]()

    began = time.monotonic()
    assert not is_faster("outer", ways, 1.5)
    assert time.monotonic() - began < probes._WAITING_SECONDS / 2
    [file] = _files(tmp_path)
    assert json.loads(file.read_text())["answers"].keys() == {"inner", "outer"}
    assert given() == {"inner": True, "outer": False}


def test_threads_of_a_process_measure_one_after_the_other():
    inside, most = [0], [0]

    def ways():
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        time.sleep(0.05)
        inside[0] -= 1
        return (lambda: None), (lambda: None)

    threads = [threading.Thread(target=is_faster, args=(f"q{at}", ways, 1.5)) for at in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]


def _hold_lock(path, ready, done):
    with Path(path).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ready.set()
        done.wait(30)


def test_another_process_that_measures_is_waited_for_but_not_for_ever(clock, tmp_path, monkeypatch):
    monkeypatch.setattr(probes, "_WAITING_SECONDS", 0.3)
    folder = tmp_path / "cache" / "tiebreak" / "machine"
    folder.mkdir(parents=True)
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    other = context.Process(target=_hold_lock, args=(str(folder / ".lock"), ready, done))
    other.start()
    try:
        assert ready.wait(60)
        began = time.monotonic()
        assert is_faster("q", _ways(clock, [0.1], [0.2])[0], 1.5)
        assert 0.3 <= time.monotonic() - began < 0.6
        # What is kept is answered at once, and for the next question nobody waits again.
        monkeypatch.setattr(probes, "_asked", {})
        for question in ("q", "next", "last"):
            assert is_faster(question, _ways(clock, [0.1], [0.2])[0], 1.5)
        assert time.monotonic() - began < 0.6
    finally:
        done.set()
        other.join()
