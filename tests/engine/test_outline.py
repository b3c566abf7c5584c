"""Models on paper: counted weight by weight, activations against what the planner measures of a real model."""

from __future__ import annotations

import json

import pytest
from transformers import AutoConfig, AutoModelForCausalLM

from families import PACKABLE
from tiebreak.config import AdapterConfig, ModelConfig
from tiebreak.engine.fused_lora import unfuse
from tiebreak.engine.outline import SHAPES, outline_of
from tiebreak.engine.planner import make_plan
from tiebreak.errors import ModelError
from tiny import load, settings, token_pairs


def of(name, kind: str = "none", **more):
    return outline_of(ModelConfig(name=str(name), **more), AdapterConfig(kind=kind))


@pytest.mark.parametrize(
    ("name", "published"), [("llama-8b", 8_030_261_248), ("llama-70b", 70_553_706_496), ("llama-405b", 405_853_388_800)]
)
def test_a_published_shape_has_as_many_weights_as_its_files(name, published):
    found = of(name).anatomy
    assert (found.whole.trainable, found.whole.frozen) == (published, 0)
    assert found.rest.total + found.layers * found.layer.total == published


def test_an_adapter_stands_beside_every_layer_and_nowhere_else():
    found = of("llama-8b", "lora").anatomy
    # 16 × (in + out) for q, o, k, v, gate, up, down.
    rank = 16 * (2 * (4096 + 4096) + 2 * (4096 + 1024) + 3 * (4096 + 14_336))
    assert (found.layer.trainable, found.whole.trainable, found.rest.trainable) == (rank, 32 * rank, 0)
    assert (found.whole.frozen, found.stored) == (8_030_261_248, 2)


@pytest.mark.parametrize("kind", PACKABLE)
def test_every_family_is_counted_weight_by_weight(kind, tmp_path):
    shape = AutoConfig.for_model(kind, **PACKABLE[kind])
    shape.save_pretrained(tmp_path)
    real = AutoModelForCausalLM.from_config(shape, trust_remote_code=False)
    assert of(tmp_path).anatomy.whole.trainable == sum(p.numel() for p in real.parameters())


@pytest.mark.parametrize("kind", ["gemma3_text", "gpt2", "mixtral", "opt"])
def test_layers_of_every_make_are_passed_through(kind, tmp_path):
    AutoConfig.for_model(kind, **PACKABLE[kind]).save_pretrained(tmp_path)
    found = of(tmp_path, "lora")
    assert 0 < found.token_bytes(checkpointed=True) < found.token_bytes(checkpointed=False)


@pytest.mark.parametrize("kind", ["lora", "none"])
def test_a_token_keeps_on_paper_what_it_keeps_of_a_real_model(kind, tiny_model):
    config = settings(tiny_model, kind)
    policy, paper = load(config).policy, outline_of(ModelConfig(name=str(tiny_model), dtype="float32"), config.adapter)
    unfuse(policy.network)  # as in bfloat16 on GPUs, which the fused path leaves alone
    kept, twice = paper.token_bytes(checkpointed=False), paper.token_bytes(checkpointed=True)
    assert kept == pytest.approx(_measured(policy), rel=0.05)
    policy.checkpoint_activations()
    # The states that are scored and their gradient: the planner finds that they are kept already.
    assert twice - kept // 2 == pytest.approx(_measured(policy), abs=2 * 4 * 32 + 20)


def _measured(policy) -> int:
    return make_plan(policy, token_pairs(4), checkpoint=True, available_bytes=2**36).token_bytes


def test_half_as_wide_arithmetic_keeps_fewer_bytes(tiny_model):
    wide, narrow = (of(tiny_model, dtype=dtype).token_bytes(checkpointed=False) for dtype in ("float32", "bfloat16"))
    assert wide / 2 < narrow < wide


def test_of_experts_a_token_is_multiplied_by_those_that_it_is_sent_to(tmp_path):
    shape = AutoConfig.for_model("mixtral", **PACKABLE["mixtral"])
    shape.save_pretrained(tmp_path)
    found = of(tmp_path).anatomy
    # Each of 4 experts in each of 2 layers has three matrices of 32 × 48, and a token goes to 2 of them.
    assert found.layers * found.layer.total - found.multiplied == 2 * 2 * 3 * 32 * 48


def test_no_weight_is_read(tiny_model, tmp_path):
    (tmp_path / "config.json").write_bytes((tiny_model / "config.json").read_bytes())
    assert of(tmp_path).anatomy == of(tiny_model).anatomy


def test_a_folder_without_a_shape_is_refused_with_the_names_of_known_ones(tmp_path):
    with pytest.raises(ModelError, match=f"holds no config.json; wanted the folder of a base .* {', '.join(SHAPES)}"):
        of(tmp_path)


def test_a_model_with_code_of_its_own_is_refused(tmp_path):
    told = {"model_type": "llama", "auto_map": {"AutoModelForCausalLM": "own.Model"}}
    (tmp_path / "config.json").write_text(json.dumps(told))
    with pytest.raises(ModelError, match="code of a model is never run"):
        of(tmp_path)
