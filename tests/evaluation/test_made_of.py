"""Which evaluation need not be made again: one of the same, whose judge was heard or will never be."""

from __future__ import annotations

import json

import pytest

from tiebreak.evaluation.made_of import made_before
from tiebreak.runs import Run

JUDGES = {
    "none": (None, True),
    "heard": ({"refusal": None, "may_be_heard": False}, True),
    "of no use, or none at all": ({"refusal": "agrees with nobody", "may_be_heard": False}, True),
    "it failed": ({"refusal": "HTTP 503", "may_be_heard": True}, False),
    "it decided nothing, and who wrote it down did not know why": ({"refusal": "HTTP 503"}, False),
    "heard, as it was written down before": ({"refusal": None}, True),
}


@pytest.fixture
def into(tmp_path):
    return Run(tmp_path)


def _write(into, **told):
    into.evaluation_file.write_text(json.dumps(told))


@pytest.mark.parametrize("case", JUDGES)
def test_a_judge_that_failed_is_asked_again(into, case):
    judge, stays = JUDGES[case]
    _write(into, made_of="x", judge=judge)
    assert (made_before(into, "x") is not None) is stays
    assert made_before(into, "y") is None


@pytest.mark.parametrize("judge", ["x", 3, [], {"refusal": 3, "may_be_heard": "y"}])
def test_what_no_evaluation_says_stops_nothing(into, judge):
    _write(into, made_of="x", judge=judge)
    made_before(into, "x")


def test_there_is_none_where_nothing_lies(into):
    assert made_before(into, "x") is None
