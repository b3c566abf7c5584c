"""Drift between two audits: what moved is said to have moved, what did not is not."""

from __future__ import annotations

import random

import pytest

from tiebreak.config import DataConfig, build_config
from tiebreak.doctor.drift import drift
from tiebreak.files import write_jsonl
from tiebreak.verbs import check


def _audit(folder, seed, num=300, longer=1.0, scored=1.0):
    draw, rows = random.Random(seed), []
    for place in range(num):
        chosen, rejected = (" ".join(draw.choices("abcdefgh", k=draw.randint(5, 40))) for _ in range(2))
        chosen = " ".join([chosen] * round(longer))
        told = {"score_chosen": 1 + scored * draw.random(), "score_rejected": 0.5}
        rows.append({"prompt": f"question {seed} {place} ?", "chosen": chosen, "rejected": rejected, **told})
    file = folder / f"{seed}.jsonl"
    write_jsonl(file, rows)
    config: DataConfig = build_config({"data": {"train": str(file)}}).data
    return check.check(config).as_dict()


@pytest.fixture(scope="module")
def audits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drift")
    return {
        "first": _audit(folder, 1),
        "alike": _audit(folder, 2),
        "longer": _audit(folder, 3, longer=3.0),
        "surer": _audit(folder, 4, scored=6.0),
    }


def test_other_data_of_the_same_kind_did_not_move(audits):
    found = drift(audits["first"], audits["alike"])
    assert {"words/chosen", "words/rejected", "words/prompt", "chosen_longer", "shortcut/length"} <= {
        x.key for x in found
    }
    assert [one.key for one in found if one.moved] == []


def test_an_audit_against_itself_has_no_distance(audits):
    assert all(one.size == 0 and one.p == 1 for one in drift(audits["first"], audits["first"]))


def test_longer_completions_moved_and_what_follows_from_it(audits):
    moved = {one.key: one for one in drift(audits["first"], audits["longer"]) if one.moved}
    assert moved.keys() >= {"words/chosen", "chosen_longer", "shortcut/length"}
    assert "words/rejected" not in moved
    assert moved["words/chosen"].other > 2 * moved["words/chosen"].first


def test_surer_annotators_moved(audits):
    assert "margin" in {one.key for one in drift(audits["first"], audits["surer"]) if one.moved}
