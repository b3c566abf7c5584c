from __future__ import annotations

import json
import shutil

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from tiebreak.engine.reference.kinds import REFERENCE_ADAPTER
from tiebreak.engine.scorer import PackedScorer
from tiebreak.errors import ModelError
from tiny import disturb, load, said, same, scores, settings, token_pairs, weights

PAIRS = token_pairs(5)


def _packed_logps(network):
    scorer = PackedScorer(network.eval(), device=torch.device("cpu"), dtype=torch.float32)
    with torch.no_grad():
        return scorer.tokens(PAIRS).summed().paired()


def _ours(loaded):
    loaded.policy.network.eval()
    with torch.no_grad():
        return scores(loaded.policy, PAIRS)


@pytest.fixture
def base_logps(tiny_model):
    return _packed_logps(AutoModelForCausalLM.from_pretrained(tiny_model))


@pytest.fixture
def adapter_logps(tiny_adapter):
    return _packed_logps(peft.AutoPeftModelForCausalLM.from_pretrained(tiny_adapter))


# ---------------------------------------------------------------------------------------------------- the three cases


def test_a_fresh_adapter_is_exactly_the_base(tiny_model, base_logps):
    loaded = load(settings(tiny_model))
    assert loaded.reference.identity.endswith("adapter switched off")
    assert not loaded.policy.continues_adapter
    for found in (_ours(loaded), said(loaded.reference, PAIRS)):
        assert torch.equal(found.chosen, base_logps.chosen)
        assert torch.equal(found.rejected, base_logps.rejected)
    assert {name.split(".")[-3] for name, _ in loaded.policy.trainable} == {"lora_A", "lora_B"}


def test_an_adapter_as_model_goes_on_as_it_is_and_its_start_is_the_reference(tiny_adapter, base_logps, adapter_logps):
    loaded = load(settings(tiny_adapter))
    assert loaded.reference.identity.endswith("adapter as it was at the start")
    assert loaded.policy.continues_adapter
    assert torch.equal(_ours(loaded).chosen, adapter_logps.chosen)
    assert torch.equal(said(loaded.reference, PAIRS).chosen, adapter_logps.chosen)
    assert (adapter_logps.chosen - base_logps.chosen).abs().min() > 0.1
    assert {name.split(".")[-2] for name, _ in loaded.policy.trainable} == {"default"}


def test_full_training_of_an_adapter_merges_it_into_policy_and_reference(tiny_adapter, adapter_logps):
    loaded = load(settings(tiny_adapter, "none"))
    assert loaded.reference.identity.endswith("frozen copy")
    assert not loaded.policy.is_adapter
    assert not loaded.policy.continues_adapter
    assert _ours(loaded).chosen.tolist() == pytest.approx(adapter_logps.chosen.tolist(), rel=1e-5)
    assert torch.equal(said(loaded.reference, PAIRS).chosen, _ours(loaded).chosen)
    assert not any("lora" in name for name, _ in loaded.policy.network.named_parameters())


def test_full_training_moves_every_weight_and_none_of_the_reference(tiny_model):
    loaded = load(settings(tiny_model, "none"))
    network = loaded.policy.network
    assert len(loaded.policy.trainable) == len(list(network.parameters()))
    with loaded.reference.model() as reference:
        assert not any(p.requires_grad for p in reference.network.parameters())
        ours = {p.data_ptr() for p in network.parameters()}
        assert ours.isdisjoint(p.data_ptr() for p in reference.network.parameters())


def test_tied_embeddings_stay_tied_in_the_policy_and_apart_from_the_reference(tmp_path, tokenizer):
    model = GPT2LMHeadModel(GPT2Config(vocab_size=250, n_embd=16, n_layer=1, n_head=2, n_positions=32))
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded = load(settings(tmp_path, "none"))
    network = loaded.policy.network
    assert network.lm_head.weight is network.transformer.wte.weight
    with loaded.reference.model() as reference:
        assert reference.network.lm_head.weight is not network.lm_head.weight


