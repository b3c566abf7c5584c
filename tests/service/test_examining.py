"""What the doctor prints, as a client reads it: which findings end a job, and what no error repeats."""

from __future__ import annotations

import json
from pathlib import Path

from tiebreak.service.examining import examined

FOLDER = Path("/srv/service/jobs/ftjob-1")
NAMES = {"training.jsonl": "mine.jsonl"}
SPLIT = {"num_heldout_pairs": 5, "num_train_pairs": 40}


def _finding(code, severity="warning", of="records", **told):
    example = {"file": str(FOLDER / "training.jsonl"), "line": 41, "excerpt": "keys input OSFODNN7EX"}
    start = {"code": code, "severity": severity, "title": "a title", "count": 1, "of": of, "detail": ""}
    return start | {"examples": [example], "remedy": "a remedy", "action": "reject"} | told


def _examined(*findings, split=SPLIT, unit="pairs", allow=()):
    text = json.dumps({"findings": findings, "split": split, "unit": unit})
    return examined(1 if any(one["severity"] == "error" for one in findings) else 0, text, FOLDER, NAMES, allow)


def test_a_row_that_cannot_be_read_fails_the_job_with_its_line_and_what_to_do():
    found = _examined(_finding("wrong_format"))
    assert found.error["param"] == "training_file"
    assert found.error["message"] == "mine.jsonl:41: a title: keys input OSFODNN7EX; a remedy"


def test_an_operator_may_let_rows_pass_that_cannot_be_read():
    found = _examined(_finding("wrong_format"), allow=("wrong_format",))
    assert found.error is None
    assert found.warnings == ["mine.jsonl:41: 1 record: a title; a remedy"]


def test_what_repeats_itself_is_a_warning_with_its_line():
    found = _examined(_finding("duplicate", of="pairs", count=2))
    assert found.error is None
    assert found.warnings == ["mine.jsonl:41: 2 pairs: a title; a remedy"]


def test_a_secret_is_named_by_its_line_and_not_repeated():
    found = _examined(_finding("secret", "error"))
    assert "OSFODNN7EX" not in found.error["message"]
    assert found.error["message"].startswith("mine.jsonl:41: a title")


def test_too_few_prompts_to_hold_any_out_are_said_before_anything_is_trained():
    found = _examined(split={"num_heldout_pairs": 0, "num_train_pairs": 3})
    assert found.error["code"] == "invalid_training_file"
    assert found.error["message"].startswith("mine.jsonl: none of 3 pairs is held out to measure on")
    assert "validation_file" in found.error["message"]


def test_no_place_of_the_machine_is_told():
    found = _examined(_finding("wrong_format", remedy="look into /opt/somebody/data/file.jsonl"))
    assert "/srv" not in found.error["message"]
    assert "/opt" not in found.error["message"]


def test_completions_on_their_own_are_held_out_as_pairs_are():
    found = _examined(split={"num_heldout_completions": 4, "num_train_completions": 36}, unit="completions")
    assert found.error is None
    found = _examined(split={"num_heldout_completions": 0, "num_train_completions": 2}, unit="completions")
    assert "none of 2 completions is held out" in found.error["message"]
