"""Objectives that remember steps before: what they make of it, and how it moves."""

from __future__ import annotations

import itertools
import math
import random

import pytest
import torch

import tiebreak
from drawn import as_tensors, drawn, objective
from preferences import ORACLES, gap, mean_gap
from tiebreak.config import build_config
from tiebreak.errors import ConfigError
from tiebreak.maths.objectives import Running, Stated, slopes
from tiny import token_pairs

MEMORIES = {"beta_dpo": (Running(2.5, 1.0), 2.5, gap), "alpha_dpo": (Running(0.1, 0.7), (0.1, 0.7), mean_gap)}


@pytest.mark.parametrize("name", MEMORIES)
def test_what_is_remembered_enters_the_loss_and_its_gradient_as_in_the_loop(name):
    running, before, _ = MEMORIES[name]
    pairs, asked = drawn(12, num=5), objective(name, beta=0.3).remembering(running)
    policy, reference, stated = as_tensors(pairs)
    one = torch.ones(5, dtype=torch.float64)
    found, losses = slopes(asked, policy, reference, one, stated)
    expected = ORACLES[name](pairs, **asked.settings, before=before)
    assert losses.losses.mean().item() == pytest.approx(expected, rel=1e-12)
    for place, (index, side) in enumerate((index, side) for index in range(5) for side in "wl"):

        def at(value, index=index, side=side):
            moved = [pair | {side: value} if number == index else pair for number, pair in enumerate(pairs)]
            return ORACLES[name](moved, **asked.settings, before=before, shift=pairs)

        here = pairs[index][side]
        slope = (at(here + 1e-5) - at(here - 1e-5)) / 2e-5 * 5
        assert found[place].item() == pytest.approx(slope, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("name", MEMORIES)
def test_a_step_that_was_taken_moves_what_is_remembered_by_a_tenth(name):
    running, _, of = MEMORIES[name]
    pairs, asked = drawn(13), objective(name).remembering(running)
    policy, reference, stated = as_tensors(pairs)
    found = asked.after(asked.formula.metrics(asked(policy, reference, stated), policy, stated))
    gaps = [of(pair) for pair in pairs]
    mean = sum(gaps) / len(gaps)
    spread = math.sqrt(sum((one - mean) ** 2 for one in gaps) / len(gaps))
    # Metrics are fp32.
    assert found == pytest.approx((0.9 * running[0] + 0.1 * mean, 0.9 * running[1] + 0.1 * spread), rel=1e-6)
    assert asked.running == running


def test_an_objective_that_remembers_nothing_stays_so():
    policy, reference, stated = as_tensors(drawn(14))
    asked = objective("dpo")
    assert asked.after(asked.formula.metrics(asked(policy, reference, stated), policy, stated)) == Running()


def test_beta_stays_above_a_thousandth_and_rises_with_the_gap_of_a_step():
    pair = {"w": -5.0, "l": -9.0, "rw": -6.0, "rl": -8.0, "nw": 1, "nl": 1, "margin": 1, "soft": 1, "pw": 1, "pl": 0}
    loss = lambda mean: objective("beta_dpo").remembering(Running(mean))(*as_tensors([pair])).losses.item()  # noqa: E731
    for mean, beta in ((0.0, 0.1 * 2.2), (2.0, 0.1), (50.0, 1e-3)):
        assert loss(mean) == pytest.approx(math.log1p(math.exp(-2 * beta)))


def test_a_gap_of_rounding_is_no_standard_deviation():
    """At the start every gap is 0, and what is not is rounding: it must not become a margin."""
    _, reference, _ = as_tensors(drawn(15))
    found, plain = objective("alpha_dpo", alpha=1.0), objective("simpo", beta=2.5, gamma=1.5)
    policy = type(reference)(reference.sums + 1e-6, reference.num_tokens)
    assert torch.allclose(found(policy, reference).losses, plain(policy, None).losses, atol=5e-3)


@pytest.mark.parametrize("name", MEMORIES)
def test_what_remembers_is_no_term_of_a_sum_and_is_asked_in_a_notebook_with_what_it_remembers(name):
    with pytest.raises(ConfigError, match=f"{name} remembers steps before, and is of a loss alone"):
        build_config({"loss": {"terms": [name]}})
    made, numbers = tiebreak.objective(name), ([[-3.0]], [[-4.0]], [[-3.5]], [[-4.0]])
    assert made.remembering(1.0, 2.0)(*numbers).losses != made(*numbers).losses


# --------------------------------------------------------------------------------------------- which pairs are kept

MEMORY = Running(1.5, 6.0)


def _lucky(seed: int, num: int = 10):
    draw = random.Random(seed)
    return [pair | {"g": -math.log(-math.log(draw.random()))} for pair in drawn(seed, num)]


@pytest.mark.parametrize("share", [0.8, 0.5, 0.01, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_a_step_of_kept_pairs_is_the_loop_s_in_value_and_gradient(seed, share):
    pairs, asked = _lucky(seed), objective("beta_dpo", beta=0.3, kept_share=share).remembering(MEMORY)
    policy, reference, stated = as_tensors(pairs)
    found, losses = slopes(asked, policy, reference, torch.ones(10, dtype=torch.float64), stated)
    told = {**asked.settings, "before": MEMORY.mean, "spread": MEMORY.spread}
    assert losses.losses.mean().item() == pytest.approx(ORACLES["beta_dpo"](pairs, **told), rel=1e-12)
    assert (losses.losses != 0).sum() == max(1, int(10 * share))
    for place, (index, side) in enumerate((index, side) for index in range(10) for side in "wl"):

        def at(value, index=index, side=side):
            moved = [pair | {side: value} if number == index else pair for number, pair in enumerate(pairs)]
            return ORACLES["beta_dpo"](moved, **told, shift=pairs)

        here = pairs[index][side]
        slope = (at(here + 1e-5) - at(here - 1e-5)) / 2e-5 * 10
        assert found[place].item() == pytest.approx(slope, rel=1e-5, abs=1e-6)


def test_pairs_are_drawn_without_replacement_by_how_usual_their_gap_is():
    """Two of four: by weight first, then by weight among what is left; 4000 steps against the exact probabilities."""
    gaps = [1.5, 4.0, -6.0, 12.0]
    pairs = [
        {"w": one, "l": 0.0, "rw": 0.0, "rl": 0.0, "nw": 1, "nl": 1, "margin": 1, "soft": 1, "pw": 1, "pl": 0}
        for one in gaps
    ]
    weights = [math.exp(-0.5 * ((one - MEMORY.mean) / MEMORY.spread) ** 2) for one in gaps]
    wanted = dict.fromkeys(range(4), 0.0)
    for first, second in itertools.permutations(range(4), 2):
        chance = weights[first] / sum(weights) * weights[second] / (sum(weights) - weights[first])
        wanted[first] += chance
        wanted[second] += chance
    policy, reference, _ = as_tensors(pairs)
    asked, examples = objective("beta_dpo", kept_share=0.5).remembering(MEMORY), token_pairs(4)
    counts = torch.zeros(4)
    for step in range(4000):
        stated = Stated.of(examples, (), policy.sums, draws=step)
        counts += asked(policy, reference, stated).losses != 0
    assert (counts / 4000).tolist() == pytest.approx(list(wanted.values()), abs=0.03)


def test_what_is_drawn_hangs_on_the_step_and_the_pair_and_not_on_its_company():
    examples, like = token_pairs(6), torch.zeros(6)
    here = Stated.of(examples, (), like, draws=7).luck
    assert torch.equal(Stated.of(examples[::-1], (), like, draws=7).luck, here.flip(0))
    assert torch.equal(Stated.of(examples[2:4], (), like, draws=7).luck, here[2:4])
    assert not torch.equal(Stated.of(examples, (), like, draws=8).luck, here)
    assert Stated.of(examples, (), like).luck is None


def test_nothing_is_drawn_by_others_nor_where_no_step_is_taken():
    assert objective("dpo").drawing(3).draws is None
    assert objective("beta_dpo").draws is None
    assert objective("beta_dpo").drawing(3).draws == 3
    policy, reference, stated = as_tensors(drawn(4))
    every = objective("beta_dpo", kept_share=1.0)(policy, reference, stated).losses
    assert torch.equal(objective("beta_dpo")(policy, reference, stated).losses, every)


def test_where_no_spread_is_known_yet_the_nearest_pairs_are_kept():
    pairs = _lucky(3)
    policy, reference, stated = as_tensors(pairs)
    losses = objective("beta_dpo", kept_share=0.5)(policy, reference, stated).losses
    nearest = sorted(range(10), key=lambda at: abs(gap(pairs[at])))[:5]
    assert sorted(losses.nonzero().flatten().tolist()) == sorted(nearest)
