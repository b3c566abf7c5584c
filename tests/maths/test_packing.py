from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import chain

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bounds import num_lines
from families import Bare
from tiebreak.maths.packing import Segment, num_packed, pack, packed_micro_batches
from tiebreak.records import TokenizedPair, num_unique_tokens
from tiny import token_pairs


def _pair(name, prompt, chosen, rejected):
    return TokenizedPair(name, f"of {prompt}", prompt, chosen, rejected)


# Few different tokens, prompts and completions, so that pairs share and completions begin alike.
ids = st.lists(st.integers(3, 5), min_size=1, max_size=4).map(tuple)


@st.composite
def steps(draw):
    """Pairs of a step, each with a name of its own."""
    prompts = draw(st.lists(ids, min_size=1, max_size=3))
    sides = st.tuples(st.sampled_from(prompts), ids, ids).filter(lambda side: side[1] != side[2])
    return [_pair(f"pair{index}", *side) for index, side in enumerate(draw(st.lists(sides, min_size=1, max_size=8)))]


@st.composite
def mixed(draw):
    """Examples of a step, each of one to four completions."""
    prompts = draw(st.lists(ids, min_size=1, max_size=3))
    drawn = st.tuples(st.sampled_from(prompts), st.lists(ids, min_size=1, max_size=4).map(tuple))
    return [Bare(f"example{index}", *one) for index, one in enumerate(draw(st.lists(drawn, min_size=1, max_size=8)))]


examples = steps() | mixed()


def _contexts(packed):
    """What each place of the row may look at, itself included: its prompt and its own completion up to itself."""
    found, begin = [], 0
    row = packed.input_ids.tolist()
    for segment in packed.segments:
        prompt = tuple(row[begin : begin + segment.prompt])
        found += [prompt[: end + 1] for end in range(segment.prompt)]
        begin += segment.prompt
        for length in segment.completions:
            found += [prompt + tuple(row[begin : begin + end + 1]) for end in range(length)]
            begin += length
    return found


def _predictions(packed):
    """(tokens before, token) of every scored token, completion after completion."""
    contexts, scored = _contexts(packed), packed.completion_tokens
    predictors, targets = packed.predictors[scored].tolist(), packed.targets[scored].tolist()
    return [(contexts[where], target) for where, target in zip(predictors, targets, strict=True)]


def _expected_predictions(examples):
    return [
        (example.prompt_ids + completion[:t], token)
        for example in examples
        for completion in example.completions
        for t, token in enumerate(completion)
    ]


# ---------------------------------------------------------------------------------------------------------- by example


def test_the_layout_of_one_pair_spelled_out():
    packed = pack([_pair("a", (10, 11, 12), (20, 21, 22), (30, 31, 32, 33))])
    assert packed.input_ids.tolist() == [10, 11, 12, 20, 21, 30, 31, 32]
    assert packed.position_ids.tolist() == [0, 1, 2, 3, 4, 3, 4, 5]
    assert packed.segments == (Segment(3, (2, 3)),)
    assert packed.predictors.tolist() == [2, 3, 4, 2, 5, 6, 7]
    assert packed.targets.tolist() == [20, 21, 22, 30, 31, 32, 33]
    assert packed.completion_tokens.tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert packed.num_tokens == (3, 4)


def test_pairs_of_a_prompt_share_it_and_equal_completions_are_stored_once():
    pairs = [
        _pair("a", (10, 11), (20, 21), (30, 31, 32)),
        _pair("b", (15,), (20, 21), (40, 41)),
        _pair("c", (10, 11), (20, 21), (50, 51)),
        _pair("d", (10, 11), (30, 31, 32), (20, 21)),
    ]
    packed = pack(pairs)
    assert packed.input_ids.tolist() == [10, 11, 20, 30, 31, 50, 15, 20, 40]
    assert packed.position_ids.tolist() == [0, 1, 2, 2, 3, 2, 0, 1, 1]
    assert packed.segments == (Segment(2, (1, 2, 1)), Segment(1, (1, 1)))
    assert packed.targets.tolist() == [20, 21, 30, 31, 32, 50, 51, 20, 21, 40, 41]
    assert packed.predictors.tolist() == [1, 2, 1, 3, 4, 1, 5, 6, 7, 6, 8]
    chosen, rejected = [[0, 1], [7, 8], [0, 1], [2, 3, 4]], [[2, 3, 4], [9, 10], [5, 6], [0, 1]]
    rows = [row for pair in zip(chosen, rejected, strict=True) for row in pair]
    assert packed.completion_tokens.tolist() == [*chain(*rows)]
    assert packed.num_tokens == tuple(map(len, rows))


