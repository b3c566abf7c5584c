from __future__ import annotations

import copy

import pytest
import torch
from peft.tuners.lora.layer import Linear

from tiebreak.engine.fused_lora import FusedLora, fuse, unfuse
from tiny import disturb, load, scores, settings, token_pairs

PAIRS = token_pairs(4)


@pytest.fixture
def policy(tiny_model):
    return disturb(load(settings(tiny_model))).policy


def _fused(model):
    return [layer for layer in model.modules() if type(layer) is Linear and layer.lora_variant]


def _values_and_gradients(policy):
    policy.network.train().zero_grad()
    gap = scores(policy, PAIRS).gap
    gap.sum().backward()
    return gap.detach(), {name: p.grad.clone() for name, p in policy.trainable}


def test_values_and_gradients_are_peft_s_own(policy):
    assert _fused(policy.network)
    gap, gradients = _values_and_gradients(policy)
    unfuse(policy.network)
    assert not _fused(policy.network)
    expected, wanted = _values_and_gradients(policy)
    assert torch.allclose(gap, expected, rtol=1e-6)
    for name, gradient in gradients.items():
        assert (gradient - wanted[name]).abs().max() <= 1e-5 * wanted[name].abs().max(), name


def test_layers_with_dropout_and_other_variants_stay_as_they_are(tiny_model):
    policy = load(settings(tiny_model, adapter__dropout=0.1)).policy
    assert not _fused(policy.network)


def test_fusing_twice_is_fusing_once(policy):
    fuse(policy.network)
    assert all(isinstance(v, FusedLora) for layer in _fused(policy.network) for v in layer.lora_variant.values())


def test_a_fused_layer_merges_after_it_was_unfused(policy):
    policy.network.eval()
    expected = scores(policy, PAIRS)
    merged = copy.deepcopy(policy.network)
    unfuse(merged)
    found = scores(policy.with_network(merged.merge_and_unload()), PAIRS)
    assert torch.allclose(found.chosen, expected.chosen, rtol=1e-5)


def test_an_input_in_another_precision_takes_peft_s_form(policy):
    layer = _fused(policy.network)[0]
    x = torch.randn(1, 3, layer.in_features)
    with torch.autocast("cpu", torch.bfloat16):
        narrow = layer(x)
    assert torch.allclose(narrow.float(), layer(x), rtol=0.05, atol=0.05)


def test_a_second_adapter_at_work_keeps_its_gradients(policy):
    first = next(iter(policy.network.peft_config))
    policy.network.add_adapter("second", policy.network.peft_config[first])
    fuse(policy.network)
    policy.network.base_model.set_adapter([first, "second"])
    for name, parameter in policy.network.named_parameters():
        parameter.requires_grad_("lora_" in name)
        if "lora_B.second" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    trained = [(name, p) for name, p in policy.network.named_parameters() if p.requires_grad]
    found = []
    for change in (lambda _: None, unfuse):
        change(policy.network)
        policy.network.train().zero_grad()
        scores(policy, PAIRS).gap.sum().backward()
        found.append({name: p.grad.clone() for name, p in trained})
    assert any("second" in name for name in found[0])
    for name, gradient in found[0].items():
        assert (gradient - found[1][name]).abs().max() <= 1e-5 * found[1][name].abs().max(), name


def test_a_base_that_is_trained_as_well_keeps_its_gradient(policy):
    layer = _fused(policy.network)[0]
    layer.base_layer.weight.requires_grad_(True)
    x = torch.randn(1, 5, layer.in_features)
    found = []
    for change in (lambda _: None, unfuse):
        change(policy.network)
        layer.zero_grad()
        layer(x).square().sum().backward()
        found.append(layer.base_layer.weight.grad.clone())
    assert torch.allclose(*found, rtol=1e-5, atol=1e-6)
