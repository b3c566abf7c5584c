"""An adapter that cannot be added into its base model is told, and never becomes another model in silence."""

from __future__ import annotations

import json

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen3Config, Qwen3ForCausalLM

from tiebreak.engine import merging
from tiebreak.engine.loading import quietly
from tiebreak.errors import ConfigError, ModelError
from tiebreak.training.trained import load_trained
from tiebreak.verbs import train
from tiebreak.verbs.export import export
from tiny import load, said, scores, settings, token_pairs

PAIRS = token_pairs(4)


@pytest.fixture(scope="module")
def tied(tmp_path_factory, tokenizer):
    """A model whose head reads the weights of its embeddings."""
    folder = tmp_path_factory.mktemp("tied") / "qwen"
    config = Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, max_position_embeddings=256, initializer_range=0.2,
        eos_token_id=tokenizer.eos_token_id, tie_word_embeddings=True,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        Qwen3ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def adapter_on(base, folder, targets, **kind):
    with torch.random.fork_rng(devices=[]), quietly():
        made = peft.get_peft_model(
            AutoModelForCausalLM.from_pretrained(base),
            peft.LoraConfig(r=2, target_modules=targets, task_type="CAUSAL_LM", **kind),
        )
        for parameter in made.parameters():
            if parameter.requires_grad:
                torch.nn.init.normal_(parameter, std=0.2)
        made.save_pretrained(folder)
    return folder


UNMERGEABLE = {
    "the head": (["q_proj", "lm_head"], {}, "it is on lm_head alone, and these weights are also those of embed_tokens"),
    "the embeddings": (["q_proj", "embed_tokens"], {}, "on embed_tokens alone, and these weights are also .* lm_head"),
    "biases": (["q_proj"], {"lora_bias": True}, r"trains a bias \(lora_bias\) on q_proj, which has none"),
}


@pytest.mark.parametrize(("targets", "kind", "cause"), UNMERGEABLE.values(), ids=UNMERGEABLE)
def test_full_training_from_an_adapter_that_cannot_be_merged_is_refused_and_an_adapter_goes_on(
    tied, tmp_path, targets, kind, cause
):
    folder = adapter_on(tied, tmp_path, targets, **kind)
    with pytest.raises(ModelError, match=cause) as refusal:
        load(settings(folder, "none"))
    assert "adapter.kind lora" in str(refusal.value)
    assert "\n" not in str(refusal.value)
    heard = []
    loaded = load(settings(folder), say=heard.append)
    assert [line for line in heard if "--form adapter" in line and "cannot be merged" in line]
    assert scores(loaded.policy, PAIRS).chosen.tolist() == pytest.approx(said(loaded.reference, PAIRS).chosen.tolist())


def test_an_adapter_beside_tied_weights_is_merged_as_ever(tied, tmp_path):
    loaded = load(settings(adapter_on(tied, tmp_path, ["q_proj", "down_proj"]), "none"))
    adapted = load(settings(tmp_path))
    assert scores(loaded.policy, PAIRS).chosen.tolist() == pytest.approx(
        scores(adapted.policy, PAIRS).chosen.tolist(), rel=1e-5
    )
    assert adapted.policy.unmergeable is None


def test_whatever_else_a_merge_makes_another_model_of_is_refused(tied, tmp_path, monkeypatch):
    """The proof knows no cause: here a merge that loses what it merged."""
    folder = adapter_on(tied, tmp_path, ["q_proj"])
    monkeypatch.setattr(peft.PeftModel, "merge_and_unload", lambda model, **_: model.unload(), raising=False)
    with pytest.raises(ModelError, match="the merged model differs from the adapted one by"):
        merging.merged(
            peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tied), folder), "default", "a"
        )


@pytest.mark.parametrize("on", ["the head", "biases"])
def test_a_run_with_such_an_adapter_is_exported_as_an_adapter_alone(tied, tmp_path, on):
    targets, kind, cause = UNMERGEABLE[on]
    file = tmp_path / "pairs.jsonl"
    rows = ({"prompt": f"the cat {n}", "chosen": f"yes {n}", "rejected": f"no {n}"} for n in range(12))
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = settings(
        adapter_on(tied, tmp_path / "adapter", targets, **kind),
        data__train=str(file), data__heldout_share=0.3, evaluation__num_samples=0, evaluation__probes=0,
        output__dir=str(tmp_path / "run"), output__trackers=[],
    )  # fmt: skip
    run = train.train(config)
    loaded = load_trained(run)
    with pytest.raises(ConfigError, match=f"{cause}.*--form adapter") as refusal:
        export(run, loaded, tmp_path / "merged")
    assert "\n" not in str(refusal.value)
    artefact = export(run, loaded, tmp_path / "out", "adapter")
    assert artefact.max_logps_difference <= artefact.tolerance
