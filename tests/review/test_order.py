"""Who sees what, where: balanced for every number of items and people, and the same for ever."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiebreak.review.order import APART, assigned, turns


@st.composite
def reviews(draw):
    people = draw(st.integers(1, 6))
    return draw(st.integers(1, 140)), people, draw(st.integers(1, people)), draw(st.integers(0, 2**31))


def names(num, people):
    return [f"i-{n}" for n in range(num)], [f"p{n}" for n in range(people)]


@given(reviews())
@settings(max_examples=60, deadline=None)
def test_sides_are_halves_of_each_person_and_of_each_item(asked):
    num, people, per_item, seed = asked
    found = turns(*names(num, people), per_item, seed)
    of_item = defaultdict(list)
    for own in found.values():
        first = [turn for turn in own if not turn.again]
        assert abs(2 * sum(turn.left == "a" for turn in first) - len(first)) <= 1
        for turn in first:
            of_item[turn.item].append(turn.left)
    assert len(of_item) == num
    for lefts in of_item.values():
        assert len(lefts) == per_item
        assert abs(2 * lefts.count("a") - per_item) <= 1


@given(reviews())
@settings(max_examples=60, deadline=None)
def test_people_get_each_item_once_and_as_many_as_anybody(asked):
    num, people, per_item, seed = asked
    shares = assigned(*names(num, people), per_item, seed)
    assert Counter(item for own in shares.values() for item in own) == dict.fromkeys(names(num, 1)[0], per_item)
    assert max(map(len, shares.values())) - min(map(len, shares.values())) <= 1
    assert all(len({*own}) == len(own) for own in shares.values())


@given(reviews())
@settings(max_examples=60, deadline=None)
def test_some_items_come_again_swapped_and_far_apart(asked):
    num, people, per_item, seed = asked
    for own in turns(*names(num, people), per_item, seed).values():
        first = {turn.item: (place, turn.left) for place, turn in enumerate(own) if not turn.again}
        again = [(place, turn) for place, turn in enumerate(own) if turn.again]
        assert len(again) == (round(0.08 * len(first)) if len(first) > 1 else 0)
        assert len({turn.item for _, turn in again}) == len(again)
        for place, turn in again:
            before, left = first[turn.item]
            assert left != turn.left
            assert place - before - 1 >= min(APART, len(first) - len(again))


def test_two_people_see_a_hundred_shared_items_the_other_way_round():
    items, people = names(100, 2)
    found = turns(items, people, 2, 5)
    ann, ben = ({turn.item: turn.left for turn in found[name] if not turn.again} for name in people)
    assert all(ann[item] != ben[item] for item in items)
    for own in found.values():
        assert 49 <= sum(turn.left == "a" for turn in own if not turn.again) <= 51
        assert abs(sum(1 if turn.left == "a" else -1 for turn in own)) <= 2  # those that come again among them
    assert [turn.item for turn in found["p0"]] != [turn.item for turn in found["p1"]]


def test_an_order_is_a_function_of_its_seed_and_names():
    items, people = names(30, 3)
    assert turns(items, people, 2, 1) == turns(items, people, 2, 1)
    assert turns(items, people, 2, 1) != turns(items, people, 2, 2)


def test_where_a_stands_says_nothing_of_where_it_stands_next():
    """Over many seeds, neighbours in a sequence are alike as often as not: nobody can guess the next side."""
    alike = total = 0
    for seed in range(100):
        own = turns(*names(40, 1), 1, seed)["p0"]
        alike += sum(one.left == other.left for one, other in pairwise(own))
        total += len(own) - 1
    assert abs(alike / total - 19 / 39) < 0.03  # of 20 and 20 in any order, 19 of the 39 others are alike


@pytest.mark.parametrize(("people", "per_item"), [(2, 3), (2, 0), (0, 1)])
def test_more_people_an_item_than_there_are_is_refused(people, per_item):
    with pytest.raises(ValueError, match=r"people|annotator"):
        turns(*names(3, people), per_item, 0)
