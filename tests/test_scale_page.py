"""The page about many GPUs says what the command reckons."""

from __future__ import annotations

import json

import tiebreak
from scale_page import PAGE, SETTINGS, plans, written


# Eighteen plans of six models, two of them of 126 layers: some ten seconds.
def test_the_tables_of_the_page_are_what_is_reckoned():
    page = PAGE.read_text(encoding="utf-8")
    assert page.count("<!-- end -->") == 3
    assert written(page) == page


def test_the_command_reckons_the_same():
    changes = {"model.name": "llama-8b", "adapter": "none", **SETTINGS}
    found = tiebreak.plan(None, changes, gpus=64, gpu="h200", quiet=True).as_dict()
    [same] = [one for one in plans("none", ["llama-8b"]) if one.gpus == 64]
    assert found == same.as_dict()
    assert json.loads(json.dumps(found))["token_budget"] == same.case.token_budget
