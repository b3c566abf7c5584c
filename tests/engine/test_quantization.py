"""A base model in four bits says what the numbers say that its bits stand for, in values and in gradients."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

import families
import oracles
from tiebreak.config import ModelConfig, QuantizationConfig
from tiebreak.engine import quantization
from tiebreak.engine.beside import FILE
from tiebreak.engine.loading import quietly
from tiebreak.engine.models import load_frozen
from tiebreak.engine.planner import make_plan
from tiebreak.engine.quantization import layers_of, num_bytes, num_parameters, spelled_bytes, spelled_out, weight_of
from tiebreak.errors import ConfigError, ModelError
from tiny import cut_off, disturb, load, run, said, same, scores, settings, token_pairs, weights

bitsandbytes = pytest.importorskip("bitsandbytes", reason="bitsandbytes, an extra, is not installed")
PAIRS = token_pairs(4)
SIZES = {"hidden_size": 64, "intermediate_size": 128}
KINDS = {
    "nf4": {"quantization": "nf4"},
    "nf4 once": {"quantization": "nf4", "quantization__double": False},
    "fp4": {"quantization": "fp4"},
}
ADAPTERS = {"lora": {}, "rslora": {"adapter__rslora": True}, "dora": {"adapter__dora": True}}


@pytest.fixture(scope="module")
def llama(tmp_path_factory, tokenizer):
    """A Llama of two layers whose rows are whole blocks."""
    folder = tmp_path_factory.mktemp("four_bits") / "llama"
    network = families.raw("llama", **families.DECODER | SIZES | {"vocab_size": len(tokenizer)})
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def gpt(tmp_path_factory, tokenizer):
    """A GPT-2, whose layers lie the other way round."""
    folder = tmp_path_factory.mktemp("four_bits") / "gpt"
    families.raw("gpt2", **families.GPT | {"n_embd": 64, "vocab_size": len(tokenizer)}).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(params=["llama", "gpt"])
def model(request):
    return request.getfixturevalue(request.param)


def _spelled(model, folder, **kind):
    """A folder with the float model of the numbers that the library's own four bits stand for."""
    policy = load(settings(model, **kind)).policy
    plain = AutoModelForCausalLM.from_pretrained(model)
    for path, layer in layers_of(policy.network.get_base_model()).items():
        found = bitsandbytes.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)
        target = plain.get_submodule(path.removesuffix(".base_layer")).weight
        with torch.no_grad():
            target.copy_(found.T if found.shape != target.shape or "c_" in path else found)
    plain.save_pretrained(folder)
    policy.tokenizer.save_pretrained(folder)
    return folder


def _learned(policy):
    policy.network.train().zero_grad()
    gap = scores(policy, PAIRS).gap
    gap.sum().backward()
    return gap.detach(), {name: p.grad.clone() for name, p in policy.trainable}


@pytest.mark.parametrize("double", [True, False])
def test_four_bits_stand_for_what_the_paper_says(llama, double):
    policy = load(settings(llama, quantization="nf4", quantization__double=double)).policy
    plain = AutoModelForCausalLM.from_pretrained(llama)
    for path, layer in layers_of(policy.network.get_base_model()).items():
        theirs = plain.get_submodule(path.removesuffix(".base_layer")).weight
        wanted = oracles.nf4(theirs.detach())
        # Scales of 8 bits are off by less than 1/128 of what they differ from their mean by.
        assert torch.allclose(weight_of(layer).double(), wanted, rtol=0.02 if double else 1e-5, atol=1e-6), path


@pytest.mark.parametrize(
    ("kind", "adapter"), [("nf4", "lora"), ("nf4 once", "lora"), ("fp4", "lora"), ("nf4", "rslora"), ("nf4", "dora")]
)
@pytest.mark.parametrize("layout", ["auto", "plain"])
def test_values_and_gradients_are_those_of_the_numbers_that_the_bits_stand_for(model, layout, kind, adapter, tmp_path):
    more = ADAPTERS[adapter] | {"model__layout": layout}
    policy = disturb(load(settings(model, **KINDS[kind], **more))).policy
    plain = load(settings(_spelled(model, tmp_path, **KINDS[kind]), **more)).policy
    assert policy.scorer.layout == plain.scorer.layout == ("plain" if layout == "plain" else "packed")
    theirs = dict(policy.trainable)
    with torch.no_grad():
        for name, parameter in plain.trainable:
            parameter.copy_(theirs[name])
    (gap, gradients), (wanted, slopes) = _learned(policy), _learned(plain)
    assert torch.allclose(gap, wanted, rtol=1e-5, atol=1e-5)
    assert gradients.keys() == slopes.keys()
    for name, gradient in gradients.items():
        assert (gradient - slopes[name]).norm() <= 1e-4 * slopes[name].norm(), name


