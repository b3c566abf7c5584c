from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiebreak.config import TrainingConfig, build_config
from tiebreak.data.tokens import TokenTable
from tiebreak.errors import ConfigError
from tiebreak.training.order import num_steps, refuse_steps, steps
from tiny import token_pairs, token_thumbs

PAIRS = token_pairs(23)


def _order(**changes):
    settings = TrainingConfig(pairs_per_step=4, **changes)
    return [[pair.example_id for pair in step.examples] for step in steps(PAIRS, settings)]


@given(st.integers(1, 23), st.integers(1, 9), st.integers(1, 4), st.integers(0, 3), st.booleans())
def test_every_epoch_takes_every_pair_exactly_once(num, per_step, epochs, seed, shuffle):
    config = TrainingConfig(pairs_per_step=per_step, epochs=epochs, seed=seed, shuffle=shuffle)
    found = list(steps(PAIRS[:num], config))
    assert len(found) == num_steps(num, config)
    assert [step.index for step in found] == list(range(len(found)))
    for epoch in range(epochs):
        taken = [pair.example_id for step in found if step.epoch == epoch for pair in step.examples]
        assert sorted(taken) == sorted(pair.example_id for pair in PAIRS[:num])
    assert all(len(step.examples) <= per_step for step in found)


def test_the_last_step_of_an_epoch_may_hold_fewer_pairs():
    assert [len(step) for step in _order(epochs=2)] == [4, 4, 4, 4, 4, 3] * 2


def test_the_order_is_set_by_seed_and_epoch_alone():
    assert _order(seed=1, epochs=2) == _order(seed=1, epochs=2)
    assert _order(seed=1) != _order(seed=2)
    both = _order(seed=1, epochs=2)
    assert both[:6] == _order(seed=1)
    assert both[:6] != both[6:]


def test_without_shuffling_the_file_s_order_is_kept_in_every_epoch():
    flat = [pair_id for step in _order(shuffle=False, epochs=2) for pair_id in step]
    assert flat == [pair.example_id for pair in PAIRS] * 2


def test_a_prompt_counts_once_among_the_unique_tokens():
    [step] = steps(PAIRS[:2], TrainingConfig(pairs_per_step=2))
    expected = sum(len(p.prompt_ids) + len(p.chosen_ids) + len(p.rejected_ids) for p in PAIRS[:2])
    assert step.num_unique_tokens == expected


@pytest.mark.parametrize("seed", range(3))
def test_a_longer_file_s_shuffle_moves_nearly_every_pair(seed):
    flat = [pair_id for step in _order(seed=seed) for pair_id in step]
    assert sum(a == b.example_id for a, b in zip(flat, PAIRS, strict=True)) < 6


@pytest.mark.parametrize(
    ("name", "told"), [("kto", "no two prompts to compare"), ("bco_unpaired", "no two good completions and bad ones")]
)
def test_a_step_that_lacks_what_it_compares_is_refused_with_a_number_that_works(name, told):
    thumbs = [replace(one, example_id=f"{at:064x}", prompt_id=f"{at:064x}") for at, one in enumerate(token_thumbs(121))]
    loss, table = build_config({"loss": {"name": name, "beta": 0.1}}).loss, TokenTable.of(thumbs)
    with pytest.raises(ConfigError, match=told) as caught:
        refuse_steps(table, TrainingConfig(pairs_per_step=8), loss)
    works = int(re.search(r"(\d+) works", str(caught.value))[1])
    refuse_steps(table, TrainingConfig(pairs_per_step=works), loss)
    assert works > 8
    refuse_steps(table, TrainingConfig(pairs_per_step=1), build_config({"loss": "apo_zero_unpaired"}).loss)
