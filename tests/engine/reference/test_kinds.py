from __future__ import annotations

import pytest
import torch

from tiebreak.engine.models import load_policy
from tiebreak.engine.reference.kinds import AdapterOff, FrozenCopy, OtherAdapter, evaluation_mode
from tiebreak.maths.losses import objective
from tiebreak.training.optimizer import build_optimizer
from tiebreak.training.order import steps
from tiebreak.training.step import learn
from tiny import same, settings, token_pairs, weights

FORMS = {"adapter off": AdapterOff, "other adapter": OtherAdapter, "frozen copy": FrozenCopy}


@pytest.fixture(params=FORMS)
def case(request, tiny_model, tiny_adapter):
    """A policy with each form of reference, and its configuration."""
    model = tiny_adapter if request.param == "other adapter" else tiny_model
    config = settings(model, "none" if request.param == "frozen copy" else "lora", adapter__dropout=0.0)
    policy = load_policy(config)
    assert type(policy.reference.live) is FORMS[request.param]
    return policy, config


def _train(policy, config, num=3):
    optimizer = build_optimizer([p for _, p in policy.trainable], config)
    policy.model.train()
    for _, step in zip(range(num), steps(token_pairs(15), config.training), strict=False):
        learn(policy, step, objective(config.loss), optimizer, config)


def test_a_reference_never_moves_while_the_policy_does(case):
    policy, config = case
    pairs = token_pairs(7)
    before = policy.reference.logps(pairs)
    started = policy.scorer(policy.model, pairs).detach()
    _train(policy, config)
    after = policy.reference.logps(pairs)
    moved = policy.scorer(policy.model, pairs).detach()
    assert torch.equal(before.chosen, after.chosen)
    assert torch.equal(before.rejected, after.rejected)
    assert (moved.gap - started.gap).abs().min() > 1e-3


def test_a_reference_is_the_policy_at_its_start(case):
    policy, _ = case
    pairs = token_pairs(7)
    reference, ours = policy.reference.logps(pairs), policy.scorer(policy.model.eval(), pairs)
    assert reference.chosen.tolist() == pytest.approx(ours.chosen.tolist(), rel=1e-6)
    assert reference.rejected.tolist() == pytest.approx(ours.rejected.tolist(), rel=1e-6)


def test_asking_the_reference_leaves_the_policy_as_it_was(case):
    policy, _ = case
    policy.model.train()
    trainable, state = [name for name, _ in policy.trainable], weights(policy.model)
    policy.scorer(policy.model, token_pairs(2)).gap.sum().backward()
    gradients = {name: p.grad.clone() for name, p in policy.trainable}
    policy.reference.logps(token_pairs(3))
    with policy.reference.model() as model:
        assert not model.training
    assert [name for name, _ in policy.trainable] == trainable
    assert policy.model.training
    assert same(weights(policy.model), state)
    assert all(torch.equal(p.grad, gradients[name]) for name, p in policy.trainable)


def test_an_error_inside_the_reference_leaves_the_policy_as_it_was(case):
    policy, config = case
    _train(policy, config, num=1)
    trainable = [name for name, _ in policy.trainable]
    before = policy.scorer(policy.model, token_pairs(2)).detach()
    with pytest.raises(KeyboardInterrupt), policy.reference.model():
        raise KeyboardInterrupt
    assert [name for name, _ in policy.trainable] == trainable
    assert torch.equal(policy.scorer(policy.model, token_pairs(2)).chosen, before.chosen)


def test_reference_logps_carry_no_gradient(case):
    policy, _ = case
    assert not policy.reference.logps(token_pairs(2)).gap.requires_grad


def test_the_optimizer_never_sees_a_reference_weight(case):
    policy, config = case
    frozen = weights(policy.model)
    _train(policy, config)
    moved = {name for name, tensor in weights(policy.model).items() if not torch.equal(tensor, frozen[name])}
    assert moved
    assert moved <= {name for name, _ in policy.trainable}
    assert not any(".reference." in name for name in moved)


def test_dropout_moves_the_policy_and_never_the_reference(tiny_model):
    config = settings(tiny_model, adapter__dropout=0.5)
    policy = load_policy(config)
    _train(policy, config)
    pairs = token_pairs(4)
    references = [policy.reference.logps(pairs) for _ in range(2)]
    ours = [policy.scorer(policy.model, pairs).detach() for _ in range(2)]
    assert torch.equal(references[0].chosen, references[1].chosen)
    assert not torch.equal(ours[0].chosen, ours[1].chosen)


@pytest.mark.parametrize("training", [True, False])
def test_evaluation_mode_gives_back_the_mode_it_found(training):
    model = torch.nn.Sequential(torch.nn.Dropout(0.5)).train(training)
    with evaluation_mode(model):
        assert not model.training
        assert not model[0].training
    assert model.training is training
    assert model[0].training is training