def test_dropout_that_a_base_model_brings_is_off(tmp_path, tokenizer):
    config = GPT2Config(vocab_size=250, n_embd=16, n_layer=1, n_head=2, n_positions=32, resid_pdrop=0.5)
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded = load(settings(tmp_path, "none"))
    loaded.policy.network.train()
    assert torch.equal(scores(loaded.policy, PAIRS).chosen, said(loaded.reference, PAIRS).chosen)
    loaded.policy.save(tmp_path / "out")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["resid_pdrop"] == 0.5


# ---------------------------------------------------------------------------------------------------- saving, loading


@pytest.mark.parametrize("kind", ["lora", "none"])
def test_a_saved_policy_loads_as_the_same_policy_with_the_same_reference(kind, tiny_model, tmp_path):
    config = settings(tiny_model, kind)
    loaded = disturb(load(config))
    loaded.policy.save(tmp_path / "policy")
    again = load(config, trained=tmp_path / "policy")
    assert torch.equal(_ours(again).chosen, _ours(loaded).chosen)
    assert torch.equal(said(again.reference, PAIRS).chosen, said(loaded.reference, PAIRS).chosen)
    assert not torch.equal(_ours(again).chosen, said(again.reference, PAIRS).chosen)


def test_a_continued_adapter_keeps_its_start_as_reference_even_when_the_start_s_folder_is_gone(tiny_adapter, tmp_path):
    moved = shutil.copytree(tiny_adapter, tmp_path / "sft")
    config = settings(moved)
    loaded = disturb(load(config))
    loaded.policy.save(tmp_path / "policy")
    with loaded.reference.model() as start:
        start.save(tmp_path / "reference")
    (moved / "adapter_model.safetensors").write_bytes(b"")
    again = load(config, trained=tmp_path / "policy", kept=tmp_path / "reference")
    assert torch.equal(_ours(again).chosen, _ours(loaded).chosen)
    assert torch.equal(said(again.reference, PAIRS).chosen, said(loaded.reference, PAIRS).chosen)


@pytest.mark.parametrize("share", [0.0, 0.25])
def test_a_continued_adapter_drops_what_the_settings_say_and_not_what_it_was_trained_with(
    share, tiny_adapter, tmp_path
):
    before = shutil.copytree(tiny_adapter, tmp_path / "sft")
    told = json.loads((before / "adapter_config.json").read_text())
    (before / "adapter_config.json").write_text(json.dumps(told | {"lora_dropout": 0.5}))
    policy = load(settings(before, adapter__dropout=share)).policy
    layers = [m.lora_dropout["default"] for m in policy.network.modules() if hasattr(m, "lora_dropout")]
    assert {getattr(layer, "p", 0.0) for layer in layers} == {share}
    assert (policy.plain_because is None) == (share == 0)
    policy.save(tmp_path / "policy")
    assert json.loads((tmp_path / "policy" / "adapter_config.json").read_text())["lora_dropout"] == share


def test_saving_either_adapter_writes_one_flat_folder(tiny_adapter, tmp_path):
    loaded = load(settings(tiny_adapter))
    with loaded.reference.model() as reference:
        assert (loaded.policy.adapter, reference.adapter) == ("default", REFERENCE_ADAPTER)
        for model in (loaded.policy, reference):
            model.save(tmp_path / model.adapter)
            files = {file.name for file in (tmp_path / model.adapter).iterdir()}
            assert {"adapter_model.safetensors", "adapter_config.json", "tokenizer.json"} <= files
            assert not any(file.is_dir() for file in (tmp_path / model.adapter).iterdir())


# ------------------------------------------------------------------------------------------------ randomness, settings


def test_the_seed_alone_decides_how_an_adapter_starts(tiny_model):
    torch.manual_seed(1)
    one = load(settings(tiny_model, training__seed=5)).policy
    torch.manual_seed(2)
    two, other = (load(settings(tiny_model, training__seed=seed)).policy for seed in (5, 6))
    assert same(weights(one.network), weights(two.network))
    assert not same(weights(one.network), weights(other.network))


