from __future__ import annotations

import json
import random
import shutil
from dataclasses import replace
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tiebreak import files
from tiebreak.data.preparation import render_side
from tiebreak.data.whole import read_pairs
from tiebreak.engine import products
from tiebreak.engine.artefact import load_artefact
from tiebreak.engine.scorer import PlainScorer
from tiebreak.errors import ConfigError, ExportError
from tiebreak.fingerprint import file_digest
from tiebreak.progress import Silent
from tiebreak.runs import Run
from tiebreak.training.trained import NUM_CHECKED_PAIRS, load_trained
from tiebreak.verbs import train
from tiebreak.verbs.export import _held, _sweep, export
from tiny import PAD, load, same, settings, unsealed, weights


class Heard(Silent):
    """Remembers what it is told."""

    def __init__(self):
        self.sentences = []

    def say(self, text):
        self.sentences.append(text)


WORDS = ["the", "cat", "sat", "on", "mat", "and", "dog", "ran", "to", "park", "user"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Pairs of a few words: the chosen completion says yes, the rejected one no."""
    draw, path = random.Random(0), tmp_path_factory.mktemp("data") / "pairs.jsonl"
    rows = []
    for _ in range(40):
        prompt, tail = (" ".join(draw.choices(WORDS, k=draw.randint(2, 6))) for _ in range(2))
        rows.append({"prompt": prompt, "chosen": f"yes {tail}", "rejected": f"no {tail}"})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module", params=["lora", "none", "adapter", "adapter merged"])
def trained(request, tiny_model, tiny_adapter, data, tmp_path_factory):
    """A finished run of each kind."""
    model = tiny_adapter if "adapter" in request.param else tiny_model
    config = settings(
        model,
        "none" if request.param in ("none", "adapter merged") else "lora",
        data__train=str(data),
        data__heldout_share=0.3,
        training__learning_rate=5e-3,
        evaluation__num_samples=0,
        evaluation__probes=0,
        output__dir=str(tmp_path_factory.mktemp("runs") / "run"),
        output__trackers=[],
    )
    return train.train(config)


@pytest.fixture(scope="module")
def loaded(trained):
    return load_trained(trained)


def _logps(network, policy, run):
    pairs = read_pairs(run.path / "heldout_pairs.jsonl").pairs
    side, _ = render_side(pairs, policy.renderer(run.config.data))
    scorer = PlainScorer(network.eval(), pad_id=PAD, device=torch.device("cpu"), dtype=torch.float32)
    with torch.no_grad():
        return scorer.tokens(side.tokenized).summed().sums


def test_a_merged_artefact_is_the_trained_model_to_plain_transformers(trained, loaded, tmp_path):
    artefact = export(trained, loaded, tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    ours = _logps(loaded.policy.network, loaded.policy, trained)
    assert artefact.form == "merged"
    assert not isinstance(model, peft.PeftModel)
    assert _logps(model, loaded.policy, trained).tolist() == pytest.approx(ours.tolist(), abs=1e-3)
    with loaded.reference.model() as reference:
        before = _logps(reference.network, loaded.policy, trained)
    assert (ours - before).abs().max() > 0.1
    assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template == loaded.policy.tokenizer.chat_template


def test_an_adapter_artefact_is_the_trained_model_to_plain_peft(trained, loaded, tmp_path, monkeypatch):
    if not loaded.policy.is_adapter:
        with pytest.raises(ConfigError, match="has no adapter; use merged"):
            export(trained, loaded, tmp_path / "out", "adapter")
        assert not (tmp_path / "out").exists()
        return
    # Equal to the bit by the same library of products: a stranger's are always torch's own (docs/decisions/0015).
    monkeypatch.setattr(products, "onednn_is_faster", lambda *_: False)
    artefact = export(trained, loaded, tmp_path / "out", "adapter")
    model = peft.AutoPeftModelForCausalLM.from_pretrained(tmp_path / "out")
    assert artefact.form == "adapter"
    assert artefact.max_logps_difference < 1e-4  # of what training saw: cut otherwise, it has other last bits
    assert torch.equal(_logps(model, loaded.policy, trained), _logps(loaded.policy.network, loaded.policy, trained))
    assert not (tmp_path / "out" / "model.safetensors").exists()


def test_an_adapter_says_where_its_answers_end_where_its_base_does_not(trained, tmp_path):
    loaded, heard = load_trained(trained), Heard()
    if not loaded.policy.is_adapter:
        return
    ends = (*loaded.policy.eos_ids, 9)
    longer = replace(loaded, policy=replace(loaded.policy, eos_ids=ends))
    export(trained, longer, tmp_path / "out", "adapter", heard)
    [line] = [line for line in heard.sentences if "where answers end" in line]
    assert f"eos_token_id={[*ends]}" in line
    assert f"`eos_token_id={[*ends]}`" in (tmp_path / "out" / "README.md").read_text()


def test_exporting_leaves_policy_and_run_as_they_were(trained, loaded, tmp_path):
    state, trainable = weights(loaded.policy.network), [name for name, _ in loaded.policy.trainable]
    digests = {file: file_digest(file) for file in trained.path.rglob("*") if file.is_file()}
    export(trained, loaded, tmp_path / "out")
    assert same(weights(loaded.policy.network), state)
    assert [name for name, _ in loaded.policy.trainable] == trainable
    assert {file: file_digest(file) for file in trained.path.rglob("*") if file.is_file()} == digests


def test_an_artefact_says_what_it_is_made_of(trained, loaded, tmp_path):
    artefact = export(trained, loaded, tmp_path / "out")
    made_of = json.loads((tmp_path / "out" / "tiebreak.json").read_text())
    assert made_of["artefact"] == {key: value for key, value in artefact.as_dict().items() if key != "path"}
    assert made_of["run"]["data_fingerprint"] == trained.manifest["data_fingerprint"]
    for name, digest in made_of["files_sha256"].items():
        assert file_digest(tmp_path / "out" / name) == digest
    assert {"model.safetensors", "README.md", "tokenizer.json"} <= made_of["files_sha256"].keys()
    assert 0 < artefact.num_checked_pairs <= NUM_CHECKED_PAIRS
    assert artefact.max_logps_difference <= artefact.tolerance
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"Verdict: {trained.verdict}" in card
    assert "AutoModelForCausalLM" in card


@pytest.mark.parametrize("form", ["merged", "adapter"])
def test_an_artefact_says_no_place_of_this_machine_but_where_an_adapter_finds_its_base(trained, loaded, tmp_path, form):
    if form == "adapter" and not loaded.policy.is_adapter:
        return
    heard, base = Heard(), loaded.policy.source.base
    export(trained, loaded, tmp_path / "out", form, heard)
    places = (str(tmp_path), str(trained.path), str(Path(base).parent), str(Path(trained.config.data.train).parent))
    written = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    said = {name for name, content in written.items() if any(place.encode() in content for place in places)}
    assert said == ({"adapter_config.json"} if form == "adapter" else set())
    if form == "adapter":  # nobody could load it otherwise
        assert json.loads(written["adapter_config.json"])["base_model_name_or_path"] == base
        assert any("base_model_name_or_path has to say where it lies" in line for line in heard.sentences)


def test_a_folder_with_something_in_it_is_never_written_to(trained, loaded, tmp_path):
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(ConfigError, match="not an empty folder"):
        export(trained, loaded, tmp_path)
    with pytest.raises(ConfigError, match="not an empty folder"):
        export(trained, loaded, tmp_path / "note.txt")
    assert [file.name for file in tmp_path.iterdir()] == ["note.txt"]


def test_a_folder_that_cannot_be_replaced_is_refused_before_anything_is_written(trained, loaded, tmp_path, monkeypatch):
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(files, "whole_folder", pytest.fail)
    with pytest.raises(ConfigError, match="--out has no name, but an empty one"):
        export(trained, loaded, "")
    for out in (".", str(here), "../here"):
        with pytest.raises(ConfigError, match="the folder that this command runs in, which cannot be replaced"):
            export(trained, loaded, out)
    with pytest.raises(ConfigError, match="loop: is a link that leads to itself"):
        export(trained, loaded, tmp_path / "loop")
    with pytest.raises(ConfigError, match="file is a file; choose another"):
        export(trained, loaded, tmp_path / "file" / "out")
    (tmp_path / "mount").mkdir()
    monkeypatch.setattr(Path, "is_mount", lambda path: path.name == "mount")
    with pytest.raises(ConfigError, match="mount: is a mount point"):
        export(trained, loaded, tmp_path / "mount")


def test_a_link_stays_a_link_and_what_it_leads_to_holds_the_artefact(trained, loaded, tmp_path):
    (tmp_path / "empty").mkdir()
    for link, place in (("link", "empty"), ("ahead", "made")):
        (tmp_path / link).symlink_to(place)
        assert export(trained, loaded, tmp_path / link).path == str(tmp_path / link)
        assert (tmp_path / link).is_symlink()
        assert (tmp_path / place / "tiebreak.json").exists()


def test_what_killed_exports_left_is_removed_by_the_next_to_that_folder_alone(trained, loaded, tmp_path):
    ours, others = ".out.abc_de12", (".out.2.abc_de12", ".outer.abc_de12", ".out.notes", "x.out.abc_de12")
    for name in (ours, ".out.live5678", *others):
        (tmp_path / f"{name}{files.PART}").mkdir()
        (tmp_path / f"{name}{files.PART}" / "model.safetensors").write_bytes(b"half")
    (tmp_path / ".out.abc_de12").mkdir()
    with _held(tmp_path / f".out.live5678{files.PART}"):
        export(trained, loaded, tmp_path / "out")
    left = {".out.abc_de12", "out", *(f"{name}{files.PART}" for name in (".out.live5678", *others))}
    assert {path.name for path in tmp_path.iterdir()} == left


def test_a_folder_that_is_being_built_is_no_leftover(trained, loaded, tmp_path, monkeypatch):
    seen = []

    def meanwhile(folder, policy):
        _sweep(tmp_path / "out")  # as another export to the same folder does
        seen.append((folder / "model.safetensors").exists())
        return load_artefact(folder, policy)

    monkeypatch.setattr("tiebreak.verbs.export.load_artefact", meanwhile)
    export(trained, loaded, tmp_path / "out")
    assert seen == [True]


@pytest.mark.parametrize("damage", ["moved", "NaN", "NaN on one side"])
def test_a_corrupted_export_is_refused_and_not_left_behind(damage, trained, tmp_path):
    """What is loaded differs from what was trained; or, of a run that kept nothing of that, from what is written."""
    before = unsealed(Run(shutil.copytree(trained.path, tmp_path / "run")))
    for run, told in (
        (trained, r"its policy, loaded, differs by (nan|\d).* nats from what its training saw"),
        (before, r"not written: the reloaded (merged|adapter) model differs by (nan|\d)"),
    ):
        broken = load_trained(run)
        undo = _spoil(broken.policy, damage, run)
        with pytest.raises(ExportError, match=told):
            export(run, broken, tmp_path / "out")
        undo()
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def _spoil(policy, damage, run):
    """Make the policy in memory another one than its weights say; return how to undo it."""
    pairs = read_pairs(run.path / "heldout_pairs.jsonl").pairs[:NUM_CHECKED_PAIRS]
    side, _ = render_side(pairs, policy.renderer(run.config.data))
    marker = side.tokenized[0].rejected_ids[0]

    def hook(_module, inputs, output):
        if damage == "moved":
            return output * 1.01
        if damage == "NaN":
            return output * float("nan")
        return torch.where((inputs[0] == marker).unsqueeze(-1), float("nan"), output)

    assert not any(marker in pair.prompt_ids + pair.chosen_ids for pair in side.tokenized)
    # Only the live model has the hook: what is saved, and merged copies of it, are loaded anew without.
    handle = policy.network.get_input_embeddings().register_forward_hook(hook)
    return handle.remove


def test_a_narrow_adapter_policy_exports_too(tiny_model, data, tmp_path):
    config = settings(
        tiny_model,
        model__dtype="bfloat16",
        data__train=str(data),
        data__heldout_share=0.3,
        training__learning_rate=5e-3,
        evaluation__num_samples=0,
        evaluation__probes=0,
        output__dir=str(tmp_path / "run"),
        output__trackers=[],
    )
    run = train.train(config)
    loaded = load_trained(run)
    for form in ("adapter", "merged"):
        artefact = export(run, loaded, tmp_path / form, form)
        assert artefact.max_logps_difference <= artefact.tolerance


@pytest.fixture(scope="module")
def narrow_model(tmp_path_factory, tiny_model):
    """The tiny model as models are published: in bfloat16, but for one tensor that stays wide."""
    folder = shutil.copytree(tiny_model, tmp_path_factory.mktemp("narrow") / "model")
    wide = "model.norm.weight"
    tensors = load_file(folder / "model.safetensors")
    narrow = {name: t if name == wide else t.to(torch.bfloat16) for name, t in tensors.items()}
    save_file(narrow, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"dtype": "bfloat16"}))
    return folder


@pytest.mark.parametrize(
    ("kind", "rate", "kept"), [("lora", 2e-2, True), ("none", 5e-3, True), ("lora", 1e-7, False), ("none", 1e-9, False)]
)
def test_a_merged_artefact_has_the_dtype_of_its_base_or_says_why_not(kind, rate, kept, narrow_model, data, tmp_path):
    config = settings(
        narrow_model,
        kind,
        data__train=str(data),
        data__heldout_share=0.3,
        training__learning_rate=rate,
        evaluation__num_samples=0,
        evaluation__probes=0,
        output__dir=str(tmp_path / "run"),
        output__trackers=[],
    )
    run, heard = train.train(config), Heard()
    loaded = load_trained(run)
    before = weights(loaded.policy.network)
    artefact = export(run, loaded, tmp_path / "out", "merged", heard)
    assert same(weights(loaded.policy.network), before)
    base, written = (load_file(folder / "model.safetensors") for folder in (narrow_model, tmp_path / "out"))
    dtypes = {name: tensor.dtype for name, tensor in (base if kept else before).items()}
    if kept:
        assert {name: tensor.dtype for name, tensor in written.items()} == dtypes
        assert (tmp_path / "out" / "model.safetensors").stat().st_size < 0.6 * 4 * sum(map(torch.numel, base.values()))
    else:
        assert {tensor.dtype for tensor in written.values()} == {torch.float32}
    wanted = "bfloat16" if kept else "float32"
    assert artefact.dtype == json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == wanted
    assert artefact.max_logps_difference <= artefact.tolerance
    [line] = [line for line in heard.sentences if "its weights are" in line]
    assert line.startswith(
        "its weights are bfloat16, as those of its base model: log-probabilities moved"
        if kept
        else "its weights are float32, and not bfloat16 as those of its base model: that would move"
    )
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    ours = _logps(loaded.policy.network, loaded.policy, run)
    assert (_logps(again, loaded.policy, run) - ours).abs().max() <= artefact.tolerance + 1e-3


def test_weights_that_were_trained_narrower_than_their_base_are_told(tiny_model, data, tmp_path):
    config = settings(
        tiny_model,
        model__dtype="bfloat16",
        data__train=str(data),
        data__heldout_share=0.3,
        training__learning_rate=5e-3,
        evaluation__num_samples=0,
        evaluation__probes=0,
        output__dir=str(tmp_path / "run"),
        output__trackers=[],
    )
    run, heard = train.train(config), Heard()
    assert export(run, load_trained(run), tmp_path / "out", "merged", heard).dtype == "bfloat16"
    assert (
        "its weights are bfloat16, as they were trained, and not float32 as those of its base model" in heard.sentences
    )


def test_a_fresh_policy_reads_the_artefact_as_its_model(trained, loaded, tmp_path):
    export(trained, loaded, tmp_path / "out")
    again = load(settings(tmp_path / "out"))
    ours = _logps(loaded.policy.network, loaded.policy, trained)
    assert _logps(again.policy.network, loaded.policy, trained).tolist() == pytest.approx(ours.tolist(), abs=1e-3)
