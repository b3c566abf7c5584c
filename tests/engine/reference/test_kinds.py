from __future__ import annotations

import copy
import gc
import weakref

import pytest
import torch

from tiebreak.engine.noise import evaluation_mode
from tiebreak.engine.reference.kinds import FrozenCopy
from tiebreak.progress import Silent
from tiebreak.training.order import steps
from tiny import load, said, same, scores, settings, step, token_pairs, weights

FORMS = {
    "adapter off": "adapter switched off",
    "other adapter": "adapter as it was at the start",
    "frozen copy": "frozen copy",
}


@pytest.fixture(params=FORMS)
def case(request, tiny_model, tiny_adapter):
    """A policy with each form of reference, and its configuration."""
    model = tiny_adapter if request.param == "other adapter" else tiny_model
    config = settings(model, "none" if request.param == "frozen copy" else "lora", adapter__dropout=0.0)
    loaded = load(config)
    assert loaded.reference.identity == f"{loaded.policy.source.identity}, {FORMS[request.param]}"
    with loaded.reference.model() as model:
        assert (model.network is loaded.policy.network) is (request.param != "frozen copy")
    return loaded, config


def _train(loaded, config, num=3):
    for _, one in zip(range(num), steps(token_pairs(15), config.training), strict=False):
        step(loaded, config, one.examples)


def _asked_afresh(reference, pairs):
    """What is said by the model itself, whatever is stored of it."""
    with reference.model() as model, torch.no_grad():
        return model.score(pairs).values


def test_a_reference_never_moves_while_the_policy_does(case):
    loaded, config = case
    pairs = token_pairs(7)
    before, afresh = said(loaded.reference, pairs), _asked_afresh(loaded.reference, pairs)
    started = scores(loaded.policy, pairs)
    _train(loaded, config)
    after = said(loaded.reference, pairs)
    moved = scores(loaded.policy, pairs)
    assert torch.equal(before.chosen, after.chosen)
    assert torch.equal(before.rejected, after.rejected)
    assert torch.equal(_asked_afresh(loaded.reference, pairs), afresh)
    assert (moved.gap - started.gap).abs().min() > 1e-3


def test_a_reference_is_the_policy_at_its_start(case):
    loaded, _ = case
    pairs = token_pairs(7)
    loaded.policy.network.eval()
    reference, ours = said(loaded.reference, pairs), scores(loaded.policy, pairs)
    assert reference.chosen.tolist() == pytest.approx(ours.chosen.tolist(), rel=1e-6)
    assert reference.rejected.tolist() == pytest.approx(ours.rejected.tolist(), rel=1e-6)


def test_asking_the_reference_leaves_the_policy_as_it_was(case):
    loaded, _ = case
    policy = loaded.policy
    policy.network.train()
    trainable, state = [name for name, _ in policy.trainable], weights(policy.network)
    scores(policy, token_pairs(2)).gap.sum().backward()
    gradients = {name: p.grad.clone() for name, p in policy.trainable}
    loaded.reference.logps(token_pairs(3))
    with loaded.reference.model() as model:
        assert not model.network.training
    assert [name for name, _ in policy.trainable] == trainable
    assert policy.network.training
    assert same(weights(policy.network), state)
    assert all(torch.equal(p.grad, gradients[name]) for name, p in policy.trainable)


def test_an_error_inside_the_reference_leaves_the_policy_as_it_was(case):
    loaded, config = case
    _train(loaded, config, num=1)
    trainable = [name for name, _ in loaded.policy.trainable]
    before = scores(loaded.policy, token_pairs(2))
    with pytest.raises(KeyboardInterrupt), loaded.reference.model():
        raise KeyboardInterrupt
    assert [name for name, _ in loaded.policy.trainable] == trainable
    assert torch.equal(scores(loaded.policy, token_pairs(2)).chosen, before.chosen)


def test_reference_logps_carry_no_gradient(case):
    loaded, _ = case
    assert not loaded.reference.logps(token_pairs(2)).values.requires_grad
    assert not said(loaded.reference, token_pairs(2)).gap.requires_grad


def test_the_optimizer_never_sees_a_reference_weight(case):
    loaded, config = case
    network = loaded.policy.network
    frozen = weights(network)
    _train(loaded, config)
    moved = {name for name, tensor in weights(network).items() if not torch.equal(tensor, frozen[name])}
    assert moved
    assert moved <= {name for name, _ in loaded.policy.trainable}
    assert not any(".reference." in name for name in moved)


def test_dropout_moves_the_policy_and_never_the_reference(tiny_model):
    config = settings(tiny_model, adapter__dropout=0.5)
    loaded = load(config)
    _train(loaded, config)
    pairs = token_pairs(4)
    references = [said(loaded.reference, pairs) for _ in range(2)]
    ours = [scores(loaded.policy, pairs) for _ in range(2)]
    assert torch.equal(references[0].chosen, references[1].chosen)
    assert torch.equal(*(_asked_afresh(loaded.reference, pairs) for _ in range(2)))
    assert not torch.equal(ours[0].chosen, ours[1].chosen)


def test_a_frozen_copy_is_let_go_when_a_run_begins_and_comes_back_when_it_is_asked(tiny_model):
    loaded, pairs = load(settings(tiny_model, "none")), token_pairs(3)
    start, made = copy.deepcopy(loaded.policy.network), []

    def again():
        network = copy.deepcopy(start)
        made.append(weakref.ref(network))
        return loaded.policy.with_network(network)

    reference = FrozenCopy(loaded.policy.source, again, lambda: 0)
    assert reference.dear
    before = reference.logps(pairs)
    assert torch.equal(reference.logps(pairs).values, before.values)
    assert len(made) == 1
    reference.begin(pairs, loaded.budget.cut, Silent())
    gc.collect()
    assert made[0]() is None
    assert torch.equal(reference.logps(pairs).values, before.values)
    assert len(made) == 2


@pytest.mark.parametrize("training", [True, False])
def test_evaluation_mode_gives_back_the_mode_it_found(training):
    model = torch.nn.Sequential(torch.nn.Dropout(0.5)).train(training)
    with evaluation_mode(model):
        assert not model.training
        assert not model[0].training
    assert model.training is training
    assert model[0].training is training
