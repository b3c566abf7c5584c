"""Files: whole or absent, and one writer."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiebreak.errors import RunError
from tiebreak.files import (
    append_jsonl,
    appended_jsonl,
    read_jsonl,
    whole_folder,
    write_json,
    write_jsonl,
    write_text,
)
from tiebreak.folders import locked


def names(folder) -> set[str]:
    return {file.name for file in folder.iterdir()}


# --------------------------------------------------------------------------------------------------------- whole or not


def test_a_file_is_written_whole_and_readable_by_others(tmp_path):
    write_text(tmp_path / "a.txt", "é\n")
    assert (tmp_path / "a.txt").read_bytes() == "é\n".encode()
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o644
    write_text(tmp_path / "a.txt", "new")
    assert names(tmp_path) == {"a.txt"}


@pytest.mark.parametrize(
    "write",
    [
        lambda path: write_text(path, "half \ud800"),
        lambda path: write_json(path, {"loss": float("nan")}),
        lambda path: write_json(path, {"path": object()}),
        lambda path: write_jsonl(path, iter([{"step": 1}, {"loss": float("inf")}])),
        lambda path: write_jsonl(path, ({"step": 1 // number} for number in (1, 0))),
    ],
    ids=["half a character", "NaN", "an object", "infinity", "an error while making rows"],
)
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, write):
    write_text(tmp_path / "a.json", "old")
    with pytest.raises((ValueError, TypeError, ZeroDivisionError)):
        write(tmp_path / "a.json")
    assert names(tmp_path) == {"a.json"}
    assert (tmp_path / "a.json").read_text() == "old"


def test_rights_are_those_that_are_usual_and_nobody_s_are_changed(tmp_path, monkeypatch):
    before = os.umask(0o027)
    try:
        with monkeypatch.context() as patched:
            patched.setattr(os, "umask", lambda _: pytest.fail("threads would get the rights of another one"))
            write_text(tmp_path / "a.txt", "a")
            for name, private in (("usual", False), ("own", True)):
                with whole_folder(tmp_path / name, private=private) as folder:
                    assert folder.stat().st_mode & 0o777 == 0o700
                    (folder / "b").write_text("b")
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
    assert {name: modes[name] for name in ("a.txt", "usual", "own")} == {"a.txt": 0o640, "usual": 0o750, "own": 0o700}
    assert [(tmp_path / name / "b").stat().st_mode & 0o777 for name in ("usual", "own")] == [0o640, 0o600]


def test_a_process_killed_while_writing_leaves_the_old_file(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    code = (
        "import os, sys; from pathlib import Path; from tiebreak import files\n"
        "os.fsync = lambda _: os._exit(9)\n"
        "files.write_text(Path(sys.argv[1]), 'new')"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.txt")], check=False)
    assert killed.returncode == 9
    assert (tmp_path / "a.txt").read_text() == "old"
    assert all(name == "a.txt" or name.startswith(".a.txt.") for name in names(tmp_path))


TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
BREAKS = st.sampled_from(["\u2028", "\u2029", "\u0085", "\x0b", "\x0c", "\x1c", "\r", "\r\n", "\n"])


@settings(deadline=None)
@given(rows=st.lists(st.dictionaries(TEXTS, TEXTS | BREAKS | st.integers() | st.booleans()), max_size=5))
def test_rows_are_read_back_as_written(tmp_path_factory, rows):
    path = tmp_path_factory.getbasetemp() / "rows.jsonl"
    write_jsonl(path, rows)
    assert read_jsonl(path) == rows


def test_no_file_means_no_rows(tmp_path):
    assert read_jsonl(tmp_path / "metrics.jsonl") == []


def test_damaged_rows_are_a_run_error(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"st')
    with pytest.raises(RunError, match=r"metrics\.jsonl: cannot be read"):
        read_jsonl(tmp_path / "metrics.jsonl")


# ------------------------------------------------------------------------------------------------------------- appended


def test_what_two_killed_processes_left_costs_their_last_rows_and_no_others(tmp_path):
    path, row = tmp_path / "kept.jsonl", {"key": "long enough to be torn anywhere", "value": float("inf")}
    append_jsonl(path, [row | {"place": 0}, row | {"place": 1}])
    for place in (2, 3):
        path.write_bytes(path.read_bytes()[:-9])  # the last row is torn
        append_jsonl(path, [row | {"place": place}])
    assert list(appended_jsonl(path)) == [row | {"place": place} for place in (0, 3)]
    for torn in (b'{"torn', b"{"):  # a full disk may take a single byte
        path.write_bytes(torn)
        append_jsonl(path, [row])
        assert list(appended_jsonl(path)) == [row]


@pytest.mark.parametrize("line", [b"{", b"\xff", b"\0\0\0", b"[]", b"1", b"[" * 100_000, b""])
def test_a_line_that_is_no_row_costs_itself_alone(tmp_path, line):
    path = tmp_path / "kept.jsonl"
    append_jsonl(path, [{"a": "\u2028"}])
    with path.open("ab") as file:
        file.write(line + b"\n")
    append_jsonl(path, [{"a": 2}])
    assert list(appended_jsonl(path)) == [{"a": "\u2028"}, {"a": 2}]


def test_a_row_that_is_not_what_was_written_costs_itself_alone(tmp_path):
    """A flipped digit would be a number like any other."""
    path, rows = tmp_path / "kept.jsonl", [{"key": "a", "loss": 0.125}, {"key": "b", "loss": 0.5}]
    append_jsonl(path, rows)
    whole = path.read_bytes()
    [first, _, _] = whole.split(b"\n")
    for place in range(len(first)):
        for bit in range(8):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
            assert list(appended_jsonl(path)) == rows[1:]


def test_rows_go_to_a_full_disk_in_silence_unless_they_are_needed_and_to_no_folder_aloud(tmp_path, monkeypatch):
    assert list(appended_jsonl(tmp_path / "none.jsonl")) == []
    with pytest.raises(FileNotFoundError):
        append_jsonl(tmp_path / "none" / "kept.jsonl", [{}])

    def full(*_):
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr("tiebreak.files.os.open", full)
    append_jsonl(tmp_path / "kept.jsonl", [{}])
    with pytest.raises(OSError, match="no space left"):
        append_jsonl(tmp_path / "kept.jsonl", [{}], needed=True)


# -------------------------------------------------------------------------------------------------------------- folders


def test_a_folder_appears_whole(tmp_path):
    target = tmp_path / "deep" / "policy"
    with whole_folder(target) as folder:
        (folder / "weights").write_text("new")
        assert not target.exists()
    assert names(target) == {"weights"}
    assert names(target.parent) == {"policy"}
    assert target.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_a_folder_that_fails_leaves_what_was_there_before(tmp_path, error):
    (tmp_path / "policy").mkdir()
    (tmp_path / "policy" / "weights").write_text("old")
    with pytest.raises(error), whole_folder(tmp_path / "policy") as folder:
        (folder / "weights").write_text("new")
        raise error
    assert names(tmp_path) == {"policy"}
    assert (tmp_path / "policy" / "weights").read_text() == "old"


@pytest.mark.skipif(sys.platform == "darwin", reason="files take the group of their folder there in any case")
def test_a_whole_folder_in_a_shared_one_passes_its_group_on(tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o2775)
    with whole_folder(shared / "policy") as folder:
        (folder / "below").mkdir()
        inside = [folder.stat().st_mode, (folder / "below").stat().st_mode]
    kept = [(shared / "policy").stat().st_mode, (shared / "policy" / "below").stat().st_mode]
    assert all(mode & stat.S_ISGID for mode in (*inside, *kept))


def test_a_whole_folder_replaces_the_old_one(tmp_path):
    for text in ("old", "new"):
        with whole_folder(tmp_path / "policy") as folder:
            (folder / text).write_text(text)
    assert names(tmp_path / "policy") == {"new"}
    assert names(tmp_path) == {"policy"}


# ----------------------------------------------------------------------------------------------------------- one writer

HOLD = """
import sys
from tiebreak.folders import locked
with locked(__import__("pathlib").Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of a run folder."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_folder_in_use_names_the_process_that_holds_it(tmp_path, holder):
    with pytest.raises(RunError, match=rf"in use by \S+ pid {holder.pid}; wait for it or choose another output\.dir"):
        locked(tmp_path / "run").__enter__()
    assert names(tmp_path / "run") == {".lock"}


def test_the_lock_of_a_dead_process_is_free(tmp_path, holder):
    holder.kill()
    holder.wait()
    with locked(tmp_path / "run"):
        assert (tmp_path / "run" / ".lock").read_text().endswith(f"pid {os.getpid()}")


def test_a_lock_is_given_back_also_after_an_error(tmp_path):
    for _ in range(2):
        with pytest.raises(RuntimeError), locked(tmp_path / "new" / "run"):
            raise RuntimeError
    with locked(tmp_path / "new" / "run"), pytest.raises(RunError, match="in use by"):
        locked(tmp_path / "new" / "run").__enter__()


def test_a_new_folder_takes_the_place_of_an_empty_one_and_of_nothing_else(tmp_path):
    (tmp_path / "empty").mkdir()
    with whole_folder(tmp_path / "empty", new=True) as folder:
        (folder / "new").touch()
    assert names(tmp_path / "empty") == {"new"}
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to("folder")
    (tmp_path / "folder" / "mine").touch()
    for name in ("folder", "file", "link"):
        with pytest.raises(FileExistsError), whole_folder(tmp_path / name, new=True) as folder:
            (folder / "new").touch()
    assert names(tmp_path) == {"empty", "folder", "file", "link"}
    assert names(tmp_path / "folder") == {"mine"}
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("without_links", [False, True])
def test_a_new_file_takes_the_place_of_none(tmp_path, monkeypatch, without_links):
    if without_links:

        def refuse(*_):
            raise OSError(errno.EPERM, "no links here")

        monkeypatch.setattr("tiebreak.files.Path.hardlink_to", refuse)
    write_text(tmp_path / "new", "ours", new=True)
    assert (tmp_path / "new").read_text() == "ours"
    (tmp_path / "nowhere").symlink_to("none")
    for name in ("new", "nowhere"):
        with pytest.raises(FileExistsError):
            write_text(tmp_path / name, "other", new=True)
    assert (tmp_path / "new").read_text() == "ours"
    assert names(tmp_path) == {"new", "nowhere"}
