"""Drift between two audits: what moved is said to have moved, what did not is not."""

from __future__ import annotations

import random

import numpy as np
import pytest

from tiebreak.config import DataConfig, build_config
from tiebreak.doctor.drift import drift
from tiebreak.files import write_jsonl
from tiebreak.verbs import check


def _audited(file, rows):
    write_jsonl(file, rows)
    config: DataConfig = build_config({"data": {"train": str(file)}}).data
    return check.check(config).as_dict()


def _audit(folder, seed, num=300, longer=1.0, scored=1.0):
    draw, rows = random.Random(seed), []
    for place in range(num):
        chosen, rejected = (" ".join(draw.choices("abcdefgh", k=draw.randint(5, 40))) for _ in range(2))
        chosen = " ".join([chosen] * round(longer))
        told = {"score_chosen": 1 + scored * draw.random(), "score_rejected": 0.5}
        rows.append({"prompt": f"question {seed} {place} ?", "chosen": chosen, "rejected": rejected, **told})
    return _audited(folder / f"{seed}.jsonl", rows)


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


def test_one_long_text_moves_nothing_but_itself(tmp_path):
    def audit(name, longest):
        rows = [
            {"prompt": f"seven words are in this one {place}", "chosen": "yes it is", "rejected": "no"}
            for place in range(300)
        ]
        return _audited(
            tmp_path / name, [*rows, {"prompt": "a b c d e f g", "chosen": "w " * longest, "rejected": "n"}]
        )

    found = {one.key: one for one in drift(audit("a.jsonl", 20), audit("b.jsonl", 3000))}
    assert (found["words/prompt"].size, found["words/prompt"].p) == (0, 1)
    assert found["words/chosen"].size == pytest.approx(0, abs=0.005)
    assert not any(one.moved for one in found.values())


def _scored(folder, name, margins):
    rows = [
        {"prompt": f"{name} {place}", "chosen": "yes it is", "rejected": "no it is", "score_chosen": margin + 1}
        | {"score_rejected": 1}
        for place, margin in enumerate(margins)
    ]
    return _audited(folder / f"{name}.jsonl", rows)


def test_one_high_score_moves_no_margin_and_its_mean_is_that_of_the_numbers(tmp_path):
    usual = [1.0, 2.0, 2.0] * 100
    first, other = _scored(tmp_path, "usual", usual), _scored(tmp_path, "outlier", [*usual, 10.0])
    found = next(one for one in drift(first, other) if one.key == "margin")
    assert (found.size, found.moved) == (pytest.approx(0.0033, abs=1e-4), False)
    assert (found.first, found.other) == (pytest.approx(sum(usual) / 300), pytest.approx(510 / 301))
    lower = _scored(tmp_path, "lower", [1.0, 1.0, 2.0] * 100)
    moved = next(one for one in drift(other, lower) if one.key == "margin")
    assert (moved.size, moved.moved) == (pytest.approx(1 / 3, abs=0.01), True)


def test_an_audit_of_before_is_read_and_claims_no_more_than_is_certain(tmp_path):
    usual = [1.0, 2.0, 2.0] * 100
    old = [_scored(tmp_path, name, some) for name, some in (("a", usual), ("b", [*usual, 10.0]), ("c", [5.0] * 300))]
    for one, top in zip(old, (2.0, 10.0, 10.0), strict=True):
        edges = np.linspace(1.0, top, 31)
        values = {2.0: usual, 10.0: [5.0] * 300}[top] if one is not old[1] else [*usual, 10.0]
        one["histograms"]["margin"] = {"edges": edges.tolist(), "counts": np.histogram(values, edges)[0].tolist()}
    same, apart = (next(row for row in drift(old[0], one) if row.key == "margin") for one in old[1:])
    assert (same.size, same.moved) == (pytest.approx(0, abs=0.005), False)
    assert (apart.size, apart.moved) == (1, True)
    assert same.name == "stated margin (mean, by the middles of bins)"


@pytest.mark.parametrize(
    "margins", [[0.0] * 40, [0.1] * 40, [5e-324, 0.0] * 20, [-1e300, 1e300] * 20, [1e6, -3.0] * 20]
)
def test_margins_of_any_size_have_a_histogram_of_all_of_them(tmp_path, margins):
    found = _scored(tmp_path, "any", margins)["histograms"]["margin"]
    if found is not None:
        assert sum(found["counts"]) == 40
        assert 10 <= len(found["counts"]) <= 40
