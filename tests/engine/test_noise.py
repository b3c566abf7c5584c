"""What a base model brings of noise is off; what it computes in evaluation mode is untouched, to the bit."""

from __future__ import annotations

import copy

import pytest
import torch

from families import DECODER, EXPERTS, GPT, PACKABLE, SMALL, chosen_scorer, plain, raw
from tiebreak.engine.noise import without_noise
from tiny import token_pairs

PAIRS = token_pairs(4)
ROUTER = {"num_local_experts": 4, "router_jitter_noise": 0.3, "input_jitter_noise": 0.2}
BYTE_LEVEL = DECODER | {
    "num_hidden_layers": 1, "num_key_value_heads": 4, "head_dim": 8, "vocab_size": 260, "dropout": 0.3,
    "hidden_size_global": 32, "cross_attn_k": 1,
}  # fmt: skip
BYTES = SMALL | {f"{part}_config": BYTE_LEVEL for part in ("encoder", "decoder", "global", "patcher")} | {
    "vocab_size": 260, "patch_in_forward": False, "patching_mode": "space", "cross_attn_k": 1,
    "encoder_hash_byte_group_vocab": 50, "encoder_hash_byte_group_size": [2, 3],
    "encoder_hash_byte_group_nb_functions": 1,
}  # fmt: skip
NOISY = {
    "numbers of dropout": ("opt", PACKABLE["opt"] | {"dropout": 0.3, "attention_dropout": 0.2}),
    "modules of dropout": ("gpt2", GPT | {"resid_pdrop": 0.5, "embd_pdrop": 0.5, "attn_pdrop": 0.5}),
    "dropout that layers read from the configuration": (
        "falcon",
        DECODER | {"parallel_attn": False, "hidden_dropout": 0.3, "attention_dropout": 0.2},
    ),
    "attention that reads it there": ("persimmon", DECODER | {"attention_dropout": 0.3, "hidden_dropout": 0.2}),
    "whole models within one that read it there": ("blt", BYTES),
    "attention": ("llama", DECODER | {"attention_dropout": 0.4}),
    "router": ("mixtral", DECODER | EXPERTS | {"router_jitter_noise": 0.3}),
    "router that reads it as a threshold": ("phimoe", DECODER | ROUTER),
}
MODELS = NOISY | {kind: (kind, settings) for kind, settings in PACKABLE.items()}


def _scored(network):
    with torch.no_grad():
        return plain(network).tokens(PAIRS).values


@pytest.mark.parametrize("case", MODELS)
def test_in_evaluation_mode_a_model_is_the_published_one_to_the_bit(case):
    kind, settings = MODELS[case]
    network = raw(kind, **settings).eval()
    published = _scored(copy.deepcopy(network))
    assert torch.equal(_scored(without_noise(network)), published)
    assert not network.training


@pytest.mark.parametrize("case", NOISY)
def test_training_computes_what_evaluation_computes(case):
    kind, settings = NOISY[case]
    network = raw(kind, **settings)
    published = _scored(copy.deepcopy(network).eval())
    without_noise(network).train()
    assert all(torch.equal(_scored(network), published) for _ in range(3))
    assert network.training
    of_noise = ("dropout", "random in training")
    assert not any(word in str(chosen_scorer(network).refusal) for word in of_noise)


def test_a_number_that_shapes_what_a_model_computes_stays_and_is_told():
    said = []
    network = without_noise(raw("phimoe", **DECODER | ROUTER), said.append)
    router = network.model.layers[0].mlp.router
    assert (router.router_jitter_noise, router.input_jitter_noise) == (0.3, 0.0)
    [line] = said
    assert "router_jitter_noise 0.3" in line
    assert "PhimoeTopKRouter" in line
    assert "\n" not in line


def test_nothing_is_tried_and_told_where_nothing_is_noise(monkeypatch):
    network, said = raw("llama", **DECODER), []
    monkeypatch.setattr(network, "forward", None)
    without_noise(network, said.append)
    assert not said


def test_random_streams_stay_as_they_are():
    network = raw("phimoe", **DECODER | ROUTER)
    before = torch.get_rng_state()
    without_noise(network)
    assert torch.equal(torch.get_rng_state(), before)


def test_noise_that_nobody_finds_is_told():
    network, said = raw("falcon", **NOISY["dropout that layers read from the configuration"][1]), []

    def drops(module, _, output):
        return torch.nn.functional.dropout(output, 0.5, training=module.training)

    network.lm_head.register_forward_hook(drops)
    without_noise(network, said.append)
    [line] = said
    assert "drops out at random in training" in line