def test_a_few_steps_are_near_those_on_the_float_base_and_not_the_same(stories, tmp_path):
    few = {"training__epochs": 3, "training__learning_rate": 5e-3}
    pairs = token_pairs(10)
    quantized = run(settings(stories, quantization="nf4", **few), pairs, tmp_path / "nf4")
    plain = run(settings(stories, **few), pairs, tmp_path / "float")
    found, wanted = (torch.tensor([row["loss"] for row in one.rows()]) for one in (quantized, plain))
    assert found[0] == pytest.approx(float(wanted[0]), abs=1e-4)  # ln 2: policy and reference start as one model
    moved = (wanted - wanted[0]).abs().max()
    assert moved > 0.5
    # Four bits move a logit of this model by some 2 % of its spread, and a loss by a like share of what a step moves.
    assert 0 < (found - wanted).abs().max() < 0.05 * moved


def test_the_reference_is_the_same_quantised_base(llama):
    loaded = load(settings(llama, quantization="nf4"))
    alone = load_frozen(ModelConfig(name=str(llama), device="cpu"), quantization=QuantizationConfig())
    assert loaded.reference.identity.endswith(" in nf4, doubly, adapter switched off")
    with torch.no_grad():
        assert torch.equal(scores(loaded.policy, PAIRS).chosen, scores(alone, PAIRS).chosen)
        disturb(loaded)
        assert torch.equal(said(loaded.reference, PAIRS).chosen, scores(alone, PAIRS).chosen)
    assert alone.digest() == loaded.reference.weights


def test_a_run_that_was_cut_off_ends_with_the_same_weights_to_the_bit(llama, tmp_path):
    config = settings(llama, quantization="nf4", training__epochs=4, training__checkpoint_steps=1)
    pairs = token_pairs(10)
    whole = run(config, pairs, tmp_path / "whole")
    (tmp_path / "cut").mkdir()
    cut_off(config, pairs, tmp_path / "cut", 5)
    resumed = run(config, pairs, tmp_path / "cut")
    assert same(weights(resumed.loaded.policy.network), weights(whole.loaded.policy.network))


def test_a_layer_computes_alike_in_training_and_in_evaluation_and_stays_as_it_is(stories):
    # On processors with AVX512-BF16 the library itself would lay it out anew, compute in bfloat16, or fail.
    policy = load(settings(stories, quantization="nf4", model__layout="plain")).policy
    before = policy.digest()
    with torch.no_grad():
        trained = policy.network.train()(input_ids=torch.arange(3, 40)[None]).logits
        evaluated = policy.network.eval()(input_ids=torch.arange(3, 40)[None]).logits
    assert torch.equal(trained, evaluated)
    assert policy.digest() == before


# ------------------------------------------------------------------------------------------------------------- identity


def test_a_digest_knows_the_weights_and_how_they_are_quantised(llama):
    policies = [load(settings(llama, **kind)).policy for kind in (*KINDS.values(), {}, {"quantization": "nf4"})]
    *different, again = [policy.digest() for policy in policies]
    assert len(set(different)) == 4
    assert again == different[0]
    policy = policies[0]
    layer = next(iter(layers_of(policy.network).values()))
    layer.weight.quant_state.absmax[0] += 1
    assert policy.digest() != again


def test_stored_values_of_four_bits_and_of_floats_never_mix(llama, tmp_path):
    for told in ({}, {"quantization": "nf4"}, {"quantization": "fp4"}):
        reference = load(settings(llama, reference__store=str(tmp_path / "store"), **told)).reference
        assert len(reference.missing(PAIRS)) > 0
        reference.logps(PAIRS)
        reference.flush()
        assert reference.num_asked == len(PAIRS)
    assert (
        load(settings(llama, reference__store=str(tmp_path / "store"), quantization="nf4")).reference.missing(PAIRS)
        == []
    )


