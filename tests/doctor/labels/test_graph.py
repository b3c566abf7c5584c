"""Contradictions, cycles and repeats are found pair by pair, as a plain search finds them."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest

from bounds import hang_after, num_lines
from tiebreak.doctor.labels.graph import clusters, contradictions, cycles, duplicates

A, B, C, D, E = (2**64 - 1 - i for i in range(5))  # keys above 2**63 stay what they are


def _keys(*pairs):
    return tuple(np.array(column, dtype=np.uint64) for column in zip(*pairs, strict=True))


def test_a_pair_that_stands_again_is_a_duplicate_and_its_first_line_is_not():
    assert duplicates(*_keys((1, A, B), (1, A, B), (2, A, B), (1, B, A), (1, A, B))).tolist() == [1, 4]


def test_a_contradiction_holds_both_lines_and_counts_both_directions():
    found = contradictions(
        *_keys((2, A, C), (1, A, B), (2, A, B), (1, C, D), (1, B, A), (1, A, B), (3, D, E), (3, E, D))
    )
    assert found.pairs.tolist() == [1, 4, 5, 6, 7]
    assert found.groups.tolist() == [0, 0, 0, 1, 1]
    assert found.num_same.tolist() == [2, 1, 2, 1, 1]
    assert found.num_opposite.tolist() == [1, 2, 1, 1, 1]
    assert found.num_groups == 2


def test_opposite_preferences_on_different_prompts_do_not_contradict():
    assert contradictions(*_keys((1, A, B), (2, B, A))).num_groups == 0


def test_one_pair_closes_a_circle_of_three_and_none_a_chain():
    found = cycles(*_keys((1, A, B), (1, B, C), (1, C, A), (1, A, D), (2, A, B), (2, B, C), (2, A, C)))
    assert (len(found.pairs), found.groups.tolist(), found.num_on_circles) == (1, [0], 3)
    assert found.pairs[0] in (0, 1, 2)


def test_a_cycle_does_not_run_through_two_prompts():
    assert cycles(*_keys((1, A, B), (1, B, C), (2, C, A), (2, A, D))).num_groups == 0


def test_two_cycles_in_a_row_are_contradictions_and_no_longer_cycle():
    # A <-> B <-> C is one strongly connected component, but no cycle of three.
    keys = _keys((1, A, B), (1, B, A), (1, B, C), (1, C, B))
    assert cycles(*keys).num_groups == 0
    assert contradictions(*keys).num_groups == 2


def test_what_contradicts_itself_closes_no_circle_beside():
    # Without A and B, whose order is left to the other rule, nothing is circular.
    keys = _keys((1, A, B), (1, B, A), (1, A, C), (1, C, B))
    assert cycles(*keys).num_groups == 0
    assert contradictions(*keys).pairs.tolist() == [0, 1]


def test_the_narrowest_of_as_few_pairs_is_left_out_and_all_rows_of_it():
    keys = _keys((1, A, B), (1, B, C), (1, C, A), (1, B, C))
    for narrow, pairs in ((0, [0]), (2, [2])):
        strength = np.array([1.0 if row == narrow else 5.0 for row in range(4)])
        assert cycles(*keys, strength).pairs.tolist() == pairs
    assert cycles(*keys, np.array([9.0, 0, 9, 0])).pairs.tolist() in ([0], [2])  # one pair rather than two narrow ones
    assert cycles(*_keys((1, A, B), (1, B, C), (1, C, A)), np.zeros(3)).num_groups == 1


def test_pairs_of_equal_completions_are_no_preference():
    keys = _keys((1, A, A), (1, A, B), (1, B, B), (1, A, A))
    assert contradictions(*keys).num_groups == cycles(*keys).num_groups == 0


def _is_free_of_circles(edges):
    edges = set(edges)
    while edges:
        ends = {b for _, b in edges}
        rest = {(a, b) for a, b in edges if a in ends}
        if rest == edges:
            return False
        edges = rest
    return True


@pytest.mark.parametrize("seed", range(40))
def test_what_is_kept_has_no_circle_and_no_smaller_set_would_do(seed):
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, [2, 6, 6], size=(16, 3))
    keys = tuple(column.astype(np.uint64) for column in rows.T)
    found, against = cycles(*keys), contradictions(*keys)
    assert not set(found.pairs.tolist()) & set(against.pairs.tolist())
    sound = [i for i, row in enumerate(rows.tolist()) if row[1] != row[2] and i not in against.pairs]
    for name in (0, 1):
        own = [i for i in sound if rows[i][0] == name]
        left = [tuple(rows[i][1:].tolist()) for i in own if i not in found.pairs]
        assert _is_free_of_circles(left)
        fewest = next(
            num
            for num in range(len(own) + 1)
            for out in itertools.combinations(own, num)
            if _is_free_of_circles([tuple(rows[i][1:].tolist()) for i in own if i not in out])
        )
        assert len(own) - len(left) == fewest
    opposite = {(p, b, a) for p, a, b in rows.tolist() if a != b}
    assert sorted(against.pairs.tolist()) == [i for i, row in enumerate(rows.tolist()) if tuple(row) in opposite]


def test_one_wrong_judgement_in_a_whole_comparison_is_the_one_that_is_named():
    for num in (5, 12, 40):  # exact, exact, and beyond it
        pairs = [(1, a, b) for a, b in itertools.combinations(range(num), 2)]
        wrong = pairs.index((1, 0, num - 1))
        pairs[wrong] = (1, num - 1, 0)
        found = cycles(*_keys(*pairs))
        assert found.pairs.tolist() == [wrong]
        assert found.num_on_circles == len(pairs)


@pytest.mark.parametrize("num", [13, 14, 15, 30, 60])
def test_few_wrong_judgements_are_found_and_what_is_left_can_be_ordered(num):
    rng = np.random.default_rng(num)
    turned = rng.random((num, num)) < 0.05
    pairs = [(1, b, a) if turned[a, b] else (1, a, b) for a, b in itertools.combinations(range(num), 2)]
    pairs = [pairs[i] for i in rng.permutation(len(pairs))]
    found = cycles(*_keys(*pairs))
    assert len(found.pairs) <= np.triu(turned, 1).sum()
    out = set(found.pairs.tolist())
    assert _is_free_of_circles([pair[1:] for i, pair in enumerate(pairs) if i not in out])
    assert [pairs[i] for i in found.pairs] == sorted([pairs[i] for i in found.pairs], key=pairs.index)


def test_the_same_pairs_are_named_in_whatever_order_they_stand():
    rng = np.random.default_rng(3)
    pairs = [(1, a, b) if rng.random() < 0.5 else (1, b, a) for a, b in itertools.combinations(range(9), 2)]
    named = {pairs[i] for i in cycles(*_keys(*pairs)).pairs}
    for _ in range(3):
        some = [pairs[i] for i in rng.permutation(len(pairs))]
        assert {some[i] for i in cycles(*_keys(*some)).pairs} == named


def test_a_large_ring_is_opened_at_one_place():
    # 5,000 completions in a ring; with every neighbour mutual it is contradictions alone.
    ring = np.arange(5000, dtype=np.uint64)
    after = np.roll(ring, -1)

    def look():
        found = cycles(np.ones(5000, dtype=np.uint64), ring, after)
        assert (len(found.pairs), found.num_on_circles) == (1, 5000)
        assert cycles(np.ones(10_000, dtype=np.uint64), np.r_[ring, after], np.r_[after, ring]).num_groups == 0

    with hang_after():
        assert num_lines(look) < 100 * 5000


def test_pairs_per_prompt_are_counted_and_weighed():
    found = clusters(np.array([1, 1, 1, 2, 3], dtype=np.uint64))
    assert (found.num_pairs, found.num_prompts, found.largest) == (5, 3, 3)
    assert found.effective == pytest.approx(25 / 11)
    assert found.histogram == ((1, 2), (3, 1))
    assert json.loads(json.dumps(found.as_dict())) == {"num_prompts": 3, "effective": 2.3, "largest": 3}


def test_nothing_holds_nothing():
    empty = (np.zeros(0, dtype=np.uint64),) * 3
    assert len(duplicates(*empty)) == contradictions(*empty).num_groups == cycles(*empty).num_groups == 0
    assert clusters(empty[0]).effective == 0


def test_a_million_pairs_take_seconds():
    rng, num = np.random.default_rng(0), 1_000_000
    prompt, chosen, rejected = (rng.integers(0, top, num, dtype=np.uint64) for top in (250_000, 6, 6))

    def look():
        assert len(duplicates(prompt, chosen, rejected)) > 0
        found, knots = contradictions(prompt, chosen, rejected), cycles(prompt, chosen, rejected)
        assert found.num_groups > 0
        assert knots.num_groups > 0

    with hang_after():
        assert num_lines(look) < num  # all at once, but for the knots
