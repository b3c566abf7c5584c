"""How a command ends: in one line and with an exit code, whatever happened; the trace is for whoever says --debug."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys

import pytest

import tiebreak
from tiebreak.cli.process import prepare
from tiebreak.data import panics
from tiebreak.errors import EXIT_FAILURE, EXIT_INTERRUPTED, EXIT_NO_READER, EXIT_PREEMPTED, EXIT_USAGE, Preempted
from tiebreak.training.waiting import WAITING

WRONG_CALLS = {
    "an unknown command": (["trian"], "no such command 'trian'. Did you mean 'train'? 'tiebreak --help'"),
    "no command": ([], "a command is missing; 'tiebreak --help'"),
    "an unknown option": (["check", "--bogus", "a"], "no such option: --bogus; 'tiebreak check --help'"),
    "an unknown option of all": (["--bogus"], "no such option: --bogus; 'tiebreak --help'"),
    "a missing argument": (["evaluate"], "missing argument 'run'; 'tiebreak evaluate --help'"),
    "a missing option": (["export", "runs/a"], "missing option '--out' / '-o'; 'tiebreak export --help'"),
    "a word that is no choice": (["train", "--resume", "maybe"], "'maybe' is not one of 'auto', 'never'"),
    "a word that is no number": (["check", "a", "--min-margin", "x"], "invalid value for '--min-margin'"),
    "a number out of range": (["chat", "runs/a", "--temperature", "-1"], "invalid value for '--temperature'"),
    "one argument too many": (["report", "runs/a", "runs/b"], "unexpected extra argument"),
    "a setting that is none": (["train", "--set", "training.epochs"], "wanted KEY=VALUE"),
    "a setting of nothing": (["config", "--set", "a.b=1"], "unknown key 'a'"),
}


@pytest.mark.parametrize("flags", [[], ["--json"], ["--debug"]], ids=["text", "json", "debug"])
@pytest.mark.parametrize(("words", "told"), WRONG_CALLS.values(), ids=WRONG_CALLS)
def test_a_wrong_call_is_one_line_and_exit_code_2(cli, here, words, told, flags):
    if not words and flags:
        pytest.skip("these are options of commands")
    code, out, err = cli(*words, *flags)
    *before, line = err.splitlines()
    assert (code, line[:7]) == (EXIT_USAGE, "error: ")
    assert told.lower() in line.lower()
    assert bool(before) is (flags == ["--debug"])
    if flags == ["--json"] and words[0] != "--bogus":
        assert json.loads(out) == {"error": json.loads(out)["error"], "message": line[7:], "exit_code": EXIT_USAGE}
    assert not list(here.iterdir())


def a_panic() -> BaseException:
    """What a library in Rust raises: derived from BaseException alone."""
    return type("PanicException", (BaseException,), {"__module__": "pyo3_runtime"})("called `unwrap()` on None")


UNFORESEEN = {
    "a fault of ours": (lambda: KeyError("x"), EXIT_FAILURE, "error: unforeseen KeyError ('x')"),
    "without words": (AssertionError, EXIT_FAILURE, "error: unforeseen AssertionError at cli/data.py:"),
    "of many lines": (
        lambda: ValueError("a\nb\n\x1b[31m"),
        EXIT_FAILURE,
        "error: unforeseen ValueError (a b \\x1b[31m)",
    ),
    "very long": (lambda: ValueError("x" * 10_000), EXIT_FAILURE, "error: unforeseen ValueError (xxx"),
    "too deep": (lambda: RecursionError("maximum recursion depth"), EXIT_FAILURE, "error: unforeseen RecursionError"),
    "a panic": (a_panic, EXIT_FAILURE, "error: unforeseen PanicException (called `unwrap()` on None)"),
    "memory": (MemoryError, EXIT_FAILURE, "error: out of memory"),
    "the machine": (lambda: OSError(30, "Read-only file system", "runs"), EXIT_FAILURE, "error: [Errno 30] Read-only"),
    "a library is missing": (
        lambda: ImportError("No module named 'torch'"),
        EXIT_FAILURE,
        "error: cannot be loaded: No",
    ),
    "Ctrl-C": (KeyboardInterrupt, EXIT_INTERRUPTED, "stopped: interrupted"),
    "the end of input": (EOFError, EXIT_INTERRUPTED, "stopped: interrupted"),
    "a signal": (lambda: Preempted("SIGHUP"), EXIT_PREEMPTED, "stopped: stopped by SIGHUP"),
    "a library that ends the process": (lambda: SystemExit("no licence"), EXIT_FAILURE, "error: no licence"),
}


@pytest.mark.parametrize(("made", "exit_code", "told"), UNFORESEEN.values(), ids=UNFORESEEN)
def test_what_nobody_foresaw_is_one_line_too(cli, here, monkeypatch, made, exit_code, told):
    def failing(*_, **__):
        raise made()

    monkeypatch.setattr(tiebreak, "check", failing)
    code, out, err = cli("check", "a.jsonl", "--json")
    assert code == exit_code
    *before, line = err.strip("\n").split("\n")
    assert line.startswith(told)
    assert before in ([], [""])  # typer ends the line of Ctrl-D
    assert len(line) < 700
    assert json.loads(out)["exit_code"] == exit_code
    assert "Traceback" not in err + out


def test_debug_shows_where_it_comes_from_without_secrets(cli, here, monkeypatch):
    monkeypatch.setenv("SOME_TOKEN", "s3cret-s3cret")
    monkeypatch.setattr(tiebreak, "check", lambda *_, **__: {}["s3cret-s3cret\x1b"])
    _, _, err = cli("check", "a.jsonl", "--debug")
    assert "Traceback (most recent call last)" in err
    assert "s3cret" not in err
    assert err.replace("\n", "").isprintable()
    assert err.splitlines()[-1].startswith("error: unforeseen KeyError")


@pytest.mark.parametrize("command", ["train", "check", "gate", "history", "judge", "config"])
def test_every_command_takes_debug(cli, command):
    _, out, _ = cli(command, "--help")
    assert "--debug" in out


# ---------------------------------------------------------------------------------------------- new interpreters


def started(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = script.replace("tiebreak", f"{sys.executable} -m tiebreak")
    return subprocess.run(
        ["/bin/sh", "-c", command], capture_output=True, text=True, check=False, env=dict(os.environ) | environment
    )


def test_a_reader_who_leaves_is_no_fault(here):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as out:
        command = [sys.executable, "-m", "tiebreak", "config"]
        done = subprocess.run(command, stdout=out, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.stderr, done.returncode) == ("", EXIT_NO_READER)


def test_a_full_disk_behind_standard_output_is_told(here):
    done = started("tiebreak config > /dev/full")
    assert (done.returncode, done.stderr) == (EXIT_FAILURE, "error: [Errno 28] No space left on device\n")


def test_a_folder_that_is_gone_is_told(here):
    done = started("mkdir gone && cd gone && rmdir ../gone && tiebreak train")
    assert done.returncode == EXIT_FAILURE
    assert done.stderr.splitlines()[-1] == "error: the folder that this command runs in is gone; go to another one"
    assert "Traceback" not in done.stderr


def test_a_user_without_a_home_can_check_data(here):
    done = started("unset HOME; tiebreak check bundled --json")
    assert (done.returncode, done.stderr) == (0, "")


WHILE_LOADING = """
import sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "tiebreak.cli.app":
            raise {error}
