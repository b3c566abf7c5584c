"""What an earlier start prepared of the data ends in the same run, and never in another one where it is damaged."""

from __future__ import annotations

import pytest
from harness import Case, assert_finished_like, assert_nothing_hidden

REMEMBERED = ("prepared tokens: from an earlier start", "findings of the doctor: from an earlier start")


@pytest.fixture
def prepared(finished, tmp_path) -> Case:
    """Everything is kept of an earlier run, and nothing is left of the run itself."""
    case = finished.copied(tmp_path / "case")
    case.run.rename(case.folder / "earlier")
    return case


def test_a_second_run_reads_no_pair_and_ends_the_same(prepared, undisturbed):
    ended = prepared.train(fault="kill@tokens")  # which no record comes to
    assert ended.code == 0, ended.err
    assert all(ended.err.count(line) == 1 for line in REMEMBERED)
    assert_finished_like(prepared, undisturbed)
    for name in ("data.json", "audit.json", "dropped.jsonl", "heldout_pairs.jsonl"):
        assert (prepared.run / name).read_bytes() == (prepared.folder / "earlier" / name).read_bytes()


def test_an_attempt_that_was_cut_off_goes_on_without_reading_them_again(halted, undisturbed):
    ended = halted.train(fault="kill@tokens")
    assert ended.code == 0, ended.err
    assert all(ended.err.count(line) == 1 for line in REMEMBERED)
    assert_finished_like(halted, undisturbed)


def test_damaged_entries_are_told_and_made_anew(prepared, undisturbed):
    entries = sorted((prepared.folder / "prepared").glob(".*-*"))
    assert [path.name.partition("-")[0] for path in entries] == [".findings", ".tokens"]
    for path in (entries[0] / "entry.json", entries[1] / "train.arrow"):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 0x40
        path.write_bytes(content)
    ended = prepared.train()
    assert ended.code == 0, ended.err
    assert ended.err.count("is not what was written (") == 2
    assert_finished_like(prepared, undisturbed)


def test_other_pairs_are_read_and_examined(prepared):
    path = prepared.folder / "pairs.jsonl"
    path.write_text(path.read_text(encoding="utf-8").replace("yes the", "yes  the"), encoding="utf-8")
    ended = prepared.train(fault="kill@tokens")
    assert ended.code == -9, ended.err
    assert not any(line in ended.err for line in REMEMBERED)


def test_a_full_disk_under_them_is_told_and_stops_nothing(case, undisturbed):
    ended = case.train(fault="full@store:data,full@store:data:2")
    assert ended.code == 0, ended.err
    assert ended.err.count("cannot be kept ([Errno 28] No space left on device); the next start makes them again") == 2
    assert case.result() == undisturbed
    assert [path.name for path in (case.folder / "prepared").iterdir()] == [".gitignore"]
    assert_nothing_hidden(case)
