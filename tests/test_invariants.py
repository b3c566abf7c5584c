"""What must hold whatever the numbers are."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tiebreak.maths.metrics import LOSS, pair_metrics
from tiebreak.maths.objectives import Objective
from tiny import disturb, dpo, load, logps, said, scores, settings, step, token_pairs

PAIRS = token_pairs(7)
SHARING = token_pairs(7, seed=3, num_prompts=3)
LAYOUTS = {"packed": "auto", "plain": "plain"}
MARGIN, ACCURACY = "rewards/margins", "rewards/accuracies"
sides = st.lists(st.floats(-200, 0), min_size=4, max_size=4)


@pytest.fixture(params=["lora", "none"])
def kind(request):
    return request.param


@pytest.fixture(params=["packed", "plain"])
def loaded(request, kind, tiny_model):
    """A policy that has moved away from its reference."""
    return disturb(load(settings(tiny_model, kind, model__layout=LAYOUTS[request.param])), 0.05)


def _gradient(policy):
    return torch.cat([p.grad.flatten() for _, p in policy.trainable])


def _metrics(loaded, pairs, beta=0.3):
    policy, ours = loaded.policy, loaded.policy.score(pairs).summed()
    losses = dpo(ours.paired(), said(loaded.reference, pairs), beta=beta, label_smoothing=0.0)
    policy.network.zero_grad()
    losses.losses.mean().backward()
    return pair_metrics(losses, ours), _gradient(policy)


def _close(one, two, share=1e-5):
    return (one - two).abs().max().item() <= share * two.abs().max().item()


def _swapped(pair):
    return replace(pair, chosen_ids=pair.rejected_ids, rejected_ids=pair.chosen_ids)


def test_swapping_chosen_and_rejected_mirrors_every_margin(loaded):
    straight, _ = _metrics(loaded, PAIRS)
    mirrored, _ = _metrics(loaded, [_swapped(pair) for pair in PAIRS])
    assert _close(mirrored[MARGIN], -straight[MARGIN])
    assert torch.equal(mirrored[ACCURACY], 1 - straight[ACCURACY])


def test_at_the_start_a_swap_turns_the_gradient_around(tiny_model):
    loaded = load(settings(tiny_model, "none"))
    _, straight = _metrics(loaded, PAIRS)
    _, mirrored = _metrics(loaded, [_swapped(pair) for pair in PAIRS])
    assert straight.abs().max() > 0.01
    assert _close(mirrored, -straight)


@given(sides, sides, sides, sides, st.floats(0.01, 2))
def test_a_swap_negates_the_logit_for_any_numbers(chosen, rejected, ref_chosen, ref_rejected, beta):
    straight = dpo(logps(chosen, rejected), logps(ref_chosen, ref_rejected), beta=beta, label_smoothing=0.0)
    mirrored = dpo(logps(rejected, chosen), logps(ref_rejected, ref_chosen), beta=beta, label_smoothing=0.0)
    logits = [
        beta * ((c - r) - (rc - rr)) for c, r, rc, rr in zip(chosen, rejected, ref_chosen, ref_rejected, strict=True)
    ]
    assert (mirrored.losses - straight.losses).tolist() == pytest.approx(logits, abs=1e-9)


@given(sides, sides, sides, sides, st.floats(-500, 500))
def test_a_constant_added_to_policy_and_reference_alike_changes_nothing(
    chosen, rejected, ref_chosen, ref_rejected, shift
):
    found = []
    for by in (0.0, shift):
        policy = logps([x + by for x in chosen], rejected)
        reference = logps([x + by for x in ref_chosen], ref_rejected)
        policy.chosen.requires_grad_()
        losses = dpo(policy, reference, beta=0.2, label_smoothing=0.1).losses
        losses.sum().backward()
        found.append(losses.tolist() + policy.chosen.grad.tolist())
    assert found[0] == pytest.approx(found[1], abs=1e-10)


def test_a_much_longer_pair_beside_them_changes_neither_losses_nor_gradients(loaded):
    long = token_pairs(1, seed=9)[0]
    long = replace(long, chosen_ids=long.chosen_ids * 6)
    metrics, gradient = _metrics(loaded, PAIRS)
    padded, reference = scores(loaded.policy, [*PAIRS, long]), said(loaded.reference, [*PAIRS, long])
    again = dpo(padded, reference, beta=0.3, label_smoothing=0.0).losses[:-1]
    loaded.policy.network.zero_grad()
    again.mean().backward()
    assert _close(again.detach(), metrics[LOSS])
    assert _close(_gradient(loaded.policy), gradient)


def test_splitting_a_batch_changes_neither_losses_nor_gradients(loaded):
    whole, gradient = _metrics(loaded, PAIRS)
    parts = [_metrics(loaded, part) for part in (PAIRS[:1], PAIRS[1:5], PAIRS[5:])]
    sizes = (1, 4, 2)
    assert _close(torch.cat([metrics.values for metrics, _ in parts]), whole.values)
    together = sum(size * part for size, (_, part) in zip(sizes, parts, strict=True)) / len(PAIRS)
    assert _close(together, gradient)


@pytest.mark.parametrize("layout", ["packed", "plain"])
@pytest.mark.parametrize("case", ["lora", "adapter", "none"])
@pytest.mark.parametrize("epsilon", [0.0, 0.2])
def test_the_loss_at_the_start_is_ln_2_for_every_pair(case, epsilon, layout, tiny_model, tiny_adapter):
    config = settings(
        tiny_adapter if case == "adapter" else tiny_model,
        "none" if case == "none" else "lora",
        loss__label_smoothing=epsilon,
        model__layout=LAYOUTS[layout],
    )
    loaded = load(config)
    assert loaded.policy.scorer.layout == layout
    ours, reference = loaded.policy.score(SHARING).summed(), loaded.reference.logps(SHARING).summed()
    losses = Objective.of(config.loss)(ours, reference).losses
    assert losses.tolist() == pytest.approx([math.log(2)] * len(SHARING), abs=1e-6)


def _one_step(model, kind, layout, pairs, budget):
    """Loss, gradient norm and gradient of one step, before the optimizer moves anything else."""
    changes = {"model.layout": LAYOUTS[layout], "training.token_budget": budget, "training.max_grad_norm": 1e9}
    config = settings(model, kind, **changes)
    loaded = disturb(load(config))
    assert loaded.policy.scorer.layout == layout
    metrics, norm = step(loaded, config, pairs)
    return metrics.means()[LOSS], norm, _gradient(loaded.policy)


def _assert_same_step(found, wanted):
    assert found[0] == pytest.approx(wanted[0], rel=1e-6)
    assert found[1] == pytest.approx(wanted[1], rel=1e-5)
    assert _close(found[2], wanted[2])


@pytest.mark.parametrize("layout", ["packed", "plain"])
def test_the_order_of_pairs_within_a_step_does_not_change_its_gradient(kind, layout, tiny_model):
    orders = (SHARING, SHARING[::-1], SHARING[3:] + SHARING[:3])
    wanted, *found = (_one_step(tiny_model, kind, layout, order, 70) for order in orders)
    for one in found:
        _assert_same_step(one, wanted)


@pytest.mark.parametrize("layout", ["packed", "plain"])
def test_the_token_budget_does_not_change_a_step_s_gradient(kind, layout, tiny_model):
    wanted, *found = (_one_step(tiny_model, kind, layout, SHARING, budget) for budget in (100_000, 64, 41, 16))
    for one in found:
        _assert_same_step(one, wanted)


def test_packed_and_plain_steps_have_the_same_loss_and_gradient(kind, tiny_model):
    _assert_same_step(*(_one_step(tiny_model, kind, layout, SHARING, 60) for layout in LAYOUTS))


def test_a_pair_that_stands_twice_in_a_step_counts_twice(kind, tiny_model):
    twice = [*SHARING, SHARING[0]]
    _assert_same_step(*(_one_step(tiny_model, kind, layout, twice, 1000) for layout in LAYOUTS))
