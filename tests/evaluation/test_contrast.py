"""Two runs on the same items: which items those are, what is called better, and how often by chance."""

from __future__ import annotations

import numpy as np
import pytest

from tiebreak.evaluation.contrast import Items, adjusted, contrast, items_of
from tiebreak.evaluation.rows import Row


def _items(key, values, ids=None, prompts=None) -> Items:
    ids = ids or [f"item{place}" for place in range(len(values))]
    return Items(Row.of(key, prompts or ids, [0.0] * len(values), values), ids)


def test_only_what_both_measured_is_compared_whatever_its_order():
    first = _items("logratio_gap", [1.0, 2.0, 3.0], ["a", "b", "c"])
    other = _items("logratio_gap", [9.0, 5.0, 7.0], ["d", "c", "b"])
    found = contrast(first, other, 0)
    assert (found.num, found.num_alone) == (2, (1, 1))
    assert (found.first, found.other) == (2.5, 6.0)
    assert found.difference.mean == 3.5
    assert contrast(first, _items("logratio_gap", [1.0], ["z"]), 0) is None


def test_a_run_against_itself_is_no_difference():
    one = _items("logratio_gap", list(np.random.default_rng(0).normal(size=50)))
    found = contrast(one, one, 0)
    assert (found.difference.mean, found.p, found.says) == (0, 1, "not told apart")


def test_the_other_way_round_it_is_the_other_verdict():
    draw = np.random.default_rng(1)
    base = draw.normal(size=60)
    first, other = _items("loss", list(base)), _items("loss", list(base + 0.5 + 0.1 * draw.normal(size=60)))
    there, back = contrast(first, other, 0), contrast(other, first, 0)
    assert (there.says, back.says) == ("worse", "better")  # a loss is better lower
    assert there.difference.low == pytest.approx(-back.difference.high, abs=0.02)


def test_few_prompts_of_one_sign_are_no_certainty():
    few = contrast(_items("logratio_gap", [0.0] * 3), _items("logratio_gap", [1.0, 2.0, 3.0]), 0)
    assert few.p == 0.25
    assert few.says == "not told apart"
    one = contrast(
        _items("accuracy", [0.0] * 9, prompts=["p"] * 9), _items("accuracy", [1.0] * 9, prompts=["p"] * 9), 0
    )
    assert (one.num_prompts, one.p) == (1, 1)


def test_a_sure_difference_that_nobody_would_see_is_the_same():
    base = list(np.random.default_rng(2).normal(size=40))
    found = contrast(_items("logratio_gap", base), _items("logratio_gap", [x + 1e-5 for x in base]), 0)
    assert found.p < 0.01
    assert found.says == "the same"


def test_tokens_are_compared_as_a_factor():
    found = contrast(_items("answers/length", [10.0] * 20), _items("answers/length", [20.0] * 20), 0)
    assert found.difference.mean == pytest.approx(np.log(2))
    assert found.says == "moved"


def test_equal_policies_are_told_apart_in_one_comparison_of_twenty_at_most():
    draw, wrong = np.random.default_rng(3), 0
    for seed in range(60):
        some = []
        for key in ("accuracy", "logratio_gap", "answers/repetition"):
            values = draw.random((2, 40))
            values = (values > 0.5).astype(float) if key == "accuracy" else values
            some.append(contrast(_items(key, list(values[0])), _items(key, list(values[1])), seed))
        wrong += any(one.says != "not told apart" for one in adjusted(some))
    assert wrong <= 7  # 60 of 5 % are 3; 7 or more happen in 3 of 100


def test_pairs_go_by_their_ids_and_answers_by_their_prompts():
    rows = [
        Row.of("accuracy", ["p", "p", "q"], [0.5] * 3, [1.0, 0.0, 1.0]),
        Row.of("kl", ["p", "p"], [0.0] * 2, [1.0] * 2),
    ]
    evidence = [{"pair_id": f"pair{place}", "prompt_id": prompt} for place, prompt in enumerate("ppq")]
    found = items_of(rows, evidence)
    assert found["accuracy"].ids == ["pair0", "pair1", "pair2"]
    assert found["kl"].ids == ["p", "p 1"]
    assert "accuracy" not in items_of(rows, evidence[1:])  # which pair is which is not known
