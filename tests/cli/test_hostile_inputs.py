"""Every command on every hostile thing in place of what it takes: one line and a documented exit code."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import socket
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from tiebreak.cli.app import app
from tiebreak.errors import EXIT_FAILED, EXIT_FAILURE, EXIT_INCONCLUSIVE, EXIT_USAGE

DEEP = "[" * 100_000
ROW = '{"prompt": "a", "chosen": "b", "rejected": "c"}\n'


def _text(content: str) -> Callable[[Path], object]:
    return lambda place: place.write_text(content, encoding="utf-8")


def _bytes(content: bytes) -> Callable[[Path], object]:
    return lambda place: place.write_bytes(content)


def _socket(place: Path) -> None:
    here = Path.cwd()
    os.chdir(place.parent)  # the name of a socket is at most 107 bytes
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(place.name)
    os.chdir(here)


def _into(content: dict[str, str]) -> Callable[[Path], object]:
    def write(place: Path) -> None:
        place.mkdir()
        for name, text in content.items():
            (place / name).write_text(text, encoding="utf-8")

    return write


ANY: dict[str, Callable[[Path], object]] = {
    "nothing there": lambda _: None,
    "an empty file": _bytes(b""),
    "blank lines": _bytes(b"\n \n" * 1000),
    "zero bytes": _bytes(b"\0" * 4096),
    "random bytes": _bytes(bytes(range(256)) * 16),
    "half a character": _bytes(ROW.encode() + b'{"prompt": "\xc3'),
    "a lone surrogate": _text('{"prompt": "\\ud800", "chosen": "\\udfff", "rejected": "\\ud800"}\n'),
    "too deep": _text(DEEP),
    "an object too deep": _text('{"a":' * 100_000),
    "a number of 10,000 digits": _text('{"prompt": %s}\n' % ("9" * 10_000)),
    "no number": _text('{"prompt": NaN, "chosen": Infinity, "rejected": -Infinity}\n'),
    "a word": _text('"pairs"\n'),
    "null": _text("null\n"),
    "numbers": _text("[1, 2, 3]\n"),
    "an object of nothing": _text("{}\n"),
    "a row cut off": _text(ROW + '{"prompt": "a", "cho'),
    "a gzip cut off": _bytes(gzip.compress(ROW.encode() * 1000)[:40]),
    "a gzip of nothing": _bytes(gzip.compress(b"")),
    "a zip's first bytes": _bytes(b"PK\x03\x04" + b"\0" * 60),
    "a parquet's first bytes": _bytes(b"PAR1" + b"\0" * 60 + b"PAR1"),
    "an arrow's first bytes": _bytes(b"ARROW1\0\0" + b"\xff" * 60),
    "a zstd's first bytes": _bytes(b"\x28\xb5\x2f\xfd" + b"\xff" * 60),
    "a pickle": _bytes(b"\x80\x04\x95\x10\0\0\0\0\0\0\0\x8c\x05posix\x94\x8c\x06system\x94\x93\x94."),
    "yaml that makes an object": _text("a: !!python/object/apply:os.system ['touch made_by_yaml']\n"),
    "yaml that grows": _text(
        "a: &a [x,x,x,x,x,x,x,x,x]\n"
        + "".join(f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n" for old, new in pairwise("abcdefghi"))
    ),
    "yaml that holds itself": _text("a: &a [*a]\n"),
    "yaml with a tab": _text("model:\n\tname: x\n"),
    "yaml of two documents": _text("a: 1\n---\nb: 2\n"),
    "a key twice": _text("model: {name: a}\nmodel: {name: b}\n"),
    "a folder of nothing": Path.mkdir,
    "a link to itself": lambda place: place.symlink_to(place),
    "a link to nowhere": lambda place: place.symlink_to(place.with_name("gone")),
    "a pipe": os.mkfifo,
    "a socket": _socket,
    "a run.json of nothing": _into({"run.json": "{}"}),
    "a run.json too deep": _into({"run.json": DEEP}),
    "a run.json of a list": _into({"run.json": "[]"}),
    "a run.json of words": _into({"run.json": '{"status": "x", "files": "x", "schema": "x", "identity": "x"}'}),
    "a registry.json of words": _into({"registry.json": '{"current": 5}', "history.jsonl": "5\n"}),
}  # fmt: skip
NAMES = {
    "a line break in it": "a\nb",
    "an escape in it": "a\x1b[2Jb",
    "NUL in it": "a\0b",
    "half a character in it": os.fsdecode(b"a\xff"),
    "5,000 letters": "a" * 5000,
    "no letter": "",
    "a dash": "-",
    "a tilde": "~nobody-of-this-name/x",
    "a pattern that never closes": "a[",
    "everything": "**",
    "a device": "/dev/full",
    "an endless device": "/dev/zero",
    "a protocol": "ftp://127.0.0.1:1/x",
    "a port of nobody": "http://127.0.0.1:1/pairs.jsonl",
}
PLACES: dict[str, list[list[str]]] = {
    "train": [["{bad}"], ["--set", "data.train={bad}"], ["--set", "data.train={pairs}", "--set", "model.name={bad}"]],
    "plan": [["{bad}"], ["--set", "data.train={bad}"], ["--gpus", "8", "--model", "{bad}"]],
    "config": [["{bad}"]],
    "losses": [["{bad}"]],
    "check": [["{bad}"], ["{pairs}", "--model", "{bad}"]],
    "clean": [["{bad}", "cleaned"]],
    "convert": [["{bad}", "converted.jsonl", "--to", "openai"]],
    "init": [["{bad}"], ["--from", "{bad}"]],
    "evaluate": [["{bad}"], ["{run}", "--data", "{bad}"], ["{run}", "--against", "{bad}"]],
    "gate": [["{bad}"]],
    "judge": [["{bad}", "--judge", "rule:repetition"], ["{pairs}", "--judge", "{bad}"]],
    "report": [["{bad}"]],
    "export": [["{bad}", "--out", "made"]],
    "chat": [["{bad}", "--prompt", "a"]],
    "promote": [["{bad}"], ["{run}", "--to", "{bad}"]],
    "rollback": [["--to", "{bad}"]],
    "history": [["--to", "{bad}"]],
    "compare": [["{run}", "{bad}"], ["{bad}", "{run}"]],
    "rounds": [["{bad}"]],
    "sweep": [["{bad}", "--grid", "loss.beta=0.1,0.3"], ["--grid", "{bad}"]],
    "why": [["{bad}"]],
    "watch": [["{bad}"], ["{bad}", "--once"]],
    "review": [["{bad}", "--host", "192.0.2.1"], ["{bad}", "--results"], ["{run}", "--results", "--out", "{bad}"]],
}
CASES = [(command, tuple(words)) for command, ways in PLACES.items() for words in ways]
IDS = [" ".join((command, *words)) for command, words in CASES]
_LONGEST = 10
"""Seconds. The slowest of these take one."""


def test_the_table_of_this_file_holds_every_command():
    assert sorted(PLACES) == sorted(one.name or one.callback.__name__ for one in app.registered_commands)


@pytest.fixture
def in_time():
    """Whatever waits for what never comes is ended."""

    def late(*_):
        raise AssertionError(f"not at its end after {_LONGEST} seconds")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(_LONGEST)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def whole(finished, tmp_path_factory) -> Path:
    return Path(shutil.copytree(finished.path, tmp_path_factory.mktemp("hostile") / "run"))


def _ends_in_one_line(call, words, json_too: bool) -> None:
    code, out, err = call(*words, *(["--json"] if json_too else []))
    assert code in (
        0,
        EXIT_FAILURE,
        EXIT_USAGE,
        *((EXIT_FAILED, EXIT_INCONCLUSIVE) if words[0] == "promote" else ()),
    ), err
    assert "Traceback" not in out + err
    assert "unforeseen" not in err
    errors = [line for line in err.splitlines() if line.startswith(("error:", "stopped:"))]
    is_a_report = words[0] == "check" and code == EXIT_FAILURE and "unusable" in out
    assert len(errors) == int(code != 0 and not is_a_report), (errors, err)
    if errors:
        assert err.splitlines()[-1] == errors[0]
        assert len(errors[0]) < 2000
    if json_too:
        json.loads(out)
    assert not any(ord(letter) < 32 and letter not in "\n\t" for letter in out + err)
    assert not Path("made_by_yaml").exists()


@pytest.mark.parametrize("thing", ANY)
@pytest.mark.parametrize(("command", "words"), CASES, ids=IDS)
def test_a_hostile_thing(cli, here, in_time, whole, finished, command, words, thing):
    bad = here / "bad"
    ANY[thing](bad)
    places = {"bad": str(bad), "run": str(whole), "pairs": str(finished.path.parent / "pairs.jsonl")}
    _ends_in_one_line(cli, [command, *(word.format(**places) for word in words)], json_too=len(thing) % 2 == 0)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("command", "words"), CASES, ids=IDS)
def test_a_hostile_name(cli, here, in_time, whole, finished, command, words, name):
    places = {"bad": NAMES[name], "run": str(whole), "pairs": str(finished.path.parent / "pairs.jsonl")}
    _ends_in_one_line(cli, [command, *(word.format(**places) for word in words)], json_too=len(name) % 2 == 0)
