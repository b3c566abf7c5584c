from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tiebreak.maths.layout import lay_out, micro_batches
from tiebreak.records import TokenizedPair
from tiny import PAD, token_pairs


def test_rows_hold_prompt_and_completion_and_then_padding():
    pairs = token_pairs(3)
    batch = lay_out(pairs, PAD)
    rows = [(p.prompt_ids, p.chosen_ids) for p in pairs] + [(p.prompt_ids, p.rejected_ids) for p in pairs]
    width = max(len(prompt) + len(completion) for prompt, completion in rows)
    assert batch.input_ids.shape == (6, width)
    for index, (prompt, completion) in enumerate(rows):
        length, padding = len(prompt) + len(completion), width - len(prompt) - len(completion)
        assert batch.input_ids[index].tolist() == [*prompt, *completion, *[PAD] * padding]
        assert batch.attention_mask[index].tolist() == [1] * length + [0] * padding
        scored = [False] * len(prompt) + [True] * len(completion) + [False] * padding
        assert batch.completion_mask[index].tolist() == scored


def test_a_pad_id_inside_a_completion_is_scored_all_the_same():
    pair = TokenizedPair("a", "p", (5,), (PAD, 7, PAD), (9,))
    batch = lay_out([pair], PAD)
    assert batch.completion_mask.tolist() == [[False, True, True, True], [False, True, False, False]]
    assert batch.attention_mask.tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]


def test_nothing_before_the_first_scored_position_is_predicted():
    pairs = token_pairs(7)
    batch = lay_out(pairs, PAD)
    first = batch.first_scored
    assert first == min(len(pair.prompt_ids) for pair in pairs) - 1
    assert not batch.completion_mask[:, : first + 1].any()
    assert batch.completion_mask[:, first + 1].any()


def test_moving_a_batch_keeps_its_numbers():
    batch = lay_out(token_pairs(2), PAD)
    moved = batch.to(torch.device("cpu"))
    assert moved.pairs == batch.pairs
    assert torch.equal(moved.input_ids, batch.input_ids)
    assert torch.equal(moved.completion_mask, batch.completion_mask)


@given(st.integers(1, 23), st.integers(8, 300), st.integers(0, 5))
def test_every_pair_of_a_step_is_in_exactly_one_group_that_fits(num, budget, seed):
    pairs = token_pairs(num, seed=seed)
    groups = micro_batches(pairs, budget)
    assert sorted(pair.pair_id for group in groups for pair in group) == sorted(pair.pair_id for pair in pairs)
    for group in groups:
        padded = lay_out(group, PAD).input_ids.numel()
        assert padded <= budget or len(group) == 1
    widths = [pair.longest_row for group in groups for pair in group]
    assert widths == sorted(widths, reverse=True)


def test_a_pair_larger_than_the_budget_stands_alone():
    pairs = token_pairs(4)
    assert [len(group) for group in micro_batches(pairs, 8)] == [1, 1, 1, 1]


def test_a_pair_without_a_scored_token_cannot_be_built():
    with pytest.raises(ValueError, match="at least one token"):
        TokenizedPair("a", "p", (5,), (), (9,))
