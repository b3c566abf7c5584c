"""Which evaluation need not be made again: one of the same, whose judge was heard or will never be."""

from __future__ import annotations

import json

import pytest

from tiebreak.evaluation.made_of import made_before
from tiebreak.runs import Run

SILENT = {"the judge is not heard": 8}
SAYS = "it agrees with people on 2 of 8 pairs"
JUDGES = {
    "none": (None, True),
    "heard": ({"refusal": None, "not_judged": {}, "agreement": None}, True),
    "heard but for some answers": ({"refusal": None, "not_judged": {"said neither": 1}, "agreement": None}, True),
    "of no use, as people's words showed": (
        {"refusal": SAYS, "not_judged": SILENT, "agreement": {"says": SAYS}}, True),
    "heard, and no answer is told from its length": ({"refusal": "grown", "not_judged": {}, "agreement": None}, True),
    "it could not be asked": ({"refusal": "HTTP 503", "not_judged": SILENT, "agreement": None}, False),
    "it stopped after it was tried": (
        {"refusal": "HTTP 503", "not_judged": SILENT, "agreement": {"says": "it agrees"}}, False),
    "it said too little": (
        {"refusal": "it judged 3 of 8", "not_judged": {"said neither": 5}, "agreement": None}, False),
}  # fmt: skip


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


@pytest.mark.parametrize("judge", ["x", 3, [], {"refusal": "x", "not_judged": 3, "agreement": "y"}])
def test_what_no_evaluation_says_stops_nothing(into, judge):
    _write(into, made_of="x", judge=judge)
    made_before(into, "x")


def test_there_is_none_where_nothing_lies(into):
    assert made_before(into, "x") is None
