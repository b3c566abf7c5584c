"""Weights are read whole or refused, wherever they come from; and what they are used with is part of what they are."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel

from tiebreak.engine.artefact import load_artefact, save_whole
from tiebreak.errors import ModelError
from tiny import load, settings

MODEL, ADAPTER = "model.safetensors", "adapter_model.safetensors"
QUERY = "model.layers.1.self_attn.q_proj.weight"


@pytest.fixture
def model(tiny_model, tmp_path):
    return shutil.copytree(tiny_model, tmp_path / "model")


@pytest.fixture
def adapter(tiny_adapter, tmp_path):
    return shutil.copytree(tiny_adapter, tmp_path / "adapter")


def _rewrite(file, without=(), **added):
    tensors = load_file(file) | added
    save_file({name: tensors[name] for name in tensors if name not in without}, file, metadata={"format": "pt"})


def _changed(file, **changes):
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def _refused(*given, **options):
    with pytest.raises(ModelError) as caught:
        load(*given, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def _digest(reference):
    with reference.model() as model:
        return model.digest()


@pytest.mark.parametrize("kind", ["lora", "none"])
def test_a_model_that_lacks_a_tensor_is_refused_by_its_name(kind, model):
    _rewrite(model / MODEL, [QUERY])
    assert f"{model}: cannot be used: its weights lack 1 tensor ({QUERY})" in _refused(settings(model, kind))


def test_several_tensors_are_counted_and_the_first_is_named(model):
    _rewrite(model / MODEL, [QUERY, "lm_head.weight", "model.norm.weight"])
    assert "lack 3 tensors (the first: lm_head.weight)" in _refused(settings(model))


def test_weights_of_another_shape_are_refused_by_name(model):
    _rewrite(model / MODEL, **{QUERY: torch.zeros(8, 8)})
    assert f"1 tensor ({QUERY}) of another shape" in _refused(settings(model))


def test_what_the_architecture_ties_or_makes_itself_is_not_missed(tmp_path, tokenizer):
    config = GPT2Config(vocab_size=250, n_embd=16, n_layer=1, n_head=2, n_positions=32)
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert "lm_head.weight" not in load_file(tmp_path / MODEL)
    said = []
    load(settings(tmp_path, "none"), say=said.append)
    assert said == []
    _rewrite(tmp_path / MODEL, ["transformer.wte.weight"])
    assert "lack 2 tensors" in _refused(settings(tmp_path, "none"))


def test_tensors_that_the_model_has_no_place_for_are_told_once(model):
    _rewrite(model / MODEL, **{"model.extra.weight": torch.zeros(2)})
    said = []
    reference = load(settings(model, "none"), say=said.append).reference
    _digest(reference)  # loads the frozen copy
    assert said == [f"{model}: the model has no place for 1 tensor (model.extra.weight); not used"]


@pytest.mark.parametrize("kind", ["lora", "none"])
def test_a_starting_adapter_that_lacks_tensors_is_refused(kind, adapter):
    names = sorted(load_file(adapter / ADAPTER))[3:5]
    _rewrite(adapter / ADAPTER, names)
    assert f"{adapter}: cannot be used: its weights lack 2 tensors (the first: {names[0]})" in _refused(
        settings(adapter, kind)
    )


def test_tensors_of_an_adapter_that_are_not_used_are_told_as_they_stand_in_the_file(adapter):
    _rewrite(adapter / ADAPTER, **{"base_model.model.model.extra.lora_A.weight": torch.zeros(3, 2)})
    said = []
    load(settings(adapter), say=said.append)
    assert len(said) == 1
    assert "no place for 1 tensor (base_model.model.model.extra.lora_A.weight)" in said[0]


@pytest.mark.parametrize(("kind", "file"), [("lora", ADAPTER), ("none", MODEL)])
def test_a_trained_policy_that_lacks_a_tensor_is_refused(kind, file, tiny_model, tmp_path):
    config = settings(tiny_model, kind)
    load(config).policy.save(tmp_path / "policy")
    lost = sorted(load_file(tmp_path / "policy" / file))[2]
    _rewrite(tmp_path / "policy" / file, [lost])
    assert f"lack 1 tensor ({lost})" in _refused(config, trained=tmp_path / "policy")


@pytest.mark.parametrize(("form", "file"), [("adapter", ADAPTER), ("merged", MODEL)])
def test_an_artefact_that_lacks_a_tensor_is_refused(form, file, tiny_model, tmp_path):
    policy = load(settings(tiny_model)).policy
    policy.save(tmp_path) if form == "adapter" else save_whole(policy, tmp_path)
    load_artefact(tmp_path, policy)
    _rewrite(tmp_path / file, sorted(load_file(tmp_path / file))[:1])
    with pytest.raises(ModelError, match=r"lack 1 tensor \("):
        load_artefact(tmp_path, policy)


@pytest.mark.parametrize("given", ["model", "adapter"])
def test_loading_shows_nothing_and_leaves_the_caller_s_logging_as_it_was(given, request, capfd):
    logging = transformers.utils.logging
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_warning()
    logging.enable_progress_bar()
    try:
        load(settings(request.getfixturevalue(given)))
        assert capfd.readouterr() == ("", "")
        assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == (logging.WARNING, True)
    finally:
        logging.set_verbosity(before[0])
        None if before[1] else logging.disable_progress_bar()


# ------------------------------------------------------------------------------------------------------------- identity


def test_a_model_s_settings_are_part_of_its_identity_and_of_its_reference_s(model):
    before = load(settings(model))
    _changed(model / "config.json", rms_norm_eps=0.1)
    after = load(settings(model))
    assert after.policy.source.identity != before.policy.source.identity
    assert after.policy.source.base_identity != before.policy.source.base_identity
    assert after.reference.identity != before.reference.identity
    assert _digest(after.reference) != _digest(before.reference)  # what the store goes by


def test_the_ids_that_end_a_turn_are_part_of_a_model_s_identity(model):
    before = load(settings(model)).policy.source.identity
    _changed(model / "generation_config.json", eos_token_id=[2, 0])
    assert load(settings(model)).policy.source.identity != before


def test_an_adapter_s_settings_are_part_of_its_identity_and_of_its_reference_s(adapter):
    before = load(settings(adapter))
    _changed(adapter / "adapter_config.json", lora_alpha=12)
    after = load(settings(adapter))
    assert after.policy.source.identity != before.policy.source.identity
    assert after.policy.source.base_identity == before.policy.source.base_identity
    assert after.reference.identity != before.reference.identity
    assert _digest(after.reference) != _digest(before.reference)


def test_a_copy_of_a_model_has_the_same_content_under_another_name(model, tmp_path):
    one, two = (load(settings(folder)) for folder in (model, shutil.copytree(model, tmp_path / "copy")))
    assert one.policy.source.identity.split()[1:] == two.policy.source.identity.split()[1:]
    assert _digest(one.reference) == _digest(two.reference)
