"""What a process asks of its interpreter; how it ends is tested by its commands (cli/test_ends.py)."""

from __future__ import annotations

import bz2
import gc
import gzip
import lzma
import subprocess
import sys
import threading
import zipfile

import pytest

from tiebreak.training.interpreter import uncollected


def test_it_is_looked_for_again_however_many_threads_are_within_such_blocks():
    barrier = threading.Barrier(8)

    def work() -> None:
        barrier.wait()
        for _ in range(300):
            with uncollected():
                assert not gc.isenabled()

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert gc.isenabled()


_OPEN = """
import ctypes, sys
from tiebreak.training.interpreter import end
kept = [open(sys.argv[1], "w"), open(sys.argv[1] + "b", "wb"), open(sys.argv[1] + "r", "w+b")]
kept[0].write("a user's log\\n"); kept[1].write(b"b"); kept[2].write(b"r")
closed = open(sys.argv[1] + "c", "w"); closed.close()
ctypes.CDLL(None).printf(b"by C")
end(3)
"""


def test_what_was_written_to_files_that_are_open_is_in_them(tmp_path):
    log = tmp_path / "log"
    ended = subprocess.run([sys.executable, "-c", _OPEN, str(log)], capture_output=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (3, b"by C", b"")
    assert [path.read_bytes() for path in sorted(tmp_path.iterdir())] == [b"a user's log\n", b"b", b"", b"r"]


_COMPRESSED = """
import bz2, gzip, lzma, sys, zipfile
from tiebreak.training.interpreter import end
name = sys.argv[1]
kept = [gzip.open(name + ".gz", "wb"), bz2.open(name + ".bz2", "wt"), lzma.open(name + ".xz", "wt")]
kept[0].write(b"told"); kept[1].write("told"); kept[2].write("told")
archive = zipfile.ZipFile(f"{sys.argv[1]}.zip", "w"); archive.writestr("a", "told")
end(3)
"""


def test_compressed_files_that_are_open_can_be_read(tmp_path):
    ended = subprocess.run([sys.executable, "-c", _COMPRESSED, str(tmp_path / "a")], capture_output=True, check=False)
    assert (ended.returncode, ended.stderr) == (3, b"")
    for ending, library in ((".gz", gzip), (".bz2", bz2), (".xz", lzma)):
        with library.open(tmp_path / f"a{ending}", "rt") as file:
            assert file.read() == "told"
    assert zipfile.ZipFile(tmp_path / "a.zip").read("a") == b"told"


_ODD = """
import io
class Odd(io.RawIOBase):
    def writable(self): return True
    def write(self, text): return len(text)
    def flush(self): raise KeyError("of a library")
kept = io.TextIOWrapper(io.BufferedWriter(Odd())); kept.write("a")
"""
_HELD = """
import os, threading, time
read, write = os.pipe()
kept = os.fdopen(write, "wb")
threading.Thread(target=lambda: kept.write(bytes(10**6)), daemon=True).start()
time.sleep(0.5)
"""


@pytest.mark.parametrize("said", [_ODD, _HELD], ids=["a flush that raises", "a thread that waits for its reader"])
def test_no_file_of_a_user_s_keeps_a_program_from_its_end_or_changes_its_code(said):
    code = f"{said}\nfrom tiebreak.training import interpreter\ninterpreter.PATIENCE = 1.0\ninterpreter.end(0)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, timeout=30)
    assert (ended.returncode, ended.stderr) == (0, b"")


@pytest.mark.parametrize(
    "watcher", [["cProfile", "-o", "told"], ["trace", "--count", "-C", "told"]], ids=lambda w: w[0]
)
def test_a_profiler_has_its_say(tmp_path, watcher):
    words = [sys.executable, "-m", *watcher, "--module", "tiebreak", "--version"]
    if watcher[0] == "cProfile":
        words[words.index("--module")] = "-m"
    subprocess.run(words, cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "told").exists()


@pytest.mark.parametrize("was_on", [True, False])
def test_garbage_is_looked_for_as_before_once_the_block_is_left(was_on):
    (gc.enable if was_on else gc.disable)()
    try:
        with uncollected():
            assert not gc.isenabled()
        assert gc.isenabled() == was_on
        with pytest.raises(ImportError), uncollected():
            raise ImportError
        assert gc.isenabled() == was_on
    finally:
        gc.enable()
