"""Raw answers on disk: kept over a crash, by several at once, and never in a file of something else."""

from __future__ import annotations

import sqlite3
import stat
import subprocess
import sys

import pytest

from tiebreak.errors import JudgeError
from tiebreak.evaluation.judges.kept import KeptAnswers, answers_in


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


def test_who_only_looks_makes_no_file_and_writes_into_none(tmp_path):
    path = tmp_path / "new" / "kept.sqlite"
    assert answers_in(path, ["a"]) == {}
    assert list(tmp_path.iterdir()) == []
    with KeptAnswers(path) as kept:
        kept.keep("a", "said")
    before = path.read_bytes(), path.stat().st_mtime_ns, sorted(path.parent.iterdir())
    assert answers_in(path, ["a", "b"]) == {"a": "said"}
    assert (path.read_bytes(), path.stat().st_mtime_ns, sorted(path.parent.iterdir())) == before
    (tmp_path / "empty.sqlite").touch()
    assert answers_in(tmp_path / "empty.sqlite", ["a"]) == {}
    (tmp_path / "link.sqlite").symlink_to(path)
    with pytest.raises(JudgeError, match="is a link"):
        answers_in(tmp_path / "link.sqlite", ["a"])
    for make in (_of_others, _with_a_trigger):
        (tmp_path / make.__name__).mkdir()
        make(other := tmp_path / make.__name__ / "kept.sqlite")
        with pytest.raises(JudgeError, match="is no file of kept judgements"):
            answers_in(other, ["a"])


def test_of_what_a_kill_left_half_written_nothing_is_known_to_who_only_looks_and_all_to_who_writes(tmp_path):
    path = tmp_path / "kept.sqlite"
    with KeptAnswers(path) as kept:
        for number in range(300):
            kept.keep(f"k{number}", "x" * 1000)
    code = (
        "import os, sqlite3, sys; there = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "for told in ('PRAGMA journal_mode=TRUNCATE', 'PRAGMA cache_size=2', 'BEGIN'): there.execute(told)\n"
        "there.execute(\"UPDATE answers SET answer = 'y' || answer\"); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    before = {one.name: one.read_bytes() for one in tmp_path.iterdir()}
    assert len(before["kept.sqlite-journal"]) > 0
    assert answers_in(path, ["k7"]) == {}
    assert {one.name: one.read_bytes() for one in tmp_path.iterdir()} == before
    with KeptAnswers(path) as kept:
        assert kept.get(["k7"]) == {"k7": "x" * 1000}


def test_a_file_that_is_no_database_or_a_folder_is_refused_in_one_line(tmp_path):
    path = tmp_path / "kept.sqlite"
    path.write_text("my notes\n" * 500)
    for place in (path, tmp_path):
        with pytest.raises(JudgeError, match="kept judgements cannot be read or written"), KeptAnswers(place):
            pass
        with pytest.raises(JudgeError, match="kept judgements cannot be read or written"):
            answers_in(place, ["a"])
    assert path.read_text() == "my notes\n" * 500
