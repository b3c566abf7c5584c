"""The command chat, line by line: in a pipe, and at a terminal."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
import time

import pytest

from tiebreak.cli.conversation import COMMANDS, Session
from tiebreak.errors import EXIT_USAGE, DataError
from tiebreak.files import read_jsonl
from tiebreak.reporting import console


@pytest.fixture
def piped(cli, finished, monkeypatch):
    """Chat with standard input from a pipe; return (exit code, stdout, stderr)."""

    def call(lines: str | bytes, *words: str):
        data = lines if isinstance(lines, bytes) else lines.encode()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))
        return cli("chat", finished.path, "--max-new-tokens", "12", *words)

    return call


def asked(cli, finished, prompt: str, *words: str) -> dict:
    code, out, err = cli("chat", finished.path, "--max-new-tokens", "12", "-p", prompt, "--json", *words)
    assert (code, err) == (0, "")
    return json.loads(out)


def test_each_line_of_a_pipe_is_a_question_and_only_answers_are_printed(piped, cli, finished):
    answer = asked(cli, finished, "the cat sat")["answer"]
    assert answer
    code, out, err = piped("the cat sat\n\n/reset\n the cat sat \n", "--quiet")
    assert (code, err) == (0, "")
    shown = console.printable(answer)
    assert out == f"{shown}\n\n{shown}\n\n"


def test_compare_shows_what_it_said_before_and_can_be_switched(piped, cli, finished):
    both = asked(cli, finished, "the cat sat", "--compare")
    before, answer = (console.printable(both[name]) for name in ("before", "answer"))
    assert list(both) == ["prompt", "before", "answer"]
    pair, alone = f"[before]\n{before}\n\n[after]\n{answer}\n\n", f"{answer}\n\n"
    line = "the cat sat\n/reset\n"
    assert piped(f"{line}/compare\n{line}/compare\n{line}", "-q")[1] == alone + pair + alone
    assert piped(line, "-q", "--compare")[1] == pair


def test_help_names_every_command_and_quit_ends(piped):
    code, out, _ = piped("/help\n/quit\nthe cat sat\n")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == list(COMMANDS)


def test_a_conversation_is_saved_where_it_is_told_to(piped, here):
    code, _, err = piped("the cat sat\n/save talk.jsonl\n")
    assert (code, err.splitlines()[-1]) == (0, "talk.jsonl: written, 2 messages")
    [row] = read_jsonl(here / "talk.jsonl")
    assert [one["role"] for one in row["messages"]] == ["user", "assistant"]
    assert [path.name for path in here.iterdir()] == ["talk.jsonl"]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("/rset", "/rset: no such command; Did you mean '/reset'? /help lists them, and a blank before / asks it"),
        ("/etc/passwd says what?", "/etc/passwd: no such command; /help lists them, and a blank before / asks it"),
        ("/save", "/save: wanted the name of a new file, like /save talk.jsonl"),
        ("/save x.jsonl", "x.jsonl: not written, nothing was said yet"),
        (b"\xff", "standard input: a line is not in UTF-8; nothing was asked"),
    ],
)
def test_what_cannot_be_done_ends_a_pipe_in_one_line(piped, here, line, told):
    code, out, err = piped(line if isinstance(line, bytes) else f"{line}\nnever asked\n", "-q")
    assert (code, out) == (EXIT_USAGE, "")
    assert err.startswith(f"error: {told}")
    assert err.count("\n") == 1
    assert list(here.iterdir()) == []


def test_a_line_that_begins_with_a_blank_is_asked_whatever_it_says(piped, cli, finished):
    answer = asked(cli, finished, "/reset")["answer"]
    assert piped(" /reset\n", "-q")[1] == f"{console.printable(answer)}\n\n"


def test_escapes_that_come_in_pieces_do_nothing_to_a_terminal(capsys):
    for piece in ("a\x1b", "[31m", "red\x1b]0;", "title\x07", "\r\x9b", "2J\u202e", "b\tc\n"):
        console.print_piece(piece)
    shown = capsys.readouterr().out
    assert shown == "a\\x1b[31mred\\x1b]0;title\\x07\\x0d\\x9b2J\\x202eb\tc\n"


class Typed(io.StringIO):
    """Lines that somebody types."""

    def isatty(self) -> bool:
        return True


class Talk:
    """Says a piece of an answer, and is then stopped or not."""

    messages = ("one", "two")

    def ask(self, text, hear):
        hear(f"to {text}: \x1b")
        if text == "stop":
            raise KeyboardInterrupt
        if text == "fail":
            raise DataError("it is full")
        if text == "break":
            raise OSError("no space")

    before = ask

    def reset(self):
        self.messages = ()

    def save(self, path):
        raise DataError(f"{path}: already exists")


@pytest.mark.parametrize("line", ["stop", "fail", "break", "/save x", "/none"])
def test_at_a_terminal_nothing_but_its_user_ends_a_conversation(monkeypatch, capsys, line):
    monkeypatch.setattr(sys, "stdin", Typed(f"{line}\ngo on\n/quit\nnever\n"))
    Session(Talk()).go_on()
    shown = capsys.readouterr()
    assert shown.out.endswith("to go on: \\x1b\n\n")
    assert "never" not in shown.out
    told = [text for text in shown.err.splitlines() if "Ctrl-C stops" not in text]
    wanted = {"stop": "stopped; Ctrl-D", "fail": "it is full", "break": "no space", "/save x": "x: already exists"}
    assert [wanted.get(line, "/none: no such command") in text for text in told].count(True) == 1


def test_ctrl_c_ends_a_pipe(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("stop\nnever\n"))
    with pytest.raises(KeyboardInterrupt):
        Session(Talk()).go_on()


AT_A_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # so that Ctrl-C is a signal
os.execv(sys.executable, [sys.executable, "-m", "tiebreak", *sys.argv[1:]])
"""


