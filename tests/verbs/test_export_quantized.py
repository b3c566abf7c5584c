"""What leaves a run on a base model in four bits: the adapter with its word, the numbers trained on, or a told loss."""

from __future__ import annotations

import json

import pytest
import torch
from peft import AutoPeftModelForCausalLM
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

import families
import tiebreak
from tiebreak.data.preparation import render_side
from tiebreak.engine.beside import FILE
from tiebreak.engine.quantization import layers_of, settle
from tiebreak.errors import ConfigError, ExportError
from tiebreak.training.trained import heldout_pairs, load_trained
from tiebreak.verbs.export import export
from tiny import drawn_pairs, load, scores, settings

pytest.importorskip("bitsandbytes", reason="bitsandbytes, an extra, is not installed")


@pytest.fixture(scope="module")
def base(tmp_path_factory, tokenizer):
    """A Llama of two layers whose rows are whole blocks."""
    folder = tmp_path_factory.mktemp("four_bits") / "llama"
    sizes = {"hidden_size": 64, "intermediate_size": 128, "max_position_embeddings": 256, "vocab_size": len(tokenizer)}
    families.raw("llama", **families.DECODER | sizes).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=["lora", "dora"])
def trained(request, base, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    config = settings(
        base,
        quantization="nf4",
        adapter__dora=request.param == "dora",
        data__train=drawn_pairs(folder),
        data__heldout_share=0.3,
        evaluation__num_samples=0,
        evaluation__probes=0,
        output__trackers=[],
        training__learning_rate=1e-2,
        training__epochs=2,
        output__dir=str(folder / "run"),
    )
    return tiebreak.train(config, quiet=True)


@pytest.fixture(scope="module")
def loaded(trained):
    return load_trained(trained)


def _scored(network, loaded, run):
    pairs = render_side(heldout_pairs(run).judged, loaded.policy.renderer(run.config.data))[0].tokenized
    with torch.no_grad():
        return tuple(scores(loaded.policy if network is None else loaded.policy.with_network(network), pairs).chosen)


def test_a_run_knows_again_on_what_it_was_trained(trained, loaded, base):
    assert layers_of(loaded.policy.network)
    told = trained.manifest["quantization"]
    assert (told["kind"], told["double"], told["library"].split()[0]) == ("nf4", True, "bitsandbytes")
    assert trained.manifest["reference"].endswith("in nf4, doubly, adapter switched off")
    assert f"sha256:{loaded.reference.weights}" == trained.manifest["reference_weights"]
    alone = load(settings(trained.policy_folder))  # by the name of the folder alone, as a judge or a next stage
    assert alone.policy.digest() == loaded.policy.digest()


def test_it_is_evaluated_and_talked_to_as_it_was_trained(trained):
    found = tiebreak.evaluate(trained, quiet=True)
    assert found["num_heldout_pairs"] == len(heldout_pairs(trained).judged)
    assert isinstance(tiebreak.chat(trained, max_new_tokens=3, quiet=True).ask("the cat"), str)


def test_the_adapter_is_the_default_and_says_how_its_base_lay(trained, loaded, tmp_path):
    made = export(trained, loaded, tmp_path / "out")
    assert (made.form, made.quantization) == ("adapter", "nf4, doubly")
    assert made.max_logps_difference <= made.tolerance
    told = BitsAndBytesConfig.from_dict(json.loads((tmp_path / "out" / FILE).read_text()))
    network = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "out", quantization_config=told, dtype=torch.float32)
    # What a processor with AVX512-BF16 would round is switched off, as in training.
    network = settle(network, "out", None, torch.float32).eval()
    assert torch.allclose(
        torch.stack(_scored(network, loaded, trained)), torch.stack(_scored(None, loaded, trained)), rtol=1e-5
    )
    card = (tmp_path / "out" / "README.md").read_text()
    assert "Trained on the base model in four bits (bitsandbytes, nf4, doubly), as `quantization_config.json`" in card
    assert "BitsAndBytesConfig.from_dict" in card
    assert json.loads((tmp_path / "out" / "tiebreak.json").read_text())["artefact"]["quantization"] == "nf4, doubly"


def test_merged_weights_are_the_numbers_that_were_trained_on_and_need_no_library(trained, loaded, tmp_path):
    made = export(trained, loaded, tmp_path / "out", "merged")
    assert made.max_logps_difference <= made.tolerance
    assert "quantization_config" not in json.loads((tmp_path / "out" / "config.json").read_text())
    network = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32).eval()
    found, wanted = (torch.stack(_scored(one, loaded, trained)) for one in (network, None))
    assert torch.allclose(found, wanted, atol=made.tolerance)
    assert "these weights are the numbers that the four bits stand for" in (tmp_path / "out" / "README.md").read_text()
    assert layers_of(loaded.policy.network)  # the policy itself stays as it is


def test_on_the_base_as_it_is_the_difference_is_told_and_refused_unless_it_is_named(trained, loaded, tmp_path):
    with pytest.raises(ExportError, match=r"is off by .* nats, more than .* --accept difference writes this"):
        export(trained, loaded, tmp_path / "out", onto="original")
    assert not (tmp_path / "out").exists()
    made = export(trained, loaded, tmp_path / "out", onto="original", accept=["difference"])
    assert made.max_logps_difference > made.tolerance
    network = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32).eval()
    found, wanted = (torch.stack(_scored(one, loaded, trained)) for one in (network, None))
    assert float((found - wanted).abs().max()) > made.tolerance
    assert "which is another model than the measured one" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"form": "adapter", "onto": "original"}, "an adapter alone is added to nothing"),
        ({"accept": ["everything"]}, "--accept everything: wanted difference"),
    ],
)
def test_what_makes_no_sense_is_refused(given, told, trained, loaded, tmp_path):
    with pytest.raises(ConfigError, match=told):
        export(trained, loaded, tmp_path / "out", **given)
