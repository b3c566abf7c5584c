"""A run of one process is all of its ranks."""

from __future__ import annotations

import torch

from tiebreak.engine.ranks import Alone
from tiny import token_pairs


def test_a_run_of_one_process_is_the_first_of_one_and_writes():
    assert (Alone().rank, Alone().size, Alone().writes) == (0, 1, True)


def test_alone_learns_from_all_examples_of_a_step_each_once_and_in_their_order():
    pairs = token_pairs(5, num_prompts=2)
    assert list(Alone().deal(pairs)) == pairs
    assert list(Alone().deal([])) == []


def test_what_is_added_up_and_gathered_over_one_process_stays_as_it_is():
    values = torch.tensor([[1.5, -2.0, 0.25], [3.0, 0.0, -1.0]])
    assert torch.equal(Alone().total(values), values)
    assert torch.equal(Alone().gather(values), values)


def test_alone_says_what_it_is_told():
    assert Alone().any(True) is True
    assert Alone().any(False) is False
