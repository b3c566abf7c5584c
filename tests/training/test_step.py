"""A step whose examples depend on each other is as exact as any: whatever the cut, the gradient of the whole."""

from __future__ import annotations

import pytest
import torch

from tiny import disturb, load, settings, step, token_pairs
from toys import CENTRED

PAIRS = token_pairs(10, num_prompts=6, seed=5)


def _undivided(loaded):
    """The plain thing: one graph of all examples, one backward pass."""
    policy, reference = loaded.policy.score(PAIRS).summed(), loaded.reference.logps(PAIRS).summed()
    loaded.policy.network.zero_grad()
    (CENTRED(policy, reference).losses.sum() / len(PAIRS)).backward()
    return torch.cat([p.grad.flatten() for _, p in loaded.policy.trainable])


@pytest.mark.parametrize("kind", ["lora", "none"])
@pytest.mark.parametrize(("budget", "groups"), [(8, "one each"), (50, "several"), (100_000, "all at once")])
def test_a_coupled_step_equals_the_undivided_one(kind, budget, groups, tiny_model):
    config = settings(tiny_model, kind, training__token_budget=budget, training__max_grad_norm=1e9)
    loaded = disturb(load(config))
    num = len(loaded.budget.cut(PAIRS))
    assert {"one each": num == len(PAIRS), "several": 1 < num < len(PAIRS), "all at once": num == 1}[groups]
    wanted = _undivided(loaded)
    metrics, norm = step(loaded, config, PAIRS, CENTRED)
    found = torch.cat([p.grad.flatten() for _, p in loaded.policy.trainable])
    assert (found - wanted).norm() <= 2e-6 * wanted.norm()
    assert norm == pytest.approx(wanted.norm().item(), rel=1e-5)
    assert metrics.values.shape == (10, 7)


def test_per_micro_batch_it_would_be_another_gradient(tiny_model):
    config = settings(tiny_model, training__token_budget=50, training__max_grad_norm=1e9)
    loaded = disturb(load(config))
    wanted = _undivided(loaded)
    loaded.policy.network.zero_grad()
    for group in loaded.budget.cut(PAIRS):
        losses = CENTRED(loaded.policy.score(group).summed(), loaded.reference.logps(group).summed()).losses
        (losses.sum() / len(PAIRS)).backward()
    naive = torch.cat([p.grad.flatten() for _, p in loaded.policy.trainable])
    assert (naive - wanted).norm() > 1e-2 * wanted.norm()
