from __future__ import annotations

import peft
import pytest
import torch
from torch import nn

from families import DECODER, EXPERTS, GPT, HEADS_OF_8, PACKABLE, SMALL, build, chosen_scorer, packed, plain, raw
from tiebreak.engine import compatibility
from tiebreak.engine.compatibility import choose_scorer, probe_pairs, refused_by_check, refused_by_design
from tiebreak.records import longest_row
from tiny import load, settings, token_pairs

LLAMA = PACKABLE["llama"]
MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8}
DELTA = EXPERTS | {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "shared_expert_intermediate_size": 16,
}
LINEAR = {"layer_types": ["linear_attention", "full_attention"]}
BLOOM = SMALL | {"hidden_size": 32, "n_layer": 2, "n_head": 4}
FALCON = SMALL | {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}


def _rope(rope_type, **more):
    return {"rope_parameters": {"rope_type": rope_type, "rope_theta": 1e4} | more}


LONG_ROPE = _rope("longrope", short_factor=[1.0] * 4, long_factor=[2.0] * 4)

BY_DESIGN = {
    "short convolutions": ("lfm2", DECODER | {"layer_types": ["conv", "full_attention"]}, "layers include conv"),
    "lightning attention": ("minimax", HEADS_OF_8 | EXPERTS | LINEAR, "layers include linear_attention"),
    "gated delta net": ("qwen3_next", HEADS_OF_8 | DELTA | LINEAR, "layers include linear_attention"),
    "granite with mamba": (
        "granitemoehybrid",
        DECODER | EXPERTS | MAMBA | {"layer_types": ["mamba", "attention"]},
        "layers include linear_attention",
    ),
    "mamba": ("mamba", SMALL | {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 8}, "convolves along the row"),
    "mamba 2": (
        "mamba2",
        SMALL
        | {"hidden_size": 32, "num_hidden_layers": 2, "num_heads": 4, "head_dim": 16, "state_size": 8, "n_groups": 1},
        "convolves along the row",
    ),
    "bamba": ("bamba", DECODER | MAMBA | {"attn_layer_indices": [1], "mamba_n_groups": 1}, "convolves along the row"),
    "jamba": (
        "jamba",
        DECODER | {"num_experts": 2, "attn_layer_period": 2, "attn_layer_offset": 1, "use_mamba_kernels": False},
        "convolves along the row",
    ),
    "chunked attention": (
        "llama4_text",
        HEADS_OF_8 | {"num_local_experts": 2, "intermediate_size_mlp": 48, "moe_layers": []},
        "layers include chunked_attention",
    ),
    "falcon with alibi": ("falcon", FALCON | {"alibi": True}, "biased by distance (ALiBi)"),
    "mpt": ("mpt", SMALL | {"d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 64}, "distance (ALiBi)"),
    "bloom": ("bloom", BLOOM, "attention cannot be exchanged"),
    "gpt_neo": (
        "gpt_neo",
        SMALL | {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]]},
        "attention cannot be exchanged",
    ),
    "stablelm": ("stablelm", DECODER, "attention cannot be exchanged"),
    "dynamic rope": ("llama", DECODER | _rope("dynamic", factor=2.0), "RoPE (dynamic) depends on the longest row"),
    "longrope": (
        "phi3",
        DECODER | LONG_ROPE | {"original_max_position_embeddings": 32},
        "RoPE (longrope) depends on the longest row",
    ),
}


def _refusal(model):
    slow, fast = plain(model), packed(model)
    choice = choose_scorer(model, slow, fast, torch.float32)
    assert choice.scorer is (fast if choice.refusal is None else slow)
    assert "\n" not in (choice.refusal or "")
    return choice.refusal


# ---------------------------------------------------------------------------------------------------------- by design


@pytest.mark.parametrize("case", BY_DESIGN)
def test_an_architecture_that_cannot_be_packed_is_refused_with_its_reason(case):
    kind, config, reason = BY_DESIGN[case]
    model = build(kind, **config)
    assert reason in refused_by_design(model)
    assert reason in _refusal(model)


