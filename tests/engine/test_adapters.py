"""Which layers a new adapter is on: what was asked for, or one line that says what else there is."""

from __future__ import annotations

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM

from families import DECODER, EXPERTS, HEADS_OF_8, PACKABLE, SMALL, build, chosen_scorer, plain
from tiebreak.config import AdapterConfig
from tiebreak.engine.adapters import with_new_adapter
from tiebreak.engine.loading import quietly
from tiebreak.errors import ModelError
from tiny import load, settings, token_pairs

PAIRS = token_pairs(3)
MAMBA = SMALL | {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 8}
JAMBA = DECODER | {"num_experts": 2, "attn_layer_period": 2, "attn_layer_offset": 1, "use_mamba_kernels": False}
MAMBAS = {
    "mamba": MAMBA,
    "falcon_mamba": MAMBA,
    "mamba2": MAMBA | {"num_heads": 4, "head_dim": 16, "n_groups": 1},
    "falcon_h1": DECODER
    | {"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 1},
}


def _adapted(kind, config, targets="all-linear"):
    said = []
    network = build(kind, **config).requires_grad_(False)
    with quietly():
        return with_new_adapter(network, AdapterConfig(rank=2, target_modules=targets), None, said.append), said


def _refused(*given):
    with pytest.raises(ModelError) as caught:
        _adapted(*given)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def _kinds(model):
    return {name.split(".")[-4] for name, _ in model.named_parameters() if ".lora_A." in name}


def _every_layer_learns(model):
    plain(model).tokens(PAIRS).summed().paired().gap.sum().backward()
    return all(p.grad is not None and p.grad.any() for name, p in model.named_parameters() if ".lora_B." in name)


def test_plain_models_get_an_adapter_on_every_layer_and_nothing_is_told():
    model, said = _adapted("llama", DECODER)
    assert _kinds(model) == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert not said
    assert model.peft_config["default"].exclude_modules is None


@pytest.mark.parametrize("kind", MAMBAS)
def test_layers_that_a_kernel_passes_by_are_left_out_and_told(kind):
    model, said = _adapted(kind, MAMBAS[kind])
    assert "in_proj" in _kinds(model)
    assert _kinds(model).isdisjoint({"out_proj", "dt_proj", "x_proj", "conv1d"})
    assert _every_layer_learns(model)
    [line] = said
    assert "none on" in line
    assert "out_proj (its weight is read past the layer)" in line


def test_layers_that_are_called_stay_where_others_are_passed_by():
    model, said = _adapted("jamba", JAMBA)
    assert {"in_proj", "x_proj", "out_proj"} <= _kinds(model)
    assert "dt_proj" not in _kinds(model)
    assert _every_layer_learns(model)
    assert "none on dt_proj" in said[0]


def test_a_layer_that_a_kernel_passes_by_is_refused_by_name_with_those_that_work():
    message = _refused("mamba", MAMBAS["mamba"], ["in_proj", "out_proj"])
    assert message.startswith("adapter.target_modules out_proj: its weight is read past the layer")
    assert "layers that may carry an adapter: in_proj." in message


def test_a_router_that_returns_more_than_a_product_is_left_out_and_told():
    model, said = _adapted("phimoe", PACKABLE["phimoe"])
    assert _kinds(model) == {"q_proj", "k_proj", "v_proj", "o_proj"}
    assert _every_layer_learns(model)
    assert "router (PhimoeTopKRouter returns more than a product)" in said[0]
    assert "returns more than a product" in _refused("phimoe", PACKABLE["phimoe"], ["router"])


def test_experts_that_get_no_adapter_are_told_with_their_share():
    model, said = _adapted("gpt_oss", PACKABLE["gpt_oss"])
    assert _kinds(model) == {"q_proj", "k_proj", "v_proj", "o_proj"}
    [line] = said
    assert "an adapter on k_proj, o_proj, q_proj, v_proj; none on experts.down_proj, experts.gate_up_proj: " in line
    stacked = [p for name, p in model.named_parameters() if name.endswith(("gate_up_proj", "experts.down_proj"))]
    share = sum(p.numel() for p in stacked) / sum(p.numel() for p in model.parameters() if not p.requires_grad)
    assert line.endswith(f"{share:.0%} of the model's parameters")
    assert "\n" not in line


def test_experts_that_get_an_adapter_in_place_of_their_neighbours_are_told():
    model, said = _adapted("deepseek_v3", PACKABLE["deepseek_v3"])
    assert _every_layer_learns(model)
    [line] = said
    assert "an adapter on experts.down_proj, experts.gate_up_proj, gate.weight, kv_a_proj_with_mqa" in line
    assert "none on down_proj, gate_proj, up_proj: " in line
    assert not _adapted("qwen3_moe", HEADS_OF_8 | EXPERTS)[1]


def test_experts_may_be_asked_for_by_the_names_that_they_had_one_by_one():
    model, _ = _adapted("qwen3_moe", HEADS_OF_8 | EXPERTS, ["gate_proj", "up_proj", "q_proj"])
    assert _kinds(model) == {"experts", "q_proj"}
    assert "without also targeting up_proj" in _refused("qwen3_moe", HEADS_OF_8 | EXPERTS, ["gate_proj"])
    assert "no layer of this name" in _refused("qwen3_moe", HEADS_OF_8 | EXPERTS, ["q_proj", "w1"])


@pytest.mark.parametrize("targets", [["q_prj"], ["q_proj", "nothing"]])
def test_a_layer_that_is_not_there_is_named_with_those_that_are(targets):
    message = _refused("llama", DECODER, targets)
    assert targets[-1] in message
    assert "down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj" in message


def test_an_adapter_with_layers_left_out_loads_again(tmp_path):
    model, _ = _adapted("phimoe", PACKABLE["phimoe"])
    model.save_pretrained(tmp_path)
    again = peft.PeftModel.from_pretrained(build("phimoe", **PACKABLE["phimoe"]), tmp_path)
    assert _kinds(again) == _kinds(model)


def test_an_adapter_that_trains_biases_of_its_base_is_refused_in_one_line_or_merged(tiny_model, tmp_path):
    with torch.random.fork_rng(devices=[]):
        base = AutoModelForCausalLM.from_pretrained(tiny_model)
        base.lm_head.bias = torch.nn.Parameter(torch.ones(len(base.lm_head.weight)))
        kind = peft.LoraConfig(target_modules=["q_proj"], bias="all", task_type="CAUSAL_LM")
        peft.get_peft_model(base, kind).save_pretrained(tmp_path)
    with pytest.raises(ModelError) as caught:
        load(settings(tmp_path))
    assert "cannot stand beside the policy as the reference; merge it into its base model" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_experts_own_loss_is_told_to_be_off_and_forbids_nothing(tmp_path, tokenizer):
    network = build("mixtral", **DECODER | EXPERTS | {"vocab_size": len(tokenizer), "output_router_logits": True})
    assert chosen_scorer(network).refusal is None
    network.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    said = []
    load(settings(tmp_path, adapter__target_modules=["q_proj"]), say=said.append)
    [line] = [line for line in said if "output_router_logits" in line]
    assert "\n" not in line