def test_an_adapter_says_on_what_it_was_trained_and_is_taken_so(llama, tmp_path):
    loaded = disturb(load(settings(llama, quantization="fp4")))
    loaded.policy.save(tmp_path)
    assert BitsAndBytesConfig.from_dict(json.loads((tmp_path / FILE).read_text())).bnb_4bit_quant_type == "fp4"
    told = []
    again, asked = load(settings(tmp_path), say=told.append), load_frozen(ModelConfig(name=str(tmp_path), device="cpu"))
    assert f"{tmp_path}: was trained on a base model in fp4, doubly, and is taken so" in told
    assert again.policy.digest() == asked.digest() == loaded.policy.digest()
    whole = load(settings(tmp_path, adapter="none"))
    assert not layers_of(whole.policy.network)
    with torch.no_grad():
        wanted = scores(loaded.policy, PAIRS).chosen
        for one in (again.policy, asked, whole.policy):
            assert torch.allclose(scores(one, PAIRS).chosen, wanted, rtol=1e-5)
        assert torch.allclose(said(whole.reference, PAIRS).chosen, wanted, rtol=1e-5)


def test_an_adapter_of_a_float_base_goes_on_upon_four_bits_with_a_word(llama, tmp_path):
    told = []
    load(settings(llama)).policy.save(tmp_path)
    load(settings(tmp_path, quantization="nf4"), say=told.append)
    assert any("nothing says that its base model was quantised" in line for line in told)


def test_a_model_whose_files_hold_four_bits_is_taken_as_it_is(llama, tokenizer, tmp_path):
    with quietly():
        AutoModelForCausalLM.from_pretrained(
            llama, quantization_config=BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
        ).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    found = load(settings(tmp_path)).policy
    wanted = load(settings(llama, quantization="nf4", quantization__double=False)).policy
    with torch.no_grad():
        assert torch.equal(scores(found, PAIRS).chosen, scores(wanted, PAIRS).chosen)
    assert load(settings(tmp_path, quantization="nf4", quantization__double=False)).policy.digest() == found.digest()
    with pytest.raises(ModelError, match="lies in nf4 already, and quantization asks for fp4, doubly"):
        load(settings(tmp_path, quantization="fp4"))
    with pytest.raises(ModelError, match=r"lies in four bits \(nf4\), which cannot be trained"):
        load(settings(tmp_path, adapter="none"))


def test_a_reference_on_the_same_base_shares_its_bits_and_one_on_another_keeps_its_own(llama, tmp_path):
    adapter, other = tmp_path / "adapter", tmp_path / "other"
    disturb(load(settings(llama))).policy.save(adapter)
    beside = load(settings(llama, quantization="nf4", reference__model=str(adapter))).reference
    assert beside.source.quantization == QuantizationConfig()
    assert beside.num_bytes == 0  # an adapter on the policy's base
    plain = AutoModelForCausalLM.from_pretrained(llama)
    with torch.no_grad():
        plain.lm_head.weight.mul_(1.5)
    plain.save_pretrained(other)
    load(settings(llama)).policy.tokenizer.save_pretrained(other)
    apart = load(settings(llama, quantization="nf4", reference__model=str(other))).reference
    assert apart.source.quantization is None
    assert apart.num_bytes == sum(one.nbytes for one in plain.parameters())
    with torch.no_grad():
        wanted = scores(load(settings(other)).policy, PAIRS).chosen
    assert torch.allclose(said(apart, PAIRS).chosen, wanted, rtol=1e-5)


# --------------------------------------------------------------------------------------------------------------- memory


def test_sizes_are_those_of_the_numbers_and_bytes_those_of_the_bits(llama):
    quantized, plain = load(settings(llama, quantization="nf4")).policy, load(settings(llama)).policy
    assert quantized.num_parameters == plain.num_parameters
    layers = layers_of(quantized.network).values()
    inner = sum(layer.in_features * layer.out_features for layer in layers)
    num = sum(p.numel() for p in plain.network.parameters())
    floats = 4 * (num - inner)
    assert floats + 0.5 * inner < num_bytes(quantized.network) < floats + 0.7 * inner + 2000 * len(layers)
    assert num_parameters(quantized.network) == num
    assert spelled_bytes(quantized.network) == 2 * 4 * 64 * 128
    assert spelled_bytes(plain.network) == 0


