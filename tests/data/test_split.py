"""The split: a pure function of the prompt."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiebreak.data.split import is_heldout, split
from tiebreak.records import Message, Pair


def pair(prompt: str, number: int = 0) -> Pair:
    return Pair((Message("user", prompt),), Message("assistant", f"yes {number}"), Message("assistant", "no"))


PAIRS = st.lists(st.builds(pair, st.sampled_from("abcdefgh") | st.text(min_size=1), st.integers()), max_size=40)
SHARES = st.floats(0, 1, exclude_max=True)


@settings(max_examples=100, deadline=None)
@given(PAIRS, SHARES)
def test_a_prompt_is_never_on_both_sides(pairs, share):
    train, heldout = split(pairs, share)
    assert not {p.prompt_id for p in train} & {p.prompt_id for p in heldout}
    assert len(train) + len(heldout) == len(pairs)


@pytest.mark.parametrize("seen_alike", [" {}", "{}\n\n", "\u200b{}", "{}\u00ad", "\ufeff {}\u200e\n"])
def test_prompts_that_a_reader_cannot_tell_apart_fall_on_the_same_side(seen_alike):
    for number in range(60):
        plain = f"Is the café number {number} open?"
        other = seen_alike.format(plain.replace("é", "e\u0301"))
        assert pair(other).pair_id != pair(plain).pair_id
        assert pair(other).prompt_id == pair(plain).prompt_id == pair(other).split_key == pair(plain).split_key
    assert pair("a b").prompt_id != pair("a  b").prompt_id


@settings(max_examples=100, deadline=None)
@given(PAIRS, SHARES, st.randoms(use_true_random=False))
def test_order_and_neighbours_do_not_move_a_pair_to_the_other_side(pairs, share, random):
    shuffled = random.sample(pairs, len(pairs))
    assert {p.pair_id for p in split(pairs, share)[1]} == {p.pair_id for p in split(shuffled, share)[1]}
    assert all(is_heldout(p, share) for p in split(pairs[::2], share)[1])


@settings(max_examples=50, deadline=None)
@given(PAIRS, SHARES, SHARES)
def test_a_larger_share_only_adds_held_out_pairs(pairs, one, other):
    small, large = sorted((one, other))
    assert {p.pair_id for p in split(pairs, small)[1]} <= {p.pair_id for p in split(pairs, large)[1]}


def test_each_side_keeps_the_order():
    pairs = [pair(str(number)) for number in range(200)]
    for side in split(pairs, 0.5):
        assert side == sorted(side, key=pairs.index)


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
def test_the_share_is_kept_on_average(share):
    heldout = split([pair(str(number)) for number in range(4000)], share)[1]
    assert abs(len(heldout) / 4000 - share) < 4 * (share * (1 - share) / 4000) ** 0.5


def test_a_share_of_one_holds_all_out_and_of_none_nothing():
    pairs = [pair(str(number)) for number in range(50)]
    assert split(pairs, 1.0) == ([], pairs)
    assert split(pairs, 0.0) == (pairs, [])


def test_another_process_splits_alike():
    code = (
        "from tiebreak.data.split import is_heldout; from tiebreak.records import Message, Pair\n"
        "m = lambda r, t: Message(r, t)\n"
        "pairs = [Pair((m('user', str(n)),), m('assistant', 'yes 0'), m('assistant', 'no')) for n in range(60)]\n"
        "print(''.join(str(int(is_heldout(p, 0.3))) for p in pairs))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "".join(str(int(is_heldout(pair(str(n)), 0.3))) for n in range(60))
    assert "1" in done.stdout
    assert "0" in done.stdout
