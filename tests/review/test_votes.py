"""Logs that only grow: what holds is what their lines come to, and a line that was changed is named."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reviewed import items_of, review_of
from tiebreak import faults
from tiebreak.errors import DataError, RunError
from tiebreak.review.desk import open_review
from tiebreak.review.items import Item
from tiebreak.review.votes import DamagedLog, Log


def said(review, name="ann"):
    return [(vote.item, vote.again, vote.choice) for vote in review.votes(name)]


def vote(review, choice, name="ann", **more):
    showing = review.at_hand(name)
    review.choose(name, showing.id, choice, **more)
    return showing


@pytest.fixture
def review(tmp_path):
    return review_of(tmp_path / "r", items_of(6))


@given(st.lists(st.sampled_from(["left", "right", "tie", "both_bad", "skip", "undo", "anew"]), max_size=25))
@settings(max_examples=40, deadline=None)
def test_what_holds_is_what_a_list_with_undo_would_hold(tmp_path_factory, steps):
    """Oracle: a stack of (showing, choice), from which the last one of each showing counts."""
    review, stack = review_of(tmp_path_factory.mktemp("r") / "r", items_of(6)), []
    for step in steps:
        if step == "undo":
            review.undo("ann")
            stack[-1:] = []
        elif step == "anew":
            if stack:
                review.choose("ann", stack[-1][0], "tie")
                stack.append((stack[-1][0], "tie"))
        elif showing := review.at_hand("ann"):
            review.choose("ann", showing.id, step)
            stack.append((showing.id, step))
    wanted = dict(stack)
    for opened in (review, open_review(review.folder)):
        ids = {id: (turn.item, turn.again) for id, turn in opened._ids["ann"].items()}
        assert {(item, again): choice for item, again, choice in said(opened)} == {
            ids[id]: choice for id, choice in wanted.items()
        }
        assert opened.progress("ann") == (len(wanted), 6)


def test_a_line_holds_what_was_shown_and_what_was_chosen(review):
    showing = vote(review, "right", tags=["clearer"], note="so", seconds=2.5)
    (line,) = map(json.loads, (review.folder / "votes" / "ann.jsonl").read_text().splitlines())
    item = review.items[line["item"]]
    texts = {"a": item.a, "b": item.b}
    assert (texts[line["shown"]["left"]], texts[line["shown"]["right"]]) == (showing.left, showing.right)
    assert (line["choice"], line["tags"], line["note"], line["seconds"]) == ("right", ["clearer"], "so", 2.5)


def test_a_torn_tail_is_forgotten_and_said_and_written_over(review):
    vote(review, "left")
    vote(review, "right")
    log = review.folder / "votes" / "ann.jsonl"
    whole = log.read_bytes()
    log.write_bytes(whole[:-7])
    told = []
    opened = open_review(review.folder, told.append)
    assert [choice for *_, choice in said(opened)] == ["left"]
    assert told == [f"{log}: its last line was cut off, and does not count"]
    vote(opened, "tie")
    assert [choice for *_, choice in said(open_review(review.folder))] == ["left", "tie"]


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: [lines[0].replace(b'"left", "shown"', b'"right", "shown"'), *lines[1:]],
        lambda lines: lines[1:],
        lambda lines: [lines[1], lines[0], lines[2]],
        lambda lines: [b'{"item": "i-1", "annotator": "ann", "choice": "left"}', *lines],
        lambda lines: [lines[0], b"5", *lines[1:]],
        lambda lines: [lines[0], b"", *lines[1:]],
        lambda lines: [lines[0], *lines],
        lambda lines: [lines[0].replace(b"ann", b"ben"), *lines[1:]],
        lambda lines: [*lines, b'{"undo_of": 1, "annotator": "ann", "seal": "x"}'],
    ],
    ids=["edited", "taken out", "moved", "foreign", "a number", "empty", "twice", "another's", "an undo"],
)
def test_a_line_that_was_not_written_here_is_named_and_refused(review, change):
    for choice in ("left", "right", "left"):
        vote(review, choice)
    log = review.folder / "votes" / "ann.jsonl"
    before, changed = log.read_bytes(), b"\n".join(change(log.read_bytes().split(b"\n")[:-1])) + b"\n"
    assert changed != before
    log.write_bytes(changed)
    with pytest.raises(DataError, match=r"ann\.jsonl:\d+: is not the line that was written"):
        open_review(review.folder)
    assert log.read_bytes() == changed


def test_a_log_of_another_review_or_person_is_refused(review, tmp_path):
    vote(review, "left")
    other = review_of(tmp_path / "other", items_of(7), ("ann", "ben"))
    for name in ("ann", "ben"):
        (other.folder / "votes" / f"{name}.jsonl").write_bytes((review.folder / "votes" / "ann.jsonl").read_bytes())
        with pytest.raises(DataError, match=f"{name}.jsonl:1"):
            open_review(other.folder)
        (other.folder / "votes" / f"{name}.jsonl").unlink()


def test_a_link_in_place_of_a_log_is_not_written_through(review, tmp_path):
    (tmp_path / "elsewhere").write_text("")
    (review.folder / "votes" / "ann.jsonl").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunError, match="link"):
        vote(review, "left")
    assert (tmp_path / "elsewhere").read_text() == ""


def test_where_the_disk_is_full_nothing_is_kept(review):
    vote(review, "left")
    log = review.folder / "votes" / "ann.jsonl"
    before, showing = log.read_bytes(), review.at_hand("ann")
    faults.arm("full@review:vote:1")
    try:
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            vote(review, "right")
    finally:
        faults.arm(None)
    assert log.read_bytes() == before
    assert review.at_hand("ann") == showing
    vote(review, "tie")
    assert [choice for *_, choice in said(open_review(review.folder))] == ["left", "tie"]


PROGRAM = """
import os, sys
from tiebreak import faults
from tiebreak.review.desk import open_review
faults.arm(os.environ.get("TIEBREAK_FAULT"))
review = open_review(sys.argv[1])
while showing := review.at_hand("ann"):
    review.choose("ann", showing.id, "left")
    print(showing.number, flush=True)