sys.meta_path.insert(0, Finder())
from tiebreak.__main__ import main
sys.argv = ["tiebreak", "config"]
main()
"""


@pytest.mark.parametrize(
    ("error", "exit_code", "told"),
    [
        ("KeyboardInterrupt", EXIT_INTERRUPTED, "stopped: interrupted; what was finished before is kept"),
        ("ImportError('libtorch.so is damaged')", EXIT_FAILURE, "error: cannot be loaded: libtorch.so is damaged; "),
        ("MemoryError", EXIT_FAILURE, "error: out of memory; "),
    ],
)
def test_an_end_while_libraries_load_is_one_line(error, exit_code, told):
    done = subprocess.run(
        [sys.executable, "-c", WHILE_LOADING.format(error=error)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (exit_code, "", 1)
    assert done.stderr.startswith(told)


# ----------------------------------------------------------------------------------------- damaged files of a tokenizer


@pytest.fixture
def with_tokenizer(here, tiny_model, pairs_file):
    """A copy of the tiny model with some of its files written anew; returns the words that count tokens with it."""

    def made(**contents: bytes) -> list[str]:
        folder = here / "model"
        shutil.copytree(tiny_model, folder)
        for name, content in contents.items():
            (folder / name.replace("__", ".")).write_bytes(content)
        return ["check", pairs_file, "--model", folder, "--json"]

    return made


@pytest.fixture
def pairs_file(here):
    rows = [{"prompt": f"the cat {i}", "chosen": f"yes {i} " + "a" * 40 + "!", "rejected": "no"} for i in range(12)]
    (here / "p.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    return here / "p.jsonl"


@pytest.mark.parametrize(
    "contents",
    [
        {"tokenizer_config__json": b"\xff\xfe"},
        {"tokenizer_config__json": b"{"},
        {"tokenizer_config__json": b"[]"},
        {"tokenizer_config__json": b'{"eos_token": 5, "tokenizer_class": "Nothing"}'},
        {"tokenizer__json": b"{}"},
        {"tokenizer__json": b'{"model": {"type": "BPE", "vocab": 5}}'},
        {"chat_template__jinja": b"{% for %}"},
        {"chat_template__jinja": b"\xff\xfe"},
        {"chat_template__jinja": b"{{ " + b"(" * 5000 + b" }}"},
    ],
    ids=str,
)
def test_a_damaged_tokenizer_or_template_is_one_line(cli, with_tokenizer, contents):
    code, out, err = cli(*with_tokenizer(**contents))
    assert code in (EXIT_USAGE, EXIT_FAILURE)
    assert "Traceback" not in out + err
    assert "unforeseen" not in out + err
    assert len(err.splitlines()) <= 1
    json.loads(out)


def test_a_panic_over_a_text_costs_the_pair_and_not_the_command(cli, with_tokenizer, tiny_model):
    told = json.loads((tiny_model / "tokenizer.json").read_text())
    # Its regular expression takes exponentially long for a row of a's; the library gives up in a panic.
    told["pre_tokenizer"] = {
        "type": "Split",
        "pattern": {"Regex": "(a+)+$"},
        "behavior": "Isolated",
        "invert": False,
    }
    code, out, err = cli(*with_tokenizer(tokenizer__json=json.dumps(told).encode()))
    assert code == EXIT_FAILURE
    assert "Traceback" not in out + err
    assert "the tokenizer refuses the text: Onig" in out + err
    assert "panicked" not in err


def test_what_is_said_of_a_panic_is_kept_off_the_screen_and_nothing_else_is(capfd):
    with panics.unsaid():
        os.write(2, b"a warning\n")
    assert capfd.readouterr().err == "a warning\n"
    for inside in (panics.unsaid, contextlib.nullcontext):
        panic = a_panic()
        with pytest.raises(type(panic)), panics.unsaid(), inside():
            os.write(2, b"thread '<unnamed>' panicked at src/lib.rs:1:1\n")
            raise panic
        assert not capfd.readouterr().err
    with pytest.raises(ValueError, match="another"), panics.unsaid():
        os.write(2, b"why\n")
        raise ValueError("another")
    os.write(2, b"afterwards\n")
    assert capfd.readouterr().err == "why\nafterwards\n"


# --------------------------------------------------------------------------------------------- what a process is set to


def test_what_the_user_has_set_stands():
    for setting in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"):
        mine = {setting: "mine", "TRANSFORMERS_VERBOSITY": "info"}
        prepare(mine)
        assert mine[setting] == "mine"
        assert mine["TRANSFORMERS_VERBOSITY"] == "info"
        assert not WAITING.keys() & mine.keys() - {setting}
    nothing: dict[str, str] = {}
    prepare(nothing)
    assert WAITING.items() <= nothing.items()


_TOLD_HOW_IT_ENDS = """
import os, sys, threading, time
class Late:
    def __del__(self, write=os.write):
        write(2, b"taken down. ")
