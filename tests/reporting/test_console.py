"""Progress: bars in a terminal, lines where there is none, and work that goes on where nobody reads."""

from __future__ import annotations

import io
import re
import sys
import time

import pytest

from tiebreak.reporting import console
from tiebreak.reporting.console import Console

NUMBERS = {"loss": 0.692, "rewards/accuracies": 0.5, "rewards/margins": 0.01}


class Terminal(io.StringIO):
    """A terminal of 60 columns."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def log(monkeypatch):
    """Standard error goes to a file once this is called, with a line every 0.1 seconds; returns what reads it."""

    def begin():
        stream = io.StringIO()
        monkeypatch.setattr(console, "FIRST_LINE", 0.1)
        monkeypatch.setattr(console, "LINE_EVERY", 0.1)
        monkeypatch.setattr(sys, "stderr", stream)  # here: pytest sets its own before each test
        return lambda: stream.getvalue().splitlines()

    return begin


@pytest.fixture
def terminal(monkeypatch):
    """Standard error goes to a terminal once this is called; returns what reads it, without what moves the cursor."""
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("TERM", "xterm")
    for name in ("NO_COLOR", "CI", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)

    def begin():
        stream = Terminal()
        monkeypatch.setattr(sys, "stderr", stream)
        return lambda: re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())

    return begin


def wait_for(condition) -> None:
    until = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_without_a_terminal_a_stage_says_where_it_is_again_and_again(log):
    log = log()
    with Console().stage("training", 189) as advance:
        advance(17, NUMBERS)
        advance(1, NUMBERS)
        wait_for(lambda: len(log()) >= 2)  # also where a step takes long and nothing moves
        advance(171, NUMBERS)
    *lines, last = log()
    for line in lines:
        assert re.fullmatch(r"training: 18/189, \d s so far, about \d+ s left · loss 0.692 · acc 50% · .*", line), line
    assert re.fullmatch(r"training: 189/189, in \d s · loss 0.692 · acc 50% · margin \+0.01", last)


def test_what_an_earlier_attempt_has_done_does_not_shorten_the_estimate(log):
    log = log()
    with Console().stage("training", 1000) as advance:
        advance(900)  # resumed
        wait_for(log)
        assert log()[0].endswith("time left not known yet")
        time.sleep(0.3)
        advance(1)
        before = len(log())
        wait_for(lambda: len(log()) > before)
        left = re.search(r"about (?:(\d+) min )?(\d+) s left", log()[-1])
        assert 60 * int(left[1] or 0) + int(left[2]) >= 29  # 99 units of 0.3 seconds and more


def test_a_stage_that_was_cut_off_says_how_far_it_came(log):
    log = log()
    with pytest.raises(ValueError, match="x"), Console().stage("judged", 4) as advance:
        advance(3)
        raise ValueError("x")
    assert log() == ["judged: 3/4, not all, in 0 s"]


def test_a_short_stage_of_unknown_length_says_nothing_and_a_long_one_does(log):
    log = log()
    with Console().stage("reading a.jsonl", None) as advance:
        advance(5)
    assert log() == []
    with Console().stage("reading \x1b[31m[red]", None) as advance:
        advance(12_345)
        wait_for(log)
    assert log()[0] == "reading \\x1b[31m[red]: 12,345, 0 s"
    assert log()[-1] == "reading \\x1b[31m[red]: 12,345, in 0 s"


def test_a_sentence_in_a_log_is_one_line(log):
    log = log()
    Console().say("word " * 100)
    Console().warn("word " * 100)
    assert len(log()) == 2


def test_at_60_columns_the_bar_keeps_count_and_time_left(terminal):
    terminal = terminal()
    with Console().stage("training", 189) as advance:
        for _ in range(17):
            advance(1, NUMBERS)
    lines = [line for line in re.split(r"[\r\n]+", terminal()) if line.strip()]
    assert max(len(line.rstrip()) for line in lines) <= 60
    assert "17/189" in lines[-1]
    assert re.search(r"\d:\d\d|-:--", lines[-1])
    assert "loss 0.692" in lines[-1]
    assert "margin" not in lines[-1]  # numbers are whole or not there


@pytest.mark.parametrize("name", ["neutral texts and questions", "tokens " + "very_long_name_" * 9 + ".jsonl"])
def test_a_long_name_gives_way_to_count_and_time(terminal, name):
    terminal = terminal()
    with Console().stage(name, 123_456) as advance:
        advance(1234)
    line = [line for line in re.split(r"[\r\n]+", terminal()) if line.strip()][-1]
    assert len(line.rstrip()) <= 60
    assert "1234/123456" in line
    assert line.startswith(name[:8])


def test_words_wrap_whole_in_a_terminal(terminal):
    terminal = terminal()
    Console().say("supercalifragilistic " * 9)
    assert set(terminal().split()) == {"supercalifragilistic"}
    assert max(map(len, terminal().splitlines())) <= 60


class Gone(io.StringIO):
    """A terminal that was closed, or a pipe whose other end left."""

    def __init__(self, is_terminal: bool) -> None:
        super().__init__()
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal

    def write(self, text: str) -> int:
        raise OSError(5, "Input/output error")

    def flush(self) -> None:
        raise BrokenPipeError(32, "Broken pipe")


@pytest.mark.parametrize("is_terminal", [True, False])
def test_work_goes_on_where_nobody_reads(monkeypatch, is_terminal):
    monkeypatch.setattr(sys, "stderr", Gone(is_terminal))
    shown = Console()
    shown.say("a")
    shown.warn("b")
    with shown.stage("training", 3) as advance:
        advance(3, NUMBERS)


HELD_OUT = {"heldout/rewards/accuracies": 0.5, "heldout/loss": 0.693}


def test_the_held_out_curve_stands_under_the_bar(terminal):
    terminal = terminal()
    with Console().stage("training", 4) as advance:
        advance(0, HELD_OUT)
        advance(2, NUMBERS)
        advance(0, HELD_OUT | {"heldout/rewards/accuracies": 0.75})
    *_, bar, curve = (line for line in re.split(r"[\r\n]+", terminal()) if line.strip())
    assert "2/4" in bar
    assert "loss 0.692" in bar  # what a probe saw takes no number's place
    assert curve.strip() == "held out ▁█ acc 50% → 75% · loss 0.693 → 0.693"


def test_in_a_log_each_probe_is_a_line(log):
    log = log()
    with Console().stage("training", 4) as advance:
        advance(0, HELD_OUT)
        advance(4, NUMBERS)
    assert log()[0] == "training: held out ▄ acc 50% · loss 0.693"
    assert log()[-1].startswith("training: 4/4, in 0 s · loss 0.692")


@pytest.mark.parametrize("columns", ["0", "00", "80"])
def test_tables_and_sentences_are_shown_where_the_environment_names_no_width(terminal, monkeypatch, capsys, columns):
    terminal = terminal()
    monkeypatch.setenv("COLUMNS", columns)
    check = {"verdict": "pass", "name": "accuracy", "says": "so it is", "override": None}
    console.print_decision({"checks": [check], "verdict": "pass", "reason": "all is well"})
    Console().say("what is said")
    shown = capsys.readouterr().out
    assert "so it is" in shown
    assert "PASS: all is well" in shown
    assert "what is said" in terminal()