def test_a_completion_that_several_examples_hold_is_stored_once_whatever_else_they_hold():
    examples = [
        Bare("one", (10, 11), ((20, 21),)),
        Bare("four", (10, 11), ((30,), (20, 21), (40, 41, 42), (20, 21))),
        Bare("other prompt", (10,), ((20, 21),)),
    ]
    packed = pack(examples)
    assert packed.input_ids.tolist() == [10, 11, 20, 40, 41, 10, 20]
    assert packed.segments == (Segment(2, (1, 0, 2)), Segment(1, (1,)))
    assert packed.targets.tolist() == [20, 21, 30, 40, 41, 42, 20, 21]
    assert packed.completion_tokens.tolist() == [0, 1, 2, 0, 1, 3, 4, 5, 0, 1, 6, 7]
    assert packed.num_tokens == (2, 1, 2, 3, 2, 2)


def test_completions_of_one_token_take_no_place_in_the_row():
    packed = pack([_pair("a", (10, 11), (20,), (30,))])
    assert packed.input_ids.tolist() == [10, 11]
    assert packed.segments == (Segment(2, (0, 0)),)
    assert packed.predictors.tolist() == [1, 1]
    assert packed.targets.tolist() == [20, 30]


def test_completions_that_only_begin_alike_stay_apart():
    packed = pack([_pair("a", (10,), (20, 21), (20, 21, 22))])
    assert packed.input_ids.tolist() == [10, 20, 20, 21]
    assert packed.segments == (Segment(1, (1, 2)),)


def test_equal_tokens_of_different_prompts_are_not_shared():
    packed = pack([_pair("a", (10, 20), (30, 31), (40,)), _pair("b", (10,), (20, 30, 31), (40,))])
    assert packed.input_ids.tolist() == [10, 20, 30, 10, 20, 30]


# --------------------------------------------------------------------------------------------------- whatever the pairs


@given(examples)
def test_every_token_of_every_pair_is_predicted_once_from_what_stands_before_it(examples):
    packed = pack(examples)
    assert packed.num_tokens == tuple(len(completion) for e in examples for completion in e.completions)
    assert _predictions(packed) == _expected_predictions(examples)


@given(steps())
def test_the_completions_of_a_pair_come_chosen_before_rejected(pairs):
    packed = pack(pairs)
    rows = [packed.targets[at].tolist() for at in packed.completion_tokens.split(list(packed.num_tokens))]
    assert rows[0::2] == [list(pair.chosen_ids) for pair in pairs]
    assert rows[1::2] == [list(pair.rejected_ids) for pair in pairs]


@given(examples)
def test_a_token_s_position_is_the_number_of_tokens_that_it_sees(examples):
    packed = pack(examples)
    assert packed.position_ids.tolist() == [len(context) - 1 for context in _contexts(packed)]


@given(examples)
def test_each_prompt_and_each_completion_of_it_stands_in_the_row_once_and_nothing_else_does(examples):
    packed = pack(examples)
    prompts = {example.prompt_ids for example in examples}
    completions = {(example.prompt_ids, ids) for example in examples for ids in example.completions}
    assert len(packed.segments) == len(prompts)
    assert sum(len(segment.completions) for segment in packed.segments) == len(completions)
    assert len(packed.input_ids) == sum(map(len, prompts)) + sum(len(ids) - 1 for _, ids in completions)
    assert len(packed.targets) == sum(len(ids) for _, ids in completions)
    assert set(packed.completion_tokens.tolist()) == set(range(len(packed.targets)))


@given(examples)
def test_the_segments_cover_the_row_and_num_packed_counts_it(examples):
    packed = pack(examples)
    assert sum(segment.num_tokens for segment in packed.segments) == len(packed.input_ids) == num_packed(examples)
    assert num_packed(examples) <= sum(num_unique_tokens(e) - len(e.completions) for e in examples)


# ------------------------------------------------------------------------------------------------------- micro-batches


@given(examples, st.integers(1, 40))
def test_every_pair_of_a_step_is_in_exactly_one_group_that_fits(examples, budget):
    groups = packed_micro_batches(examples, budget)
    assert Counter(e.example_id for group in groups for e in group) == Counter(e.example_id for e in examples)
    for group in groups:
        assert len(pack(group).input_ids) <= budget or len(group) == 1


