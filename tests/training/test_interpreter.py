"""What a process asks of its interpreter; how it ends is tested by its commands (cli/test_ends.py)."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading

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
