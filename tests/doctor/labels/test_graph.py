"""Contradictions, cycles and repeats are found pair by pair, as a plain search finds them."""

from __future__ import annotations

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


def test_a_cycle_of_three_is_found_and_a_chain_is_not():
    found = cycles(*_keys((1, A, B), (1, B, C), (1, C, A), (1, A, D), (2, A, B), (2, B, C), (2, A, C)))
    assert (found.pairs.tolist(), found.groups.tolist()) == ([0, 1, 2], [0, 0, 0])


def test_a_cycle_does_not_run_through_two_prompts():
    assert cycles(*_keys((1, A, B), (1, B, C), (2, C, A), (2, A, D))).num_groups == 0


def test_two_cycles_in_a_row_are_contradictions_and_no_longer_cycle():
    # A <-> B <-> C is one strongly connected component, but no cycle of three.
    keys = _keys((1, A, B), (1, B, A), (1, B, C), (1, C, B))
    assert cycles(*keys).num_groups == 0
    assert contradictions(*keys).num_groups == 2


def test_of_a_mutual_pair_only_the_direction_that_closes_the_cycle_is_cyclic():
    # B > A > C > B is a cycle; A > B stands against it and lies on none.
    assert cycles(*_keys((1, A, B), (1, B, A), (1, A, C), (1, C, B))).pairs.tolist() == [1, 2, 3]


def test_pairs_of_equal_completions_are_no_preference():
    keys = _keys((1, A, A), (1, A, B), (1, B, B), (1, A, A))
    assert contradictions(*keys).num_groups == cycles(*keys).num_groups == 0


def _lies_on_a_long_cycle(edges, edge):
    """Follow simple paths from the edge's end back to its start, by exhaustive search."""

    def walk(node, path):
        for a, b in edges:
            if a == node and b == edge[0] and len(path) >= 2:
                return True
            if a == node and b not in path and b != edge[0] and walk(b, [*path, b]):
                return True
        return False

    return walk(edge[1], [edge[1]])


@pytest.mark.parametrize("seed", range(30))
def test_cyclic_pairs_are_those_of_an_exhaustive_search(seed):
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, [2, 5, 5], size=(14, 3))
    prompt, chosen, rejected = (column.astype(np.uint64) for column in rows.T)
    expected = []
    for index, (name, one, other) in enumerate(rows.tolist()):
        edges = {(a, b) for p, a, b in rows.tolist() if p == name and a != b}
        if one != other and _lies_on_a_long_cycle(edges, (one, other)):
            expected.append(index)
    assert sorted(cycles(prompt, chosen, rejected).pairs.tolist()) == expected
    opposite = {(p, b, a) for p, a, b in rows.tolist() if a != b}
    found = contradictions(prompt, chosen, rejected)
    assert sorted(found.pairs.tolist()) == [i for i, row in enumerate(rows.tolist()) if tuple(row) in opposite]


def test_a_large_knot_is_taken_as_a_whole():
    # 5,000 completions in a ring, every neighbour mutual: linear time, and only the ring's own direction twice over.
    ring = np.arange(5000, dtype=np.uint64)
    after = np.roll(ring, -1)

    def look():
        found = cycles(np.ones(5000, dtype=np.uint64), ring, after)
        assert len(found.pairs) == 5000
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