@pytest.mark.parametrize("case", ["lightning attention", "granite with mamba", "jamba", "short convolutions"])
def test_the_self_check_alone_would_catch_a_hybrid(case):
    kind, config, _ = BY_DESIGN[case]
    model = build(kind, **config)
    assert "differ by" in refused_by_check(model, plain(model), packed(model), torch.float32)


def test_positions_of_several_axes_are_refused():
    model = build("llama", **LLAMA)
    model.config.rope_parameters = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}
    assert "several axes (M-RoPE)" in _refusal(model)


@pytest.mark.parametrize(
    ("kind", "config", "reason"),
    [
        ("gpt2", GPT, "dropout 0.1 is on in transformer.drop"),
        ("opt", PACKABLE["opt"], "dropout 0.1 is on in model.decoder"),
        ("llama", LLAMA | {"attention_dropout": 0.1}, "dropout 0.1 is on in model.layers.0.self_attn"),
    ],
)
def test_dropout_is_refused_and_may_be_packed_once_it_is_off(kind, config, reason):
    assert reason in _refusal(raw(kind, **config).eval())
    assert _refusal(build(kind, **config)) is None


@pytest.mark.parametrize(("kind", "more"), [("mixtral", {"router_jitter_noise": 0.1}), ("phimoe", {})])
def test_a_router_that_is_random_in_training_is_refused_or_its_noise_is_off(kind, more):
    model = build(kind, **DECODER | EXPERTS | more)
    if _refusal(model) is None:
        pairs = token_pairs(3)
        with torch.no_grad():
            training = packed(model.train()).tokens(pairs).values
            assert torch.equal(training, packed(model.eval()).tokens(pairs).values)


def _with_idle_weights():
    model = build("llama", **DECODER)
    for index in range(4):  # as of experts that get no token
        model.register_parameter(f"idle{index}", torch.nn.Parameter(torch.ones(2)))
    assert [name for name, _ in model.named_parameters()][:4] == [f"idle{index}" for index in range(4)]
    return model


def test_where_the_deepest_weights_learn_nothing_all_are_compared(monkeypatch):
    model = _with_idle_weights()
    assert _refusal(model) is None
    own = compatibility._gradients

    def one_is_wrong(of, *rest):
        wanted, found = own(of, *rest)
        return wanted, found * 1.1

    monkeypatch.setattr(compatibility, "_gradients", one_is_wrong)
    assert "gradients differ by 0.1 of their size" in _refusal(model)


def test_a_model_that_learns_nothing_proves_nothing(monkeypatch):
    monkeypatch.setattr(compatibility, "_gradients", lambda *_: [torch.zeros(3)] * 2)
    assert "no gradient reaches what is trained" in _refusal(build("llama", **DECODER))
    assert _refusal(build("llama", **DECODER).requires_grad_(False)) is None


def test_dropout_of_an_adapter_is_refused_with_the_setting_that_allows_packing():
    config = peft.LoraConfig(r=2, lora_dropout=0.1, target_modules="all-linear", task_type="CAUSAL_LM")
    refusal = _refusal(peft.get_peft_model(build("llama", **LLAMA), config))
    assert "dropout 0.1 is on in" in refusal
    assert "adapter.dropout 0 allows it" in refusal


@pytest.mark.parametrize("how", [{"target_modules": ["q_proj", "lm_head"]}, {"modules_to_save": ["lm_head"]}])
def test_an_adapter_on_the_head_is_refused(how):
    config = peft.LoraConfig(r=2, **({"target_modules": ["q_proj"]} | how), task_type="CAUSAL_LM")
    assert "output head is not a plain projection" in _refusal(peft.get_peft_model(build("llama", **LLAMA), config))


def test_prompt_tuning_is_refused():
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    assert "puts tokens before the prompt" in _refusal(peft.get_peft_model(build("llama", **LLAMA), config))


# -------------------------------------------------------------------------------------------------- by the self-check


class _RunningMean(nn.Module):
    """An MLP that also sees the mean of the tokens to its left, whatever attention allows."""

    def __init__(self, mlp):
        super().__init__()
        self.mlp = mlp

    def forward(self, hidden):
        count = torch.arange(1, hidden.shape[1] + 1, dtype=hidden.dtype)[:, None]
        return self.mlp(hidden) + hidden.cumsum(1) / count