sys.late = Late()
sys.argv = ["tiebreak", *sys.argv[1:]]
import atexit
atexit.register(os.write, 2, b"called first, and so last. ")
import tiebreak.__main__, tiebreak.cli.app as app
def call(words, call=app.call):
    atexit.register(os.write, 2, b"called. ")
    threading.Thread(target=lambda: (time.sleep(0.2), os.write(2, b"waited for. "))).start()
    return call(words)
app.call = call
import __main__
__main__.__file__ = "/usr/bin/tiebreak"  # as the installed command is
tiebreak.__main__.be_the_command()
"""


_ANOTHER_PROGRAM = {
    "a call": "from tiebreak.__main__ import be_the_command; be_the_command()",
    "runpy": "import runpy; runpy.run_module('tiebreak', run_name='__main__')",
}


@pytest.mark.parametrize("call", _ANOTHER_PROGRAM.values(), ids=_ANOTHER_PROGRAM)
@pytest.mark.parametrize("is_file", [True, False])
def test_a_program_that_calls_the_command_goes_on(call, is_file, tmp_path):
    text = (
        f"import sys\nsys.argv = ['x', '--version']\ntry:\n    {call}\nexcept SystemExit as e:\n    print('on', e.code)"
    )
    (tmp_path / "mine.py").write_text(text)
    words = [str(tmp_path / "mine.py")] if is_file else ["-c", text]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
    assert done.stdout == f"{tiebreak.__version__}\non 0\n", done.stderr


@pytest.mark.parametrize("is_installed", [True, False])
def test_the_command_knows_that_it_is_the_program(is_installed, tmp_path):
    told = (
        "import atexit, sys; atexit.register(sys.stderr.write, 'end')\nclass Late:\n def __del__(self): print('down')\n"
    )
    script = f"from tiebreak.__main__ import be_the_command\n{told}sys.late = Late()\nsys.exit(be_the_command())"
    (tmp_path / "tiebreak").write_text(script)
    (tmp_path / "sitecustomize.py").write_text(f"{told}sys.late = Late()\n")
    words = [str(tmp_path / "tiebreak")] if is_installed else ["-m", "tiebreak"]
    paths = os.pathsep.join([*([] if is_installed else [str(tmp_path)]), *sys.path])
    env = os.environ | {"PYTHONPATH": paths}
    done = subprocess.run([sys.executable, *words, "--version"], capture_output=True, text=True, check=False, env=env)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{tiebreak.__version__}\n", "end")


@pytest.mark.parametrize(("words", "exit_code"), [(["--version"], 0), (["trian"], EXIT_USAGE)])
def test_a_command_ends_with_its_own_code_after_all_that_waits_and_takes_nothing_down(words, exit_code):
    # torch's threads may still let go of tensors then, and abort a process whose work is done.
    call = [sys.executable, "-c", _TOLD_HOW_IT_ENDS, *words]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    assert done.returncode == exit_code
    assert done.stderr.endswith("waited for. called. called first, and so last. "), done.stderr
    assert (done.stdout == f"{tiebreak.__version__}\n") is (exit_code == 0)
    assert done.stderr.startswith("error: ") is (exit_code != 0)
