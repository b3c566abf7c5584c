"""Examples dealt to processes: each once, nobody waiting long, and alike wherever it is reckoned."""

from __future__ import annotations

import itertools
import random

import pytest

from tiebreak.maths.dealing import balance, deal


@pytest.mark.parametrize(("num", "hands"), [(0, 2), (1, 2), (1, 5), (7, 1), (13, 2), (64, 8), (9, 4)])
def test_every_example_goes_to_one_hand_and_the_first_hand_has_one_where_there_is_any(num, hands):
    sizes = [random.Random(num).randrange(1, 500) for _ in range(num)]
    found = deal(sizes, hands)
    assert sorted(itertools.chain(*found)) == list(range(num))
    assert len(found) == hands
    assert all(places == sorted(places) for places in found)
    assert bool(found[0]) == bool(num)


def test_no_hand_gets_more_than_four_thirds_of_the_best_deal():
    draw = random.Random(3)
    for _ in range(50):
        sizes = [draw.randrange(1, 60) for _ in range(7)]
        fullest = max(sum(sizes[place] for place in places) for places in deal(sizes, 3))
        best = min(
            max(sum(size for size, hand in zip(sizes, hands, strict=True) if hand == one) for one in range(3))
            for hands in itertools.product(range(3), repeat=7)
        )
        assert fullest <= 4 / 3 * best


def test_balance_is_the_share_of_the_time_that_all_work():
    assert balance([3, 1, 2, 2], [[0, 1], [2, 3]]) == 1.0
    assert balance([3, 1], [[0], [1]]) == pytest.approx(2 / 3)
    assert balance([5], [[0], []]) == 0.5
    assert balance([], [[], []]) == 1.0
