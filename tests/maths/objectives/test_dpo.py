from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

import oracles
from tiebreak.maths.logps import Logps, PairLogps
from tiny import dpo, logps

POLICY = [(-12.5, -3.25), (-700.0, -2.0), (-1.0, -900.0), (-5.0, -5.0), (-0.125, -0.5), (-44.0, -40.0), (-8.0, -8.5)]
REFERENCE = [(-11.0, -4.0), (-3.0, -500.0), (-800.0, -2.0), (-5.0, -5.0), (-0.25, -0.25), (-40.0, -44.0), (-9.0, -8.0)]
numbers = st.floats(-300, 0)


def _sides(rows):
    return logps([row[0] for row in rows], [row[1] for row in rows])


@pytest.mark.parametrize("epsilon", [0.0, 0.1, 0.49])
@pytest.mark.parametrize("beta", [0.05, 0.1, 1.0])
def test_losses_and_gradients_equal_the_papers_on_seven_pairs(beta, epsilon):
    policy, reference = _sides(POLICY), _sides(REFERENCE)
    policy.chosen.requires_grad_(), policy.rejected.requires_grad_()
    losses = dpo(policy, reference, beta=beta, label_smoothing=epsilon).losses
    losses.sum().backward()
    for i, (ours, theirs) in enumerate(zip(POLICY, REFERENCE, strict=True)):
        expected = oracles.conservative_dpo_loss(*ours, *theirs, beta, epsilon)
        gradient = oracles.conservative_dpo_gradient(*ours, *theirs, beta, epsilon)
        assert losses[i].item() == pytest.approx(expected, rel=1e-12, abs=1e-15)
        assert policy.chosen.grad[i].item() == pytest.approx(gradient[0], rel=1e-12, abs=1e-15)
        assert policy.rejected.grad[i].item() == pytest.approx(gradient[1], rel=1e-12, abs=1e-15)


@given(numbers, numbers, numbers, numbers, st.floats(0.01, 1.0))
def test_the_oracle_s_gradient_is_the_slope_of_the_oracle_s_loss(chosen, rejected, ref_chosen, ref_rejected, beta):
    gradient = oracles.dpo_gradient(chosen, rejected, ref_chosen, ref_rejected, beta)
    slopes = (
        oracles.slope(lambda x: oracles.dpo_loss(x, rejected, ref_chosen, ref_rejected, beta), chosen),
        oracles.slope(lambda x: oracles.dpo_loss(chosen, x, ref_chosen, ref_rejected, beta), rejected),
    )
    assert gradient == pytest.approx(slopes, abs=1e-5)


def test_a_pair_without_evidence_costs_ln_2():
    even = logps([-3.0, -100.0, 0.0], [-4.0, -100.0, -2.5])
    for epsilon in (0.0, 0.25):
        losses = dpo(even, even, beta=0.7, label_smoothing=epsilon).losses
        assert losses.tolist() == pytest.approx([math.log(2)] * 3, abs=1e-15)


def test_extreme_margins_stay_finite_in_fp32_with_useful_gradients():
    policy = logps([-1e4, 0.0], [0.0, -1e4], torch.float32)
    policy.chosen.requires_grad_()
    losses = dpo(policy, logps([0, 0], [0, 0], torch.float32), beta=1.0, label_smoothing=0.0).losses
    losses.sum().backward()
    assert losses.tolist() == [1e4, 0.0]
    assert policy.chosen.grad.tolist() == [-1.0, 0.0]


def test_conservative_dpo_is_least_where_the_margin_says_what_the_labels_deserve():
    # Mitchell 2023: the minimum is at sigmoid(margin) = 1 − ε, so confidence stays bounded.
    best = math.log(0.9 / 0.1)
    at = lambda margin: dpo(  # noqa: E731
        logps([margin], [0.0]), logps([0.0], [0.0]), beta=1.0, label_smoothing=0.1
    ).losses.item()
    assert at(best) < at(best - 0.01)
    assert at(best) < at(best + 0.01)


def test_the_reward_of_a_completion_is_beta_times_its_logratio():
    found = dpo(_sides(POLICY), _sides(REFERENCE), beta=0.3, label_smoothing=0.2).rewards
    sides = [both for pair in zip(POLICY, REFERENCE, strict=True) for both in zip(*pair, strict=True)]
    rewards = [oracles.implicit_reward(*both, 0.3) for both in sides]
    assert found.tolist() == pytest.approx(rewards, rel=1e-12)


def test_the_gap_is_chosen_minus_rejected_and_detaching_keeps_numbers_only():
    sums = torch.tensor([number for pair in POLICY for number in pair], requires_grad=True)
    policy = Logps(sums, torch.ones(2 * len(POLICY), dtype=torch.long))
    loose = policy.detach().paired()
    assert policy.paired().gap.tolist() == [chosen - rejected for chosen, rejected in torch.tensor(POLICY).tolist()]
    assert not loose.gap.requires_grad
    assert torch.equal(loose.chosen, policy.paired().chosen)


def test_sides_of_unequal_length_are_refused():
    one, two, count = torch.zeros(3), torch.zeros(4), torch.ones(3, dtype=torch.long)
    with pytest.raises(TypeCheckError):
        PairLogps(one, two, count, count)
    with pytest.raises(TypeCheckError):
        PairLogps(one, one, one, count)
