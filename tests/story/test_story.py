"""The whole road in one go: a file of pairs becomes an exported model that is what it claims to be."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

import tiebreak
from tiebreak.data.split import split
from tiebreak.errors import ConfigError, RunError
from tiebreak.records import Message, Pair

WORDS = ("cat", "dog", "mat", "park", "sun", "tree", "road", "lake", "bird", "fish", "stone", "cloud")
SHARE = 0.3


def _write_pairs(path: Path, *, num_prompts: int = 160, shuffled: bool = False) -> Path:
    """Pairs whose chosen side says yes and whose rejected side says no; `shuffled` flips half of either split.

    Exactly half, so that there is nothing to be learned, not even which label happened to be more frequent.
    """
    source = random.Random(0)
    pairs = []
    for index in range(num_prompts):
        prompt = Message("user", f"{index} is the {' '.join(source.choices(WORDS, k=3))} here")
        sides = [Message("assistant", f"{word} the {source.choice(WORDS)}") for word in ("yes", "no")]
        pairs.append(Pair((prompt,), *sides))
    if shuffled:
        pairs = [_flipped(pair) if i % 2 else pair for side in split(pairs, SHARE) for i, pair in enumerate(side)]
    path.write_text("".join(json.dumps(pair.as_openai()) + "\n" for pair in pairs), encoding="utf-8")
    return path


def _flipped(pair: Pair) -> Pair:
    return Pair(pair.prompt, pair.rejected, pair.chosen)


def _settings(tiny_model: Path, pairs: Path, out: Path, **more: object) -> dict[str, object]:
    return {
        "model.name": str(tiny_model),
        "data.train": str(pairs),
        "data.heldout_share": SHARE,
        "training.learning_rate": 5e-3,
        "training.epochs": 2,
        "adapter.rank": 4,
        "evaluation.num_samples": 64,
        "evaluation.max_new_tokens": 8,
        "evaluation.rule": {"name": "says yes", "pattern": "yes"},
        # Forty-eight answers of eight tokens cannot tell five points of repetition from none.
        "gate.rules.repetition.margin": 0.15,
        # Weights drawn by chance know no text that they could forget.
        "evaluation.neutral_probe": False,
        "evaluation.num_draws": 0,
        "output.dir": str(out),
        "output.trackers": [],
        **more,
    }


@pytest.fixture(scope="module")
def planted(tiny_model, tmp_path_factory) -> tiebreak.Run:
    folder = tmp_path_factory.mktemp("story")
    config = folder / "story.yaml"
    config.write_text("adapter: {kind: lora}\n")
    settings = _settings(tiny_model, _write_pairs(folder / "pairs.jsonl"), folder / "run")
    return tiebreak.train(config, settings, quiet=True)


def test_a_planted_preference_passes_and_every_file_is_there(planted):
    assert planted.verdict == "pass"
    assert planted.evaluation["accuracy"]["low"] > 0.5
    assert {check["verdict"] for check in planted.evaluation["checks"]} == {"pass"}
    # What the doctor said at the start is heard at the end.
    assert "the doctor warned of a shortcut" in planted.evaluation["reason"]
    assert planted.manifest["status"] == "done"
    for name in ("config.yaml", "data.json", "metrics.jsonl", "evidence.jsonl", "samples.jsonl", "report.html"):
        assert (planted.path / name).stat().st_size > 0, name
    data = planted.data
    assert data["num_records"] == data["num_train_pairs"] + data["num_heldout_pairs"] + data["num_dropped"]
    first = planted.metrics[1]
    assert first["step"] == 1
    assert first["loss"] == pytest.approx(0.693147, abs=1e-6)
    assert first["rewards/margins"] == pytest.approx(0, abs=1e-6)


def test_shuffled_labels_do_not_pass(tiny_model, tmp_path):
    pairs = _write_pairs(tmp_path / "pairs.jsonl", shuffled=True)
    run = tiebreak.train(None, _settings(tiny_model, pairs, tmp_path / "run"), quiet=True)
    assert run.verdict != "pass"


def test_the_same_settings_give_the_same_adapter_bit_for_bit(planted, tmp_path):
    again = tiebreak.train(
        planted.config.model_copy(
            update={"output": planted.config.output.model_copy(update={"dir": str(tmp_path / "b")})}
        ),
        quiet=True,
    )
    weights = "policy/adapter_model.safetensors"
    assert (again.path / weights).read_bytes() == (planted.path / weights).read_bytes()


def test_a_done_run_is_not_done_twice_and_not_overwritten_by_another(planted):
    before = (planted.path / "run.json").read_bytes()
    assert tiebreak.train(planted.config, quiet=True).path == planted.path
    assert (planted.path / "run.json").read_bytes() == before
    other = planted.config.model_copy(update={"training": planted.config.training.model_copy(update={"seed": 1})})
    with pytest.raises(RunError, match=r"training\.seed"):
        tiebreak.train(other, quiet=True)


def test_a_done_run_keeps_its_verdict_where_the_rules_changed_and_says_so(planted, capsys):
    gate = planted.config.gate.model_copy(update={"min_prompts": 1000})
    again = tiebreak.train(planted.config.model_copy(update={"gate": gate}))
    assert (again.path, again.verdict) == (planted.path, "pass")
    assert "the rules of gate have changed since" in " ".join(capsys.readouterr().err.split())


def test_a_done_run_notices_that_its_data_changed(tiny_model, tmp_path):
    pairs = _write_pairs(tmp_path / "pairs.jsonl", num_prompts=40)
    settings = _settings(tiny_model, pairs, tmp_path / "run", **{"training.epochs": 1, "evaluation.num_samples": 0})
    tiebreak.train(None, settings, quiet=True)
    _write_pairs(pairs, num_prompts=41)
    with pytest.raises(RunError, match="has changed since this run"):
        tiebreak.train(None, settings, quiet=True)


def test_an_unfinished_run_goes_on_or_is_moved_aside_and_kept(planted, tiny_model, tmp_path):
    pairs = _write_pairs(tmp_path / "pairs.jsonl", num_prompts=40)
    settings = _settings(tiny_model, pairs, tmp_path / "run", **{"training.epochs": 1, "evaluation.num_samples": 0})
    run = tiebreak.train(None, settings, quiet=True)
    weights, metrics = (run.path / "policy" / "adapter_model.safetensors").read_bytes(), run.metrics
    run.update_manifest(status="running")
    again = tiebreak.train(None, settings, quiet=True)
    assert (again.manifest["status"], again.manifest["num_attempts"]) == ("done", 2)
    assert (run.path / "policy" / "adapter_model.safetensors").read_bytes() == weights
    assert again.metrics == metrics
    run.update_manifest(status="running")
    afresh = tiebreak.train(None, settings, resume="never", quiet=True)
    assert afresh.manifest["num_attempts"] == 1
    assert (tmp_path / "run.unfinished-1" / "metrics.jsonl").exists()


def test_an_attempt_whose_settings_changed_is_refused_unless_that_is_accepted(planted, tiny_model, tmp_path):
    pairs = _write_pairs(tmp_path / "pairs.jsonl", num_prompts=40)
    settings = _settings(tiny_model, pairs, tmp_path / "run", **{"training.epochs": 1, "evaluation.num_samples": 0})
    tiebreak.train(None, settings, quiet=True).update_manifest(status="running")
    slower = settings | {"training.learning_rate": 1e-5}
    with pytest.raises(RunError, match=r"the configuration \(training\.learning_rate\) changed .* --accept config"):
        tiebreak.train(None, slower, quiet=True)
    _write_pairs(pairs, num_prompts=41)
    with pytest.raises(RunError, match=r"the data changed since this attempt began"):
        tiebreak.train(None, settings, quiet=True)
    again = tiebreak.train(None, slower, accept=["config", "data"], quiet=True)
    assert again.manifest["accepted"] == ["config", "data"]
    with pytest.raises(ConfigError, match=r"--accept cofnig: wanted one of config.*Did you mean 'config'"):
        tiebreak.train(None, slower, accept=["cofnig"], quiet=True)


def test_evaluating_again_gives_the_same_numbers_and_other_pairs_can_be_measured(planted, tmp_path):
    before = planted.evaluation
    assert tiebreak.evaluate(planted, quiet=True) == before
    flipped = tmp_path / "flipped.jsonl"
    rows = [json.loads(line) for line in (planted.path / "heldout_pairs.jsonl").read_text().splitlines()]
    for row in rows:
        row["preferred_output"], row["non_preferred_output"] = row["non_preferred_output"], row["preferred_output"]
    flipped.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = tiebreak.evaluate(planted, data=str(flipped), quiet=True)
    assert found["accuracy"]["mean"] == pytest.approx(1 - before["accuracy"]["mean"])
    assert found["verdict"] == "fail"
    assert planted.evaluation == before


def test_the_gate_decides_again_without_a_model_and_what_is_overridden_is_written_everywhere(planted, tmp_path):
    run = tiebreak.Run(shutil.copytree(planted.path, tmp_path / "run"))
    assert tiebreak.gate(run).as_dict()["reason"] == run.evaluation["reason"]
    strict = {"gate.rules.repetition.margin": 0.0}
    assert tiebreak.gate(run, strict).verdict == "inconclusive"
    assert run.verdict == "pass"  # nothing was written
    reason = {"gate.overrides.repetition": "eight tokens are few"}
    with pytest.raises(ConfigError, match="a run keeps its own rules"):
        tiebreak.gate(run, strict | reason, record=True)
    config = yaml.safe_load(run.config_file.read_text())
    config["gate"]["rules"]["repetition"]["margin"] = 0.0
    run.config_file.write_text(yaml.safe_dump(config))
    with pytest.raises(RunError, match=r"config\.yaml: is not what was written"):
        tiebreak.gate(run, reason, record=True)
    decision = tiebreak.gate(run, reason, record=True, accept=["config"])
    assert decision.verdict == run.verdict == "pass"
    assert run.manifest["overridden"] == {"repetition": "eight tokens are few"}
    tiebreak.export(run, tmp_path / "model", quiet=True)
    for text in (run.report_file.read_text(), (tmp_path / "model" / "README.md").read_text()):
        assert "overridden: eight tokens are few" in text
        assert "repetition is overridden (eight tokens are few)" in text


@pytest.mark.parametrize("form", ["merged", "adapter"])
def test_the_export_answers_as_the_trained_model_does(planted, tmp_path, form):
    import peft
    import transformers

    made = tiebreak.export(planted, tmp_path / form, form, quiet=True)
    assert made.max_logps_difference <= made.tolerance
    kind = peft.AutoPeftModelForCausalLM if form == "adapter" else transformers.AutoModelForCausalLM
    model = kind.from_pretrained(tmp_path / form)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / form)
    question = "5 is the cat here"
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    with torch.no_grad():
        answered = model.generate(**ids, max_new_tokens=8, do_sample=False)[0, ids["input_ids"].shape[1] :]
    plain = tokenizer.decode(answered, skip_special_tokens=True)
    assert plain == tiebreak.chat(planted, max_new_tokens=8).ask(question)
    assert "Verdict: pass" in (tmp_path / form / "README.md").read_text()


def test_full_fine_tuning_takes_the_same_road(tiny_model, tmp_path):
    pairs = _write_pairs(tmp_path / "pairs.jsonl")
    run = tiebreak.train(None, _settings(tiny_model, pairs, tmp_path / "run", adapter="none"), quiet=True)
    assert run.verdict == "pass"
    assert "frozen copy" in run.manifest["reference"]
    made = tiebreak.export(run, tmp_path / "out", quiet=True)
    assert made.form == "merged"
    assert made.max_logps_difference <= made.tolerance
    assert tiebreak.evaluate(run, quiet=True)["accuracy"] == run.evaluation["accuracy"]


def test_training_goes_on_from_an_adapter_with_that_adapter_as_reference(planted, tmp_path):
    pairs = _write_pairs(tmp_path / "pairs.jsonl")
    adapter = tmp_path / "sft"
    tiebreak.export(planted, adapter, "adapter", quiet=True)
    settings = _settings(adapter, pairs, tmp_path / "run", **{"training.epochs": 1})
    run = tiebreak.train(None, settings, quiet=True)
    assert "adapter as it was at the start" in run.manifest["reference"]
    assert run.metrics[1]["loss"] == pytest.approx(0.693147, abs=1e-5)
    # Measured later, the run still knows what it started from.
    again = tiebreak.evaluate(run, quiet=True)
    assert again["table"][1]["after"]["mean"] == pytest.approx(run.evaluation["table"][1]["after"]["mean"], abs=1e-6)


def test_pairs_whose_prompt_was_trained_on_are_counted_and_not_measured(planted, tmp_path):
    pairs = _write_pairs(tmp_path / "pairs.jsonl")
    found = tiebreak.evaluate(planted, data=str(pairs), quiet=True)
    assert found["data"]["num_records"] == 160
    assert found["data"]["dropped_by_reason"] == {"trained_prompt": planted.data["num_train_pairs"]}
    assert found["num_heldout_pairs"] == planted.data["num_heldout_pairs"]
    assert found["accuracy"] == planted.evaluation["accuracy"]
    # A blank that nobody sees does not make it another prompt.
    pairs.write_text(pairs.read_text().replace(" here", " here\\n"))
    found = tiebreak.evaluate(planted, data=str(pairs), quiet=True)
    assert found["data"]["dropped_by_reason"] == {"trained_prompt": planted.data["num_train_pairs"]}


@pytest.fixture
def small(tiny_model, tmp_path) -> tiebreak.Run:
    """A quick run on its own copy of the model."""
    model = shutil.copytree(tiny_model, tmp_path / "model")
    pairs = _write_pairs(tmp_path / "pairs.jsonl", num_prompts=40)
    settings = _settings(model, pairs, tmp_path / "run", **{"training.epochs": 1, "evaluation.num_samples": 0})
    return tiebreak.train(None, settings, quiet=True)


def test_a_base_model_that_changed_after_training_is_noticed(small, tmp_path):
    weights = tmp_path / "model" / "model.safetensors"
    tensors = load_file(weights)
    save_file({name: tensor + 0.01 for name, tensor in tensors.items()}, weights, metadata={"format": "pt"})
    for verb in (
        lambda: tiebreak.evaluate(small, quiet=True),
        lambda: tiebreak.export(small, tmp_path / "out", quiet=True),
    ):
        with pytest.raises(RunError, match="was trained on the base model"):
            verb()


def test_a_run_cut_off_after_training_is_completed_by_evaluating_it(small, tmp_path):
    before = small.evaluation
    for name in ("evaluation.json", "evidence.jsonl", "report.html"):
        (small.path / name).unlink()
    small.update_manifest(status="failed", error="cut off")
    with pytest.raises(RunError, match=r"'tiebreak evaluate .*' makes it"):
        tiebreak.export(small, tmp_path / "out", quiet=True)
    assert tiebreak.evaluate(small, quiet=True) == before
    assert small.manifest["status"] == "done"
    assert (small.path / "report.html").exists()
    assert tiebreak.export(small, tmp_path / "out", quiet=True).form == "merged"


def test_a_configuration_made_in_python_runs_once_and_is_then_done(tiny_model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _write_pairs(tmp_path / "pairs.jsonl", num_prompts=40)
    config = tiebreak.Config.model_validate(
        {
            "model": {"name": str(tiny_model)},
            "data": {"train": "pairs.jsonl", "heldout_share": SHARE},
            "evaluation": {"num_samples": 0},
            "output": {"trackers": []},
        }
    )
    run = tiebreak.train(config, quiet=True)
    assert run.path == Path("runs/default")
    finished = run.manifest["finished"]
    assert tiebreak.train(config, quiet=True).manifest["finished"] == finished