@given(examples, st.integers(1, 40))
def test_pairs_of_a_prompt_are_split_only_where_they_exceed_the_budget(examples, budget):
    groups = packed_micro_batches(examples, budget)
    for prompt in {example.prompt_ids for example in examples}:
        same = [example for example in examples if example.prompt_ids == prompt]
        holding = sum(any(example.prompt_ids == prompt for example in group) for group in groups)
        assert holding == 1 or num_packed(same) > budget


@given(st.integers(1, 23), st.integers(10, 300), st.integers(0, 5))
def test_no_two_groups_of_different_prompts_would_fit_into_one(num, budget, seed):
    groups = packed_micro_batches(token_pairs(num, seed=seed), budget)
    sizes = sorted(map(num_packed, groups))
    assert len(sizes) == 1 or sizes[0] + sizes[1] > budget


def _of_sizes(*sizes):
    """Pairs of different prompts that pack to so many tokens."""
    return [_pair(f"{index}", (*[3] * (size - 3), index), (20, 21), (30, 31)) for index, size in enumerate(sizes, 10)]


def test_the_largest_go_first_each_into_the_first_group_with_room():
    groups = packed_micro_batches(_of_sizes(4, 8, 5, 7, 6, 3), 12)
    assert [[num_packed([pair]) for pair in group] for group in groups] == [[8, 4], [7, 5], [6, 3]]


def test_a_pair_larger_than_the_budget_stands_alone_and_leaves_the_others_together():
    groups = packed_micro_batches(_of_sizes(4, 30, 5), 10)
    assert [[num_packed([pair]) for pair in group] for group in groups] == [[30], [5, 4]]


def test_pairs_of_a_prompt_that_exceed_the_budget_are_cut_into_parts_that_fit():
    pairs = [_pair(f"{index}", (10, 11, 12), (20, 21), (30 + index, 31)) for index in range(5)]
    assert num_packed(pairs) == 3 + 1 + 5
    assert [len(group) for group in packed_micro_batches(pairs, 9)] == [5]
    groups = packed_micro_batches(pairs, 6)
    assert [pair.example_id for pair in chain(*groups)] == ["0", "1", "2", "3", "4"]
    assert [num_packed(group) for group in groups] == [6, 6, 5]


def test_equal_pairs_are_grouped_without_comparing_them():
    pairs = [_pair("same", (10, 11), (20, 21), (30, 31))] * 3 + _of_sizes(5, 5)
    assert sum(map(len, packed_micro_batches(pairs, 7))) == 5


# ------------------------------------------------------------------------------------------------------------ refusals


def test_segments_that_do_not_cover_the_row_are_refused():
    packed = pack(token_pairs(2))
    with pytest.raises(ValueError, match="segments do not cover the row"):
        replace(packed, segments=packed.segments[:1])


@pytest.mark.parametrize("what", ["completion_tokens", "num_tokens"])
def test_scored_tokens_that_are_not_those_of_the_pairs_are_refused(what):
    packed = pack(token_pairs(2))
    with pytest.raises(ValueError, match="not those of the completions"):
        replace(packed, **{what: getattr(packed, what)[:-1]})


def test_no_pairs_make_no_groups():
    assert packed_micro_batches([], 10) == []


def test_every_column_is_whole_numbers():
    packed = pack([_pair("a", (10,), (20,), (30,))])
    columns = ("input_ids", "position_ids", "predictors", "targets", "completion_tokens")
    assert {getattr(packed, name).dtype for name in columns} == {torch.int64}


def test_a_whole_data_set_is_grouped_in_seconds():
    pairs = token_pairs(20_000, num_prompts=7_000)
    groups = packed_micro_batches(pairs, 200)
    eighth = token_pairs(2_500, num_prompts=875)
    whole, part = (num_lines(lambda some=some: packed_micro_batches(some, 200)) for some in (pairs, eighth))
    assert whole < 12 * part  # 8 times the pairs; quadratic were 64 times
    assert sorted(p.example_id for group in groups for p in group) == sorted(p.example_id for p in pairs)
    assert max(map(num_packed, groups)) <= 200


def test_filling_stands_behind_the_pairs_and_moves_nothing():
    packed = pack(token_pairs(3))
    filled = packed.filled(5)
    assert packed.filled(0) is packed
    assert filled.segments == (*packed.segments, Segment(5, (0,)))
    assert filled.input_ids.tolist() == [*packed.input_ids.tolist(), 0, 0, 0, 0, 0]
    assert filled.position_ids.tolist() == [*packed.position_ids.tolist(), 0, 1, 2, 3, 4]
    for name in ("predictors", "targets", "completion_tokens", "num_tokens"):
        assert getattr(filled, name) is getattr(packed, name)