class _NextDoor(nn.Module):
    """An MLP that lets a whisper of the token to its left through."""

    def __init__(self, mlp, share):
        super().__init__()
        self.mlp = mlp
        self.share = share

    def forward(self, hidden):
        return self.mlp(hidden) + self.share * hidden.roll(1, dims=1)


def test_a_layer_that_leaks_along_the_row_is_caught():
    model = build("llama", **LLAMA)
    model.model.layers[1].mlp = _RunningMean(model.model.layers[1].mlp)
    assert refused_by_design(model) is None
    assert "differ by" in _refusal(model)


def test_a_leak_too_small_for_the_comparison_is_caught_by_disturbing_a_completion():
    model = build("llama", **LLAMA)
    model.model.layers[0].mlp = _NextDoor(model.model.layers[0].mlp, 1e-6)
    assert _refusal(model) == "changing one completion changes another"


@pytest.mark.parametrize("share", [2.0, 0.999])
def test_a_factor_on_the_logits_that_the_head_does_not_know_is_caught(share):
    model = build("llama", **LLAMA)
    model.lm_head.register_forward_hook(lambda _module, _inputs, logits: share * logits)
    assert "differ by" in _refusal(model)


def test_a_norm_between_backbone_and_head_is_caught():
    assert "differ by" in _refusal(build("modernbert-decoder", **DECODER))


def test_an_attention_that_ignores_the_layout_is_caught():
    model = build("llama", **LLAMA)
    attention = model.model.layers[0].self_attn
    attention.register_forward_hook(lambda _module, _inputs, output: (output[0].roll(1, dims=1), *output[1:]))
    assert "differ by" in _refusal(model)


@pytest.mark.parametrize("kind", ["nemotron", "doge"])
def test_a_model_whose_forward_drops_or_masks_the_layout_is_refused_and_scored_plainly(kind):
    model, pairs = build(kind, **DECODER), token_pairs(2)
    with torch.no_grad():
        wanted = plain(model).tokens(pairs).values
        assert "the packed forward pass failed" in _refusal(model)
        assert torch.equal(plain(model).tokens(pairs).values, wanted)


def test_a_model_whose_numbers_are_not_finite_is_refused():
    model = build("llama", **LLAMA)
    nn.init.constant_(model.model.norm.weight, float("nan"))
    assert "differ by nan" in _refusal(model)


@pytest.mark.parametrize("kind", ["mistral", "gpt2"])
def test_checking_leaves_mode_weights_and_gradients_as_they_were(kind):
    model = build(kind, **PACKABLE[kind]).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert _refusal(model) is None
    assert all(module.training for module in model.modules())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_probe_shares_a_prompt_outgrows_a_short_window_and_has_a_completion_of_one_token():
    pairs = probe_pairs(build("mistral", **PACKABLE["mistral"]))
    assert len({pair.prompt_ids for pair in pairs}) == len(pairs) - 1
    assert min(len(pair.rejected_ids) for pair in pairs) == 1
    assert max(map(longest_row, pairs)) > 2 * 6
    assert pairs == probe_pairs(build("mistral", **PACKABLE["mistral"]))


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma2", "qwen3_moe"])
@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16])
def test_bf16_arithmetic_is_packed_too(kind, weights):
    model = build(kind, **PACKABLE[kind]).to(weights)
    assert chosen_scorer(model, torch.bfloat16).refusal is None


# ------------------------------------------------------------------------------------------------------- when loading


def test_a_policy_says_why_its_pairs_are_not_packed(tiny_model):
    packed, asked, dropout = (
        load(settings(tiny_model, **changes)).policy
        for changes in ({}, {"model__layout": "plain"}, {"adapter__dropout": 0.1})
    )
    assert (packed.scorer.layout, packed.plain_because) == ("packed", None)
    assert (asked.scorer.layout, asked.plain_because) == ("plain", "model.layout says so")
    assert dropout.scorer.layout == "plain"
    assert "adapter.dropout 0 allows it" in dropout.plain_because
