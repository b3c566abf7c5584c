"""Raw answers on disk: kept over a crash, by several at once, and never in a file of something else."""

from __future__ import annotations

import sqlite3
import stat
import subprocess
import sys

import pytest

from tiebreak.errors import JudgeError
from tiebreak.evaluation.judges.kept import KeptAnswers


def test_what_is_kept_is_found_by_its_key(tmp_path):
    path = tmp_path / "new" / "kept.sqlite"
    with KeptAnswers(path) as kept:
        for number in (0, 7, 1202):
            kept.keep(f"k{number}", f"answer {number} \x00 \u2028")
    with KeptAnswers(path) as kept:
        found = kept.get([f"k{number}" for number in range(1203)] + ["unknown"])
    assert found == {f"k{number}": f"answer {number} \x00 \u2028" for number in (0, 7, 1202)}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_an_answer_is_on_the_disk_when_it_is_kept_though_the_process_is_killed(tmp_path):
    path = tmp_path / "kept.sqlite"
    code = (
        "import os, signal, sys; from pathlib import Path; from tiebreak.evaluation.judges.kept import KeptAnswers\n"
        "with KeptAnswers(Path(sys.argv[1])) as kept:\n"
        "    kept.keep('a', 'said'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == -9
    with KeptAnswers(path) as kept:
        assert kept.get(["a"]) == {"a": "said"}


def test_two_that_come_at_once_both_keep_all_of_theirs(tmp_path):
    path = tmp_path / "kept.sqlite"
    code = (
        "import sys; from pathlib import Path; from tiebreak.evaluation.judges.kept import KeptAnswers\n"
        "with KeptAnswers(Path(sys.argv[1])) as kept:\n"
        "    [kept.keep(f'{sys.argv[2]}{n}', 'said') for n in range(20)]"
    )
    both = [subprocess.Popen([sys.executable, "-c", code, str(path), name]) for name in "ab"]
    assert [one.wait() for one in both] == [0, 0]
    with KeptAnswers(path) as kept:
        assert len(kept.get([f"{name}{number}" for name in "ab" for number in range(20)])) == 40


def _of_others(path):
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE mine (x)")
    other.close()


def _with_a_trigger(path):
    with KeptAnswers(path):
        pass
    with sqlite3.connect(path) as other:
        other.execute("CREATE TRIGGER t AFTER INSERT ON answers BEGIN DELETE FROM answers; END")
    other.close()


@pytest.mark.parametrize("make", [_of_others, _with_a_trigger])
def test_a_database_of_something_else_is_refused_and_left_as_it_is(tmp_path, make):
    path = tmp_path / "kept.sqlite"
    make(path)
    before = path.read_bytes()
    with (
        pytest.raises(JudgeError, match="is no file of kept judgements; name another file with --kept"),
        KeptAnswers(path),
    ):
        pass
    assert path.read_bytes() == before


def test_a_file_that_is_no_database_or_a_folder_is_refused_in_one_line(tmp_path):
    path = tmp_path / "kept.sqlite"
    path.write_text("my notes\n" * 500)
    for place in (path, tmp_path):
        with pytest.raises(JudgeError, match="kept judgements cannot be read or written"), KeptAnswers(place):
            pass
    assert path.read_text() == "my notes\n" * 500