@pytest.mark.parametrize("kind", ["lora", "none"])
def test_loading_leaves_the_caller_s_random_stream_alone(kind, tiny_model):
    torch.manual_seed(9)
    before = torch.get_rng_state()
    load(settings(tiny_model, kind))
    assert torch.equal(torch.get_rng_state(), before)


def test_adapter_settings_reach_the_adapter(tiny_model):
    changes = {"adapter.rank": 3, "adapter.alpha": 12.0, "adapter.target_modules": ["q_proj"]}
    policy = load(settings(tiny_model, **changes)).policy
    shapes = {name.split(".")[-4]: tuple(p.shape) for name, p in policy.trainable if "lora_A" in name}
    assert shapes == {"q_proj": (3, 32)}
    assert policy.network.peft_config["default"].lora_alpha == 12.0


def test_full_training_keeps_fp32_weights_and_a_frozen_base_may_be_narrow(tiny_model):
    full, lora = (load(settings(tiny_model, kind, model__dtype="bfloat16")).policy for kind in ("none", "lora"))
    assert {p.dtype for p in full.network.parameters()} == {torch.float32}
    assert {p.dtype for _, p in lora.trainable} == {torch.float32}
    assert {p.dtype for p in lora.network.parameters() if not p.requires_grad} == {torch.bfloat16}


@pytest.mark.parametrize("kind", ["lora", "none"])
def test_activation_checkpointing_changes_no_gradient(kind, tiny_model):
    gradients = []
    for checkpointing in (False, True):
        policy = load(settings(tiny_model, kind)).policy
        if checkpointing:
            policy.checkpoint_activations()
        assert any(getattr(m, "gradient_checkpointing", False) for m in policy.network.modules()) is checkpointing
        policy.network.train()
        scores(policy, PAIRS).gap.sum().backward()
        gradients.append([p.grad for _, p in policy.trainable])
    assert all(torch.equal(one, two) for one, two in zip(*gradients, strict=True))


def test_every_id_that_ends_a_turn_counts_and_the_tokenizer_s_own_is_first(tiny_model, tmp_path):
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [0, 2]}))
    assert load(settings(folder)).policy.eos_ids == (2, 0)


# --------------------------------------------------------------------------------------------------------------- errors


def _refused(config):
    with pytest.raises(ModelError) as caught:
        load(config)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("./no/such/folder", "no such folder"),
        ("/no/such/folder", "no such folder"),
        ("smollm2-135m", "Did you mean 'smollm2-135m-instruct'"),
    ],
)
def test_a_name_that_is_nothing_is_refused_in_one_line(name, message):
    assert message in _refused(settings(name))


def test_a_folder_without_a_model_is_refused(tmp_path):
    assert "neither config.json nor adapter_config.json" in _refused(settings(tmp_path))


def test_pickled_weights_are_refused(tiny_model, tmp_path):
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    model = AutoModelForCausalLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    assert "cannot be loaded" in _refused(settings(folder))


@pytest.mark.parametrize("kind", ["lora", "none"])
def test_a_pickled_adapter_is_refused(kind, tiny_adapter, tmp_path):
    folder = shutil.copytree(tiny_adapter, tmp_path / "adapter")
    (folder / "adapter_model.safetensors").unlink()
    torch.save({}, folder / "adapter_model.bin")
    assert "pickled weights are never loaded" in _refused(settings(folder, kind))


def test_a_truncated_weight_file_is_refused_in_one_line(tiny_model, tmp_path):
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    weights_file = folder / "model.safetensors"
    weights_file.write_bytes(weights_file.read_bytes()[:-1000])
    assert "cannot be loaded" in _refused(settings(folder))


