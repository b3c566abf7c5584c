from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from families import Bare
from tiebreak.maths.layout import lay_out, micro_batches, num_padded
from tiebreak.records import TokenizedPair, longest_row
from tiny import PAD, token_pairs

ONE_AND_FOUR = [
    Bare("one", (5, 6), ((7, 8, 9),)),
    Bare("four", (5,), ((7,), (8, 9), (7, 8, 9, 10, 11), (PAD,))),
    *token_pairs(1),
]


@pytest.mark.parametrize("examples", [token_pairs(3), ONE_AND_FOUR], ids=["pairs", "one and four"])
def test_rows_hold_prompt_and_completion_and_then_padding(examples):
    batch = lay_out(examples, PAD)
    rows = [(e.prompt_ids, completion) for e in examples for completion in e.completions]
    width = max(len(prompt) + len(completion) for prompt, completion in rows)
    assert batch.input_ids.shape == (len(rows), width)
    assert batch.num_tokens == tuple(len(completion) for _, completion in rows)
    for index, (prompt, completion) in enumerate(rows):
        length, padding = len(prompt) + len(completion), width - len(prompt) - len(completion)
        assert batch.input_ids[index].tolist() == [*prompt, *completion, *[PAD] * padding]
        assert batch.attention_mask[index].tolist() == [1] * length + [0] * padding


@pytest.mark.parametrize("examples", [token_pairs(3), ONE_AND_FOUR], ids=["pairs", "one and four"])
def test_predictors_stand_one_position_before_the_tokens_of_completions(examples):
    batch = lay_out(examples, PAD)
    following = batch.input_ids[:, batch.first_scored + 1 :].flatten()[batch.predictors]
    completions = [completion for example in examples for completion in example.completions]
    assert following.tolist() == [token for completion in completions for token in completion]
    place = torch.arange(batch.input_ids.shape[1]).expand_as(batch.input_ids)[:, batch.first_scored : -1].flatten()
    rows = [(example.prompt_ids, completion) for example in examples for completion in example.completions]
    wanted = [len(prompt) - 1 + token for prompt, completion in rows for token in range(len(completion))]
    assert place[batch.predictors].tolist() == wanted


def test_rows_of_a_pair_are_its_chosen_and_then_its_rejected_completion():
    batch = lay_out([TokenizedPair("a", "p", (5,), (6,), (7,)), TokenizedPair("b", "q", (8,), (9,), (10,))], PAD)
    assert batch.input_ids.tolist() == [[5, 6], [5, 7], [8, 9], [8, 10]]


def test_a_pad_id_inside_a_completion_is_scored_all_the_same():
    pair = TokenizedPair("a", "p", (5,), (PAD, 7, PAD), (9,))
    batch = lay_out([pair], PAD)
    assert batch.predictors.tolist() == [0, 1, 2, 3]
    assert batch.attention_mask.tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]


def test_nothing_before_the_first_scored_position_is_predicted():
    pairs = token_pairs(7)
    batch = lay_out(pairs, PAD)
    first = batch.first_scored
    assert first == min(len(pair.prompt_ids) for pair in pairs) - 1
    width = batch.input_ids.shape[1] - 1 - first
    assert min(place % width for place in batch.predictors.tolist()) == 0


def test_moving_a_batch_keeps_its_numbers():
    batch = lay_out(token_pairs(2), PAD)
    moved = batch.to(torch.device("cpu"))
    assert (moved.num_tokens, moved.first_scored) == (batch.num_tokens, batch.first_scored)
    assert torch.equal(moved.input_ids, batch.input_ids)
    assert torch.equal(moved.attention_mask, batch.attention_mask)
    assert torch.equal(moved.predictors, batch.predictors)


@given(st.integers(1, 23), st.integers(8, 300), st.integers(0, 5))
def test_every_pair_of_a_step_is_in_exactly_one_group_that_fits(num, budget, seed):
    pairs = token_pairs(num, seed=seed)
    groups = micro_batches(pairs, budget)
    assert sorted(pair.example_id for group in groups for pair in group) == sorted(pair.example_id for pair in pairs)
    for group in groups:
        padded = lay_out(group, PAD).input_ids.numel()
        assert padded <= budget or len(group) == 1
    widths = [longest_row(pair) for group in groups for pair in group]
    assert widths == sorted(widths, reverse=True)


def test_a_pair_larger_than_the_budget_stands_alone():
    pairs = token_pairs(4)
    assert [len(group) for group in micro_batches(pairs, 8)] == [1, 1, 1, 1]


def test_a_micro_batch_is_measured_by_all_of_its_completions():
    assert num_padded(ONE_AND_FOUR) == lay_out(ONE_AND_FOUR, PAD).input_ids.numel()
    groups = micro_batches(ONE_AND_FOUR, 24)
    assert all(num_padded(group) <= 24 or len(group) == 1 for group in groups)
    assert sorted(e.example_id for group in groups for e in group) == sorted(e.example_id for e in ONE_AND_FOUR)


def test_a_pair_without_a_scored_token_cannot_be_built():
    with pytest.raises(ValueError, match="at least one token"):
        TokenizedPair("a", "p", (5,), (), (9,))