def test_the_plan_leaves_room_for_weights_as_they_are_multiplied_with(llama):
    more = [{}, {"quantization": "nf4"}, {"adapter__dora": True}, {"quantization": "nf4", "adapter__dora": True}]
    plans = [make_plan(load(settings(llama, **one)).policy, PAIRS) for one in more]
    bits, sized = 2 * 4 * 64 * 128, 3 * 4 * 64 * 128
    assert [plan.spelled_bytes for plan in plans] == [0, bits, sized, bits + sized]
    assert plans[0].optimizer_bytes == plans[1].optimizer_bytes
    assert "weights spelled out" in plans[1].lines()[0]


def test_a_model_is_spelled_out_for_whoever_needs_its_numbers(model):
    frozen = load_frozen(ModelConfig(name=str(model), device="cpu"), quantization=QuantizationConfig())
    with torch.no_grad():
        wanted = scores(frozen, PAIRS).chosen
        plain = spelled_out(frozen.network)
        found = scores(frozen.with_network(plain), PAIRS).chosen
    assert not layers_of(plain)
    assert torch.allclose(found, wanted, rtol=1e-5)
    kinds = [type(module) for module in AutoModelForCausalLM.from_pretrained(model).modules()]
    assert [type(module).__name__.replace("FastLinear", "Linear") for module in plain.modules()] == [
        kind.__name__ for kind in kinds
    ]


# -------------------------------------------------------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"adapter": "none", "quantization": "nf4"}, "with adapter.kind none all weights are trained"),
        (
            {"quantization": "nf4", "distributed__strategy": "fsdp"},
            r"not cut into shares \(distributed.strategy fsdp\)",
        ),
        ({"quantization": "int8"}, "quantization.kind: found 'int8'; input should be 'nf4' or 'fp4'"),
    ],
)
def test_what_four_bits_cannot_do_is_refused_before_a_model_is_looked_for(changes, told):
    with pytest.raises(ConfigError, match=told):
        settings("nowhere", **changes)


def test_without_the_library_one_line_says_how_to_get_it(llama, monkeypatch):
    monkeypatch.setattr(quantization, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"needs the library bitsandbytes.* pip install 'tiebreak\[quantized\]'"):
        load(settings(llama, quantization="nf4"))


def test_devices_without_kernels_of_the_library_s_own_are_refused():
    with pytest.raises(ModelError, match=r"is computed on cuda and cpu, and model\.device is mps"):
        quantization.refuse_without_library(QuantizationConfig(), torch.device("mps"))


def test_a_model_that_is_quantised_otherwise_is_refused_by_its_method(llama, tmp_path):
    for file in llama.iterdir():
        (tmp_path / file.name).symlink_to(file)
    told = json.loads((llama / "config.json").read_text())
    (tmp_path / "config.json").unlink()
    told["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (tmp_path / "config.json").write_text(json.dumps(told))
    with pytest.raises(ModelError, match="is quantised already, by gptq, and quantization asks for nf4"):
        load(settings(tmp_path, quantization="nf4"))


def test_an_adapter_is_not_taken_for_one_on_other_bits(llama, tmp_path):
    load(settings(llama, quantization="nf4")).policy.save(tmp_path)
    with pytest.raises(ModelError, match="was trained on a base model in nf4, doubly, and quantization asks for fp4"):
        load(settings(tmp_path, quantization="fp4"))
    (tmp_path / FILE).write_text('{"load_in_8bit": true}')
    with pytest.raises(ModelError, match="names no quantization that is known here"):
        load(settings(tmp_path))
    (tmp_path / FILE).write_text("{")
    with pytest.raises(ModelError, match="cannot be read"):
        load(settings(tmp_path))


def test_compiled_code_of_a_hub_is_not_fetched_when_the_library_is_loaded(tmp_path):
    (tmp_path / "kernels.py").write_text("def get_kernel(*_, **__): print('fetched')\n")
    code = "import tiebreak.engine, peft, bitsandbytes, kernels; print('kernels' in __import__('sys').modules)"
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("True\n", "")