def test_prompt_tuning_cannot_be_continued(tiny_model, tmp_path):
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    peft.get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model), config).save_pretrained(tmp_path)
    assert "PROMPT_TUNING adapter" in _refused(settings(tmp_path))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        *(({"init_lora_weights": draw}, f"init_lora_weights '{draw}'") for draw in ("pissa", "pissa_niter_4", "olora")),
        *(
            ({"init_lora_weights": draw}, f"init_lora_weights '{draw}'")
            for draw in ("loftq", "corda", "lora_ga", "mica")
        ),
        ({"alora_invocation_tokens": [5, 6]}, "alora_invocation_tokens is set"),
        ({"layer_replication": [[0, 2], [1, 2]]}, "layer_replication is set"),
    ],
)
@pytest.mark.parametrize("kind", ["lora", "none"])
def test_an_adapter_that_is_more_than_lora_on_its_base_model_is_refused_by_name(
    kind, changes, told, tiny_adapter, tmp_path
):
    folder = shutil.copytree(tiny_adapter, tmp_path / "adapter")
    changed = json.loads((folder / "adapter_config.json").read_text()) | changes
    (folder / "adapter_config.json").write_text(json.dumps(changed))
    assert told in _refused(settings(folder, kind))


@pytest.mark.parametrize("changes", [{"init_lora_weights": "gaussian"}, {"init_lora_weights": False}])
def test_how_an_adapter_was_drawn_is_no_matter_where_its_base_model_stayed(changes, tiny_adapter, tmp_path):
    folder = shutil.copytree(tiny_adapter, tmp_path / "adapter")
    changed = json.loads((folder / "adapter_config.json").read_text()) | changes
    (folder / "adapter_config.json").write_text(json.dumps(changed))
    assert load(settings(folder)).policy.digest() == load(settings(tiny_adapter)).policy.digest()


def test_an_adapter_without_a_base_is_refused(tiny_adapter, tmp_path):
    folder = shutil.copytree(tiny_adapter, tmp_path / "adapter")
    changed = json.loads((folder / "adapter_config.json").read_text()) | {"base_model_name_or_path": None}
    (folder / "adapter_config.json").write_text(json.dumps(changed))
    assert "names no base model" in _refused(settings(folder))


@pytest.mark.parametrize("kind", ["lora", "none"])
def test_an_adapter_whose_base_has_moved_says_so_and_takes_the_new_place(kind, tiny_model, tiny_adapter, tmp_path):
    folder = shutil.copytree(tiny_adapter, tmp_path / "adapter")
    changed = json.loads((folder / "adapter_config.json").read_text()) | {"base_model_name_or_path": "/nowhere/base"}
    (folder / "adapter_config.json").write_text(json.dumps(changed))
    refused = _refused(settings(folder, kind))
    assert str(folder) in refused
    assert "--set model.base=" in refused
    moved = shutil.copytree(tiny_model, tmp_path / "elsewhere")
    loaded = load(settings(folder, kind, model__base=str(moved)))
    assert loaded.policy.source.base == str(moved)
    assert loaded.policy.digest() == load(settings(tiny_adapter, kind)).policy.digest()


def test_what_is_no_adapter_has_no_base(tiny_model):
    assert "leave out model.base" in _refused(settings(tiny_model, model__base=str(tiny_model)))


def test_an_adapter_on_an_adapter_is_refused_and_not_half_loaded(tiny_adapter, tmp_path):
    folder = shutil.copytree(tiny_adapter, tmp_path / "adapter")
    changed = json.loads((folder / "adapter_config.json").read_text()) | {"base_model_name_or_path": str(tiny_adapter)}
    (folder / "adapter_config.json").write_text(json.dumps(changed))
    assert "merge" in _refused(settings(folder))


def test_a_tokenizer_that_is_missing_or_has_no_template_is_named(tiny_model, tmp_path):
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    (folder / "chat_template.jinja").unlink()
    assert "no chat template" in _refused(settings(folder))
    template = tmp_path / "mine.jinja"
    template.write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    named = settings(folder, model__chat_template=str(template))
    assert load(named).policy.tokenizer.chat_template == template.read_text()
    assert "cannot be read" in _refused(settings(folder, model__chat_template=str(tmp_path / "none.jinja")))
    for file in folder.glob("token*"):
        file.unlink()
    assert "no tokenizer that loads" in _refused(settings(folder))


def test_a_device_that_is_not_there_is_named(tiny_model):
    if torch.backends.mps.is_available():
        pytest.skip("this machine has an Apple GPU")
    assert "this machine has none" in _refused(settings(tiny_model, model__device="mps"))
