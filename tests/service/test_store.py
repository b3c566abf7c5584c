"""The database: whole transactions, also of threads that are still at work when the service ends."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
import threading

import pytest

from tiebreak.service.store import Store, open_store


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setattr("tiebreak.service.store.LAST_MILLISECONDS", 50)
    return open_store(tmp_path / "service")


def place(name):
    return "place", {"folder": name}


def places(folder):
    with sqlite3.connect(folder / "service.db") as connection:
        return [folder for (folder,) in connection.execute("select folder from place")]


def beside(work):
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("last", ["another row", "another block", "a question", "nothing"])
def test_what_a_thread_writes_while_the_service_ends_is_written_whole_or_not_at_all(store, last):
    begun, closed, raised = threading.Event(), threading.Event(), []
    rest = {
        "another row": lambda: store.insert(*place("y")),
        "another block": lambda: store.change("delete from place"),
        "a question": lambda: store.rows("select * from place"),
        "nothing": lambda: None,
    }

    def write():
        try:
            with store.writing():
                store.insert(*place("x"))
                begun.set()
                closed.wait()
                rest[last]()
        except sqlite3.OperationalError as error:
            raised.append(str(error))

    thread = beside(write)
    begun.wait()
    store.close()  # it does not wait for that thread for long
    closed.set()
    thread.join()
    assert raised == ["the service has ended"]
    assert places(store.folder) == []


def test_whoever_comes_after_the_end_finds_no_database(store):
    store.insert(*place("x"))
    store.close()
    store.close()
    for ask in (lambda: store.rows("select * from place"), lambda: store.insert(*place("y"))):
        with pytest.raises(sqlite3.OperationalError, match="the service has ended"):
            ask()
    assert places(store.folder) == ["x"]


def test_the_file_alone_is_whole_also_where_a_thread_that_looked_is_still_there(store, tmp_path):
    looked, ends = threading.Event(), threading.Event()
    thread = beside(lambda: (store.rows("select * from place"), looked.set(), ends.wait()))
    looked.wait()
    store.insert(*place("x"))
    store.close()
    (tmp_path / "copy").mkdir()
    shutil.copy(store.folder / "service.db", tmp_path / "copy" / "service.db")
    assert places(tmp_path / "copy") == ["x"]
    ends.set()
    thread.join()


WAITING = """
import sys, threading, time
from pathlib import Path
from tiebreak.service.store import Store

there = Store(Path(sys.argv[1]))
assert there.rows("select * from place") == []
threading.Thread(target=lambda: there.change("delete from place"), daemon=True).start()
time.sleep(1)  # it waits by now: nothing tells of that
there.close()
time.sleep(0.5)
print("ended")
"""


def test_the_service_ends_while_a_thread_waits_for_a_database_that_another_process_writes(store):
    with store.writing():
        store.insert(*place("x"))
        words = [sys.executable, "-c", WAITING, str(store.folder)]
        ended = subprocess.run(words, capture_output=True, text=True, timeout=25, check=False)
    assert (ended.returncode, ended.stdout) == (0, "ended\n"), ended.stderr
    assert places(store.folder) == ["x"]


def test_a_thread_has_a_connection_of_its_own_and_another_store_of_the_folder_goes_on(store):
    store.insert(*place("x"))
    other = Store(store.folder)
    store.close()
    assert [row["folder"] for row in other.rows("select folder from place")] == ["x"]
