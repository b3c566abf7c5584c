"""A digest of weights stands for every number that a model computes with, and for no name that it goes by."""

from __future__ import annotations

import copy

import peft
import pytest
import torch
from torch import nn

from families import DECODER, PACKABLE, build
from tiebreak.engine.loading import quietly
from tiebreak.engine.weights import weights_digest
from tiny import load, settings, token_pairs

PAIRS = token_pairs(3)


def _digest(network, adapter=None):
    config = network.get_base_model().config if isinstance(network, peft.PeftModel) else network.config
    return weights_digest(network, config, adapter)


def _adapted(network, adapter="default", **changes):
    kind = peft.LoraConfig(**{"r": 2, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"} | changes)
    with torch.random.fork_rng(devices=[]), quietly():
        torch.manual_seed(0)
        return peft.get_peft_model(copy.deepcopy(network), kind, adapter_name=adapter)


@pytest.fixture
def base():
    return build("llama", **DECODER)


def test_a_buffer_that_files_keep_is_part_of_a_model():
    network = build("deepseek_v3", **PACKABLE["deepseek_v3"])
    before = _digest(network)
    router = network.model.layers[1].mlp.gate
    assert "e_score_correction_bias" in dict(router.named_buffers())
    router.e_score_correction_bias[0] += 1.0
    assert _digest(network) != before


def test_what_a_forward_pass_leaves_behind_is_no_part_of_a_model(base):
    before = _digest(base)
    base.model.rotary_emb.inv_freq.mul_(2)  # a stretched RoPE computes it anew for each batch, and no file keeps it
    assert _digest(base) == before


def test_values_of_a_model_with_another_buffer_are_not_served(tmp_path, tokenizer):
    folder, store = tmp_path / "model", tmp_path / "store"
    network = build("deepseek_v3", **PACKABLE["deepseek_v3"] | {"vocab_size": len(tokenizer)})
    tokenizer.save_pretrained(folder)
    config = settings(folder, reference__store=str(store), adapter__target_modules=["o_proj"])
    found = []
    for shift in (0.0, 5.0):
        network.model.layers[1].mlp.gate.e_score_correction_bias[0] += shift
        network.save_pretrained(folder)
        reference = load(config).reference
        found.append(reference.logps(PAIRS).values)
        reference.flush()
        assert reference.num_asked == len(PAIRS)
    assert not torch.allclose(*found)
    assert load(config).reference.missing(PAIRS) == []


ADAPTERS = {
    "plain": {},
    "whole modules": {"modules_to_save": ["lm_head"]},
    "some tokens": {"trainable_token_indices": [5, 6]},
    "a layer of embeddings": {"target_modules": ["embed_tokens", "q_proj"]},
    "magnitudes": {"use_dora": True},
    "biases of its own": {"lora_bias": True},
}


@pytest.mark.filterwarnings("ignore:`lora_bias=True` was passed")
@pytest.mark.parametrize("case", ADAPTERS)
def test_a_base_has_one_digest_under_any_adapter_and_an_adapter_one_under_any_name(case, base):
    bare, one = _digest(base), _adapted(base, **ADAPTERS[case])
    two = _adapted(base, "other", **ADAPTERS[case])
    assert _digest(one) == _digest(two) == bare
    assert _digest(one, "default") == _digest(two, "other") != bare


@pytest.mark.filterwarnings("ignore:`lora_bias=True` was passed")
@pytest.mark.parametrize("case", ADAPTERS)
def test_whatever_an_adapter_holds_is_part_of_it_and_not_of_its_base(case, base):
    model = _adapted(base, **ADAPTERS[case])
    before, bare = _digest(model, "default"), _digest(model)
    for name, parameter in [(name, p) for name, p in model.named_parameters() if p.requires_grad]:
        kept = parameter.detach().clone()
        nn.init.normal_(parameter)
        assert _digest(model, "default") != before, name
        assert _digest(model) == bare, name
        with torch.no_grad():
            parameter.copy_(kept)
    assert _digest(model, "default") == before


@pytest.mark.parametrize(
    "change",
    [{"lora_alpha": 3}, {"use_rslora": True}, {"use_dora": True}, {"alpha_pattern": {"q_proj": 3}}],
    ids=str,
)
def test_how_an_adapter_is_used_is_part_of_it(change, base):
    assert _digest(_adapted(base, **change), "default") != _digest(_adapted(base), "default")


def test_where_an_adapter_came_from_is_no_part_of_it(base):
    one, two = _adapted(base), _adapted(base)
    two.peft_config["default"].base_model_name_or_path = "elsewhere"
    two.peft_config["default"].lora_dropout = 0.5
    assert _digest(one, "default") == _digest(two, "default")