"""


@pytest.mark.parametrize("place", [1, 2, 4])
def test_what_was_said_to_be_kept_is_kept_by_a_server_that_is_killed(review, place):
    """Whoever is killed before a vote is written has it not, and everything before."""
    command = [sys.executable, "-c", PROGRAM, str(review.folder)]
    environment = {**os.environ, "TIEBREAK_FAULT": f"kill@review:vote:{place}"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == -9, done.stderr
    opened = open_review(review.folder)
    assert opened.progress("ann")[0] == len(done.stdout.split()) == place - 1
    assert opened.at_hand("ann").number == place


def test_what_another_process_added_is_seen(review):
    other = open_review(review.folder)
    vote(review, "left")
    assert other.progress("ann")[0] == 1
    vote(other, "right")
    assert [choice for *_, choice in said(review)] == ["left", "right"]


def test_an_edit_that_keeps_the_size_is_seen(review):
    vote(review, "left")
    log = review.folder / "votes" / "ann.jsonl"
    before = log.stat()
    log.write_bytes(log.read_bytes().replace(b'"choice": "left"', b'"choice": "lift"'))
    assert log.stat().st_size == before.st_size
    with pytest.raises(DamagedLog, match=r"ann\.jsonl:1.*without these votes the result is no evidence"):
        review.at_hand("ann")
    put = log.with_suffix(".put")  # in its place, with the same time
    put.write_bytes(log.read_bytes().replace(b'"lift"', b'"left"'))
    os.utime(put, ns=(before.st_atime_ns, before.st_mtime_ns))
    put.replace(log)
    assert review.progress("ann") == (1, 6)
    put.write_bytes(log.read_bytes().replace(b'"left"', b'"lift"'))
    os.utime(put, ns=(before.st_atime_ns, before.st_mtime_ns))
    put.replace(log)
    with pytest.raises(DamagedLog):
        review.at_hand("ann")


def test_letters_stand_in_a_log_as_they_are_and_lines_of_before_are_read(review):
    vote(review, "left", note="語\u2028é\x00")
    log = review.folder / "votes" / "ann.jsonl"
    assert "語".encode() in log.read_bytes()
    assert open_review(review.folder).votes("ann")[0].note == "語\u2028é\x00"
    log.write_bytes(json.dumps(json.loads(log.read_bytes())).encode() + b"\n")
    assert open_review(review.folder).votes("ann")[0].note == "語\u2028é\x00"


def test_an_item_named_by_half_a_character_is_voted_on(tmp_path):
    item = items_of(1)[0]
    review = review_of(tmp_path / "r", [Item("\ud800", item.prompt, item.a, item.b)])
    vote(review, "tie")
    assert said(open_review(review.folder)) == [("\ud800", False, "tie")]


def test_a_log_takes_no_vote_that_is_none(tmp_path):
    log = Log(tmp_path / "votes" / "ann.jsonl", "ann", "digest")
    for row in ({}, {"item": "i", "choice": "left", "shown": {"left": "a", "right": "a"}}, {"undo_of": 1}):
        with pytest.raises((KeyError, ValueError)):
            log.append(row)
    assert not log.path.exists() or log.path.read_bytes() == b""