class Terminal:
    """The command in a process of its own, at a terminal."""

    def __init__(self, *words: object) -> None:
        self._main, other = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-c", AT_A_TERMINAL, *map(str, words)],
            stdin=other, stdout=other, stderr=other, start_new_session=True,
            env=os.environ | {"TERM": "dumb", "COLUMNS": "200"},
        )  # fmt: skip
        os.close(other)
        self.shown = ""

    def wait_for(self, text: str, seconds: float = 90) -> None:
        """Read until a text is shown behind what was waited for before."""
        end = time.monotonic() + seconds
        os.set_blocking(self._main, False)
        while text not in self.shown:
            assert time.monotonic() < end, self.shown
            try:
                self.shown += os.read(self._main, 4096).decode()
            except BlockingIOError:
                time.sleep(0.02)
        self.shown = self.shown.partition(text)[2]

    def type(self, keys: str) -> None:
        os.write(self._main, keys.encode())


def test_at_a_terminal_ctrl_c_stops_an_answer_and_ctrl_d_ends(finished, here):
    at = Terminal("chat", finished.path, "--max-new-tokens", 100_000)
    try:
        at.wait_for("/help lists what may be said")
        at.wait_for("you> ")
        at.type("/rset\n")
        at.wait_for("warning: /rset: no such command; Did you mean '/reset'?")
        at.wait_for("you> ")
        at.type("\x03")
        at.wait_for("stopped; Ctrl-D or /quit ends")
        at.wait_for("you> ")
        at.type("the cat sat\n")
        at.wait_for("the cat sat")
        at.wait_for("\n")
        at.type("\x03")
        at.wait_for("you> ")
        at.type("\x1b[A\x1b[A\n")  # the line before the last one: what was typed is remembered
        at.wait_for("Did you mean '/reset'?")
        at.wait_for("you> ")
        at.type("\x04")
        assert at.process.wait(30) == 0
        assert list(here.iterdir()) == []
    finally:
        at.process.kill()
        at.process.wait()
