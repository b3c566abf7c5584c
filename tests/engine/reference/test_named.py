"""A reference that is named: which model it is, in which form, and when it is refused."""

from __future__ import annotations

import gc
import json
import shutil
import weakref

import huggingface_hub
import peft
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from tiebreak.engine.models import load_alone
from tiebreak.engine.scorer import PlainScorer
from tiebreak.errors import ModelError
from tiebreak.progress import Silent
from tiebreak.training.start_check import claims_of
from tiny import load, said, scores, settings, step, token_pairs

PAIRS = token_pairs(5)


@pytest.fixture(scope="module")
def other_adapter(tiny_adapter, tiny_model, tmp_path_factory):
    """A folder with another adapter on the tiny model, of another rank and fewer layers."""
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        config = peft.LoraConfig(r=2, lora_alpha=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
        adapted = peft.get_peft_model(model, config)
        for name, parameter in adapted.named_parameters():
            if ".lora_B." in name:
                torch.nn.init.normal_(parameter, std=0.3)
    folder = tmp_path_factory.mktemp("other") / "adapter"
    adapted.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def larger(tokenizer, tmp_path_factory):
    """A folder with a deeper and wider model of the same tokenizer."""
    folder = tmp_path_factory.mktemp("larger") / "model"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
        sizes = {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
        config = LlamaConfig(
            vocab_size=len(tokenizer), max_position_embeddings=256, initializer_range=0.2, **sizes, **ids
        )
        LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def folders(tiny_model, tiny_adapter, other_adapter, larger):
    return {"base": tiny_model, "adapter": tiny_adapter, "other": other_adapter, "larger": larger}


def _of_a_stranger(folder):
    """What the plain classes of transformers and peft make of the pairs."""
    kind = peft.AutoPeftModelForCausalLM if (folder / "adapter_config.json").exists() else AutoModelForCausalLM
    scorer = PlainScorer(kind.from_pretrained(folder).eval(), pad_id=0, device=torch.device("cpu"), dtype=torch.float32)
    with torch.no_grad():
        return scorer.tokens(PAIRS).values


FORMS = {
    ("adapter", "base", "lora"): ("adapter switched off", False),
    ("base", "adapter", "lora"): ("another adapter", False),
    ("other", "adapter", "lora"): ("another adapter", False),
    ("base", "larger", "lora"): ("frozen copy", True),
    ("adapter", "larger", "lora"): ("frozen copy", True),
    ("base", "adapter", "none"): ("frozen copy", True),
    ("adapter", "base", "none"): ("frozen copy", True),
    ("other", "adapter", "none"): ("frozen copy", True),
    ("base", "larger", "none"): ("frozen copy", True),
    ("larger", "adapter", "lora"): ("frozen copy", True),
}


@pytest.mark.parametrize(("start", "against", "kind"), FORMS)
def test_policy_and_reference_are_the_models_that_are_named(start, against, kind, folders):
    form, is_apart = FORMS[start, against, kind]
    config = settings(folders[start], kind, reference__model=str(folders[against]), adapter__dropout=0.0)
    loaded = load(config)
    assert loaded.reference.identity.endswith(form)
    with loaded.reference.model() as model:
        assert (model.network is not loaded.policy.network) is is_apart
    assert not any(".reference." in name for name, _ in loaded.policy.trainable)
    loaded.policy.network.eval()
    ours = torch.cat([scores(loaded.policy, PAIRS).chosen.detach(), scores(loaded.policy, PAIRS).rejected.detach()])
    for found, folder in ((loaded.policy.score(PAIRS).values, start), (loaded.reference.logps(PAIRS).values, against)):
        assert found.detach().tolist() == pytest.approx(_of_a_stranger(folders[folder]).tolist(), abs=2e-4)
    before = loaded.reference.logps(PAIRS).values.clone()
    step(loaded, config, PAIRS)
    loaded.policy.network.eval()
    after = torch.cat([scores(loaded.policy, PAIRS).chosen.detach(), scores(loaded.policy, PAIRS).rejected.detach()])
    assert (ours - after).abs().min() > 0
    with loaded.reference.model() as model, torch.no_grad():
        assert torch.equal(model.score(PAIRS).values, before)


@pytest.mark.parametrize("kind", ["lora", "none"])
@pytest.mark.parametrize("start", ["base", "adapter"])
def test_a_reference_named_as_what_the_policy_starts_from_is_as_if_none_were_named(start, kind, folders, tmp_path):
    copied = shutil.copytree(folders[start], tmp_path / "another name")
    plain, named = (load(settings(folders[start], kind, **more)) for more in ({}, {"reference__model": str(copied)}))
    assert named.reference.identity == plain.reference.identity
    assert torch.equal(named.reference.logps(PAIRS).values, plain.reference.logps(PAIRS).values)
    assert named.reference.weights == plain.reference.weights


def test_what_a_model_said_as_the_start_of_one_run_is_stored_for_those_that_name_it(folders, tmp_path):
    store = {"reference__store": str(tmp_path)}
    first = load(settings(folders["adapter"], **store)).reference
    first.logps(PAIRS)
    first.flush()
    for start, kind in (("base", "lora"), ("other", "lora"), ("base", "none"), ("larger", "lora")):
        reference = load(settings(folders[start], kind, reference__model=str(folders["adapter"]), **store)).reference
        assert reference.weights == first.weights
        reference.logps(PAIRS)
        assert reference.num_asked == 0
    bare = load(settings(folders["adapter"], reference__model=str(folders["base"]), **store)).reference
    bare.logps(PAIRS)
    assert bare.num_asked == len(PAIRS)


def test_another_model_is_let_go_when_a_run_begins_and_comes_back_when_it_is_asked(folders):
    loaded = load(settings(folders["base"], reference__model=str(folders["larger"])))
    assert loaded.reference.model_is_dear
    with loaded.reference.model() as model:
        held = weakref.ref(model.network)
        own = sum(4 * p.numel() for p in model.network.parameters())
    assert loaded.reference.num_bytes == own
    loaded.reference.begin(PAIRS, loaded.budget.cut, Silent())
    del model
    gc.collect()
    assert held() is None
    assert loaded.reference.num_asked == len(PAIRS)
    with loaded.reference.model() as again, torch.no_grad():
        assert torch.equal(again.score(PAIRS).values, loaded.reference.logps(PAIRS).values)


def test_an_adapter_that_is_the_reference_is_one_that_a_run_keeps(folders, tmp_path):
    loaded = load(settings(folders["base"], reference__model=str(folders["other"])))
    assert loaded.reference.is_kept
    loaded.policy.save(tmp_path / "policy")
    with loaded.reference.model() as model:
        model.save(tmp_path / "kept")
    again = load(settings(folders["base"]), trained=tmp_path / "policy", kept=tmp_path / "kept")
    assert torch.equal(said(again.reference, PAIRS).chosen, said(loaded.reference, PAIRS).chosen)
    assert again.reference.weights == loaded.reference.weights


@pytest.mark.parametrize("name", ["base", "adapter", "larger"])
def test_a_model_loaded_alone_says_what_it_says_to_a_stranger(name, folders):
    like = load(settings(folders["base"])).policy
    alone = load_alone(settings(folders[name]).model, like)
    assert alone.scorer.layout == "plain"
    with torch.no_grad():
        assert torch.equal(alone.score(PAIRS).values, _of_a_stranger(folders[name]))


# --------------------------------------------------------------------------------------------------- revision and base


def _all(reference):
    with torch.no_grad():
        return reference.logps(PAIRS).values


@pytest.fixture
def hub(folders, tmp_path, monkeypatch):
    """A cache of the Hub with a model of two commits, of which main is the larger one, and no network."""
    kept = tmp_path / "hub" / "models--org--name"
    (kept / "refs").mkdir(parents=True)
    for commit, branch, name in (("a" * 40, "first", "base"), ("b" * 40, "main", "larger")):
        shutil.copytree(folders[name], kept / "snapshots" / commit)
        (kept / "refs" / branch).write_text(commit)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return "org/name"


def test_a_reference_of_the_hub_is_of_its_revision_and_so_is_what_it_is_proven_against(hub, folders):
    for revision, name in (("first", "base"), ("a" * 40, "base"), ("main", "larger"), (None, "larger")):
        config = settings(folders["adapter"], "lora", reference__model=hub, reference__revision=revision)
        loaded = load(config)
        wanted = _of_a_stranger(folders[name])
        assert torch.allclose(_all(loaded.reference), wanted, atol=1e-4)
        _, claim = claims_of(config.model, config.reference, loaded.policy, loaded.reference)
        with torch.no_grad():
            assert torch.equal(claim.load().score(PAIRS).values, wanted)
        assert claim.what == f"reference.model {hub}" + (f" at {revision}" if revision else "")


def test_a_model_and_its_reference_of_one_hub_id_are_of_one_revision_unless_another_is_named(hub, folders):
    told = {"model__revision": "first", "reference__model": hub}
    same = load(settings(hub, "lora", **told))
    with torch.no_grad():
        assert torch.equal(_all(same.reference), same.policy.score(PAIRS).values)
    other = load(settings(hub, "lora", **told, reference__revision="main"))
    assert torch.allclose(_all(other.reference), _of_a_stranger(folders["larger"]), atol=1e-4)


def test_a_reference_on_another_base_than_its_adapter_says_is_found_and_so_is_what_it_is_proven_against(
    folders, tmp_path
):
    astray = shutil.copytree(folders["other"], tmp_path / "astray")
    told = json.loads((astray / "adapter_config.json").read_text())
    (astray / "adapter_config.json").write_text(json.dumps(told | {"base_model_name_or_path": "/no/such/folder"}))
    config = settings(folders["base"], reference__model=str(astray), reference__base=str(folders["base"]))
    loaded, plain = load(config), load(settings(folders["base"], reference__model=str(folders["other"])))
    assert torch.equal(_all(loaded.reference), _all(plain.reference))
    _, claim = claims_of(config.model, config.reference, loaded.policy, loaded.reference)
    with torch.no_grad():
        assert torch.allclose(claim.load().score(PAIRS).values, _all(loaded.reference), atol=1e-4)
    assert "write where it is now as reference.base" in _refused(folders["base"], astray)
    assert "leave out reference.base" in _refused(folders["base"], folders["larger"], reference__base="x")


# ------------------------------------------------------------------------------------------------------------- refusals


def _refused(start, against, **more):
    with pytest.raises(ModelError) as caught:
        load(settings(start, reference__model=str(against), **more))
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("reference.model: ")
    return str(caught.value)


def test_a_reference_of_another_vocabulary_is_refused(folders, tmp_path):
    folder = shutil.copytree(folders["larger"], tmp_path / "model")
    told = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = told["model"]["vocab"]
    one, two = list(vocabulary)[40:42]
    vocabulary[one], vocabulary[two] = vocabulary[two], vocabulary[one]
    (folder / "tokenizer.json").write_text(json.dumps(told))
    assert "has another vocabulary than the policy" in _refused(folders["base"], folder)


def test_a_reference_of_another_chat_template_is_refused_unless_one_is_named_for_both(folders, tmp_path):
    folder = shutil.copytree(folders["larger"], tmp_path / "model")
    own = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").write_text("Q" + own)
    assert "has another chat template than the policy" in _refused(folders["base"], folder)
    (tmp_path / "own.jinja").write_text(own)
    assert load(
        settings(folders["base"], reference__model=str(folder), model__chat_template=str(tmp_path / "own.jinja"))
    )
    (folder / "chat_template.jinja").unlink()  # a base model has none that could differ
    assert load(settings(folders["base"], reference__model=str(folder)))


def test_a_policy_that_was_told_something_by_its_template_and_its_base_have_one_template(folders, tmp_path):
    told = {"model.chat_template_arguments": {"tone": "dry"}, "model.chat_template": str(tmp_path / "t.jinja")}
    (tmp_path / "t.jinja").write_text("{{ tone }}" + (folders["base"] / "chat_template.jinja").read_text())
    base = shutil.copytree(folders["base"], tmp_path / "base")
    shutil.copy(tmp_path / "t.jinja", base / "chat_template.jinja")
    load(settings(base, **told)).policy.save(tmp_path / "policy")
    del told["model.chat_template"]
    loaded = load(settings(tmp_path / "policy", reference__model=str(base), **told))
    assert loaded.policy.tokenizer.chat_template.count("is not defined") == 1


def test_a_reference_that_sees_fewer_tokens_is_refused(folders, tiny_gpt):
    assert "sees 64 tokens, and the policy any number" in _refused(folders["base"], tiny_gpt)


def test_a_reference_that_is_nowhere_is_refused_by_its_setting(folders, tmp_path):
    assert "no such folder" in _refused(folders["base"], tmp_path / "gone")
