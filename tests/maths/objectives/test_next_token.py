"""Objectives of whole next-token distributions: which divergence pulls, and which only stands in the margin."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

import tiebreak
from drawn import as_tensors, drawn, objective
from preferences import gap, sigmoid
from tiebreak.config import build_config
from tiebreak.errors import ConfigError

ASKED = {"tdpo1": 1.0, "tdpo2": 0.5}


@pytest.mark.parametrize("name", ASKED)
def test_rejected_is_held_back_and_chosen_is_pushed_by_tdpo1_alone(name):
    pairs, beta, alpha = drawn(5), 0.3, ASKED[name]
    policy, reference, stated = as_tensors(pairs)
    policy = replace(policy, divergence=policy.divergence.requires_grad_())
    objective(name, beta=beta)(policy, reference, stated).losses.sum().backward()
    for pair, chosen, rejected in zip(
        pairs, policy.divergence.grad[0::2].tolist(), policy.divergence.grad[1::2].tolist(), strict=True
    ):
        weight = sigmoid(-(beta * gap(pair) - alpha * beta * (pair["kl"] - pair["kw"])))
        assert rejected == pytest.approx(weight * alpha * beta, rel=1e-9)
        assert chosen == pytest.approx(-weight * beta if name == "tdpo1" else 0.0, rel=1e-9)


@pytest.mark.parametrize("name", ASKED)
def test_a_step_tells_how_far_both_sides_are_from_the_reference(name):
    policy, reference, stated = as_tensors(drawn(6))
    asked = objective(name)
    found = asked.formula.metrics(asked(policy, reference, stated), policy, stated)
    assert torch.equal(found["kl/chosen"], policy.divergence[0::2].float())
    assert torch.equal(found["kl/rejected"], policy.divergence[1::2].float())


@pytest.mark.parametrize("name", ASKED)
def test_what_compares_distributions_is_no_term_of_a_sum(name):
    with pytest.raises(ConfigError, match=f"{name} compares whole distributions, and is of a loss alone"):
        build_config({"loss": {"terms": [name]}})


def test_a_reference_that_knows_what_to_say_has_a_larger_beta():
    pair = drawn(3, num=1)[0] | {"w": -5.0, "l": -9.0, "rw": -6.0, "rl": -8.0, "nw": 1, "nl": 1}
    loss = lambda h: objective("mallows", phi=0.5)(*as_tensors([pair | {"hw": h, "hl": h}])).losses.item()  # noqa: E731
    for h, factor in ((math.exp(-2), 1.0), (math.exp(-6), 3.0), (1.0, 0.0)):
        assert loss(h) == pytest.approx(math.log1p(math.exp(-0.1 * factor * 2)))


def test_it_is_no_term_of_a_sum_either():
    with pytest.raises(ConfigError, match="mallows reads the reference's entropy, and is of a loss alone"):
        build_config({"loss": {"terms": ["mallows"]}})


def test_in_a_notebook_divergences_are_given_beside_log_probabilities():
    numbers = ([[-3.0]], [[-4.0]], [[-3.5]], [[-4.0]])
    found = tiebreak.objective("tdpo2", alpha=1.0)(*numbers, chosen_divergences=[0.2], rejected_divergences=[0.7])
    moved = tiebreak.objective("dpo")([-3.5], [-4.0], [-3.5], [-4.0]).losses
    assert found.losses.tolist() == pytest.approx(moved.tolist())  # 0.5 nats ahead, of which 0.5 are distance
