"""Runs whose policy and reference start from different models: what is proven at the start, kept, and found again."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch.optim.optimizer import register_optimizer_step_post_hook

import tiebreak
from tiebreak.config import load_config
from tiebreak.diagnosis.causes import diagnoses
from tiebreak.diagnosis.reading import signals_of
from tiebreak.errors import RunError, TiebreakError, TrainingError
from tiebreak.maths.objectives import Objective
from tiebreak.progress import Silent
from tiebreak.runs import Run
from tiebreak.training.start_check import Claim, check_start, claims_of
from tiebreak.training.trained import load_trained
from tiebreak.verbs import train
from tiebreak.verbs.export import export
from tiny import load, said, same, scores, settings, token_pairs

PAIRS = token_pairs(6)
WORDS = ["the", "cat", "sat", "on", "mat", "and", "dog", "ran", "to", "park", "user"]
KINDS = ["lora", "none"]


@pytest.fixture(scope="module")
def models(tiny_model, tiny_adapter, tmp_path_factory):
    """The first model, and what a round made of it: as an adapter, and with all weights."""
    whole = tmp_path_factory.mktemp("round") / "policy"
    load(settings(tiny_adapter, "none")).policy.save(whole)
    return {"first": {"lora": tiny_model, "none": tiny_model}, "previous": {"lora": tiny_adapter, "none": whole}}


# ------------------------------------------------------------------------------------------------------ the start check


class Heard(Silent):
    def __init__(self):
        self.said = []

    def say(self, text):
        self.said.append(text)


def _named(start, against, **more):
    """Settings of a run; a reference is named where it is another model than the start."""
    return settings(start, **({"reference__model": str(against)} if against != start else {}), **more)


def _checked(config, loaded=None, **more):
    """Check the start of what was loaded, by default by these settings, against what these settings say it is."""
    loaded = loaded or load(config)
    claims = claims_of(config.model, config.reference, load(config).policy, load(config).reference)
    heard, objective = Heard(), Objective.of(config.loss)
    check_start(loaded.policy, loaded.reference, objective, PAIRS, loaded.budget.cut, heard, claims=claims, **more)
    return heard.said


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("start", ["first", "previous"])
@pytest.mark.parametrize("against", ["first", "previous"])
def test_every_start_with_every_reference_is_proven_and_a_planted_swap_is_caught(start, against, kind, models):
    names = models[start][kind], models[against][kind]
    config = _named(*names, adapter=kind)
    lines = _checked(config)
    assert any("two models, each proven" in line for line in lines) is (start != against)
    other = {"first": "previous", "previous": "first"}
    swapped = load(_named(models[other[start]][kind], names[0], adapter=kind))
    with pytest.raises(TrainingError, match="swapped" if start != against else "policy and reference differ"):
        _checked(config, swapped)


@pytest.mark.parametrize("wrong", ["policy", "reference"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_one_that_is_another_model_is_named_and_the_other_is_not(wrong, kind, models, tmp_path):
    first, previous = models["first"][kind], models["previous"][kind]
    third = tmp_path / "third"
    loaded = load(settings(first, "none"))
    with torch.no_grad():
        for parameter in loaded.policy.network.parameters():
            parameter.mul_(1.05)
    loaded.policy.save(third)
    names = (third, first) if wrong == "policy" else (previous, third)
    with pytest.raises(TrainingError) as caught:
        _checked(_named(previous, first, adapter=kind), load(_named(*names, adapter=kind)))
    told = str(caught.value)
    assert f"the {wrong} is not what it is said to be" in told
    assert ("the policy is" in told, "the reference is" in told) == (wrong == "policy", wrong == "reference")
    assert "\n" not in told and "swapped" not in told


def test_two_models_that_differ_by_less_than_rounding_may_are_told_apart(tiny_model, tiny_adapter, tmp_path):
    near = shutil.copytree(tiny_adapter, tmp_path / "near")
    tensors = load_file(near / "adapter_model.safetensors")
    save_file({k: v * (1e-3 if "lora_B" in k else 1) for k, v in tensors.items()}, near / "adapter_model.safetensors")
    config = _named(near, tiny_model)
    apart = load(config)
    with torch.no_grad():
        assert (scores(apart.policy, PAIRS).chosen - said(apart.reference, PAIRS).chosen).abs().max() < 0.05
    _checked(config)
    with pytest.raises(TrainingError, match="they are swapped"):
        _checked(config, load(_named(tiny_model, near)))


def test_coarser_arithmetic_is_no_fault(tiny_model, tiny_adapter):
    for names in ((tiny_adapter, tiny_model), (tiny_model, tiny_adapter)):
        for kind in KINDS:
            _checked(_named(*names, adapter=kind, model__dtype="bfloat16"))


def test_an_objective_without_a_reference_is_measured_against_a_proven_one(tiny_model, tiny_adapter):
    config = _named(tiny_model, tiny_adapter, loss={"name": "simpo"})
    _checked(config)
    with pytest.raises(TrainingError, match="they are swapped"):
        _checked(config, load(_named(tiny_adapter, tiny_model, loss={"name": "simpo"})))


def test_weights_that_are_no_numbers_are_not_what_they_are_said_to_be(tiny_model, tiny_adapter):
    config = _named(tiny_model, tiny_adapter)
    loaded = load(config)
    right = claims_of(config.model, config.reference, loaded.policy, loaded.reference)
    with torch.no_grad():
        next(p for n, p in loaded.policy.network.named_parameters() if ".reference." in n).fill_(torch.nan)
    with pytest.raises(TrainingError, match="the reference is not what it is said to be"):
        check_start(
            loaded.policy, loaded.reference, Objective.of(config.loss), PAIRS, loaded.budget.cut, Silent(), claims=right
        )
    assert all(isinstance(claim, Claim) for claim in right)


# ----------------------------------------------------------------------------------------------------------- whole runs


@pytest.fixture
def project(tmp_path, models, tiny_adapter, tiny_model, monkeypatch):
    """A folder with both models in both forms, named from there, and pairs."""
    folder = tmp_path / "project"
    shutil.copytree(tiny_model, folder / "m" / "first")
    shutil.copytree(models["previous"]["none"], folder / "m" / "whole")
    shutil.copytree(tiny_adapter, folder / "m" / "adapter")
    told = folder / "m" / "adapter" / "adapter_config.json"
    told.write_text(json.dumps(json.loads(told.read_text()) | {"base_model_name_or_path": "m/first"}))
    rows = [{"prompt": f"{a} {b}", "chosen": f"yes {b}", "rejected": f"no {a}"} for a in WORDS[:4] for b in WORDS[5:10]]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.chdir(folder)
    (tmp_path / "elsewhere").mkdir()
    return folder


def _config(start, against, kind="lora", **changes):
    given = {
        "model.name": start,
        "model.device": "cpu",
        "reference.model": against,
        "reference.store": "off",
        "adapter.kind": kind,
        "adapter.rank": 4,
        "data.train": "pairs.jsonl",
        "data.heldout_share": 0.3,
        "evaluation.num_samples": 0,
        "evaluation.num_draws": 0,
        "evaluation.neutral_probe": False,
        "evaluation.probes": 1,
        "signals.looks": 0,
        "training.learning_rate": 5e-3,
        "training.token_budget": 256,
        "output.dir": "runs/my",
        "output.trackers": [],
    }
    return load_config(None, given | changes)


RUNS = [
    ("m/adapter", "m/first", "lora"),
    ("m/first", "m/adapter", "lora"),
    ("m/first", "m/whole", "lora"),
    ("m/whole", "m/adapter", "none"),
]


def _said(loaded):
    with torch.no_grad():
        return scores(loaded.policy, PAIRS).chosen, loaded.reference.logps(PAIRS).values


@pytest.mark.parametrize(("start", "against", "kind"), RUNS)
def test_a_run_is_cut_off_and_goes_on_is_moved_and_found_again_and_refuses_other_weights(
    start, against, kind, project, tmp_path, monkeypatch
):
    config = _config(start, against, kind, **{"training.checkpoint_steps": 1, "training.pairs_per_step": 5})
    whole = train.train(config.model_copy(update={"output": config.output.model_copy(update={"dir": "runs/whole"})}))
    taken = []

    def killed(*_):
        taken.append(None)
        if len(taken) == 2:
            raise SystemError("as if killed")

    hook = register_optimizer_step_post_hook(killed)
    with pytest.raises(SystemError):
        train.train(config)
    hook.remove()
    run = train.train(config)
    weights = "adapter_model.safetensors" if kind == "lora" else "model.safetensors"
    assert same(*(load_file(one.policy_folder / weights) for one in (whole, run)))
    # A loss that does not start at ln 2, and a gain before the first step, are no fault here.
    assert not [one for one in diagnoses(signals_of(run)) if one.cause == "wrong_reference"]
    manifest = run.manifest
    assert manifest["start_weights"] != manifest["reference_weights"]
    digests = {name: load(settings(project / name)).reference.weights for name in ("m/first", "m/whole", "m/adapter")}
    assert manifest["start_weights"] == f"sha256:{digests[start]}"
    assert manifest["reference_weights"] == f"sha256:{digests[against]}"
    expected = _said(load_trained(run))
    monkeypatch.chdir(tmp_path / "elsewhere")
    there = load_trained(Run(project / "runs" / "my"))
    assert all(map(torch.equal, _said(there), expected))
    export(Run(project / "runs" / "my"), there, tmp_path / "out")
    moved = project.rename(tmp_path / "moved")
    run = Run(moved / "runs" / "my")
    assert all(map(torch.equal, _said(load_trained(run)), expected))
    if not run.start_folder.is_dir():  # an adapter is kept, with a seal
        of = moved / against if against != "m/adapter" else moved / "m" / "adapter"
        told = next(of / name for name in ("adapter_config.json", "config.json") if (of / name).exists())
        key = "lora_alpha" if told.name.startswith("adapter") else "rms_norm_eps"
        told.write_text(json.dumps(json.loads(told.read_text()) | {key: 0.5}))
        with pytest.raises(RunError, match=r"was trained (against the reference|on the base model)"):
            load_trained(run)


def test_a_run_is_measured_again_as_it_was_and_against_others(project):
    run = train.train(_config("m/adapter", "m/first"))
    before = run.evaluation["table"]
    tiebreak.evaluate(run.path)
    assert run.evaluation["table"] == before
    again = tiebreak.evaluate(run.path, against="m/whole")
    assert again["against"] == "m/whole"


def test_a_finished_run_is_another_one_with_another_reference_and_the_same_wherever_it_lies(project, tmp_path):
    run = train.train(_config("m/adapter", "m/first"))
    finished = run.manifest["finished"]
    copied = shutil.copytree(project / "m" / "first", tmp_path / "renamed")
    assert train.train(_config("m/adapter", str(copied))).manifest["finished"] == finished
    for other in ("m/whole", None):
        with pytest.raises(RunError, match=r"finished run with other settings \(reference.model\)"):
            train.train(_config("m/adapter", other))


def test_an_attempt_goes_on_with_a_reference_that_was_renamed_and_not_with_another_one(project, tmp_path):
    run = train.train(_config("m/first", "m/whole"))
    shutil.rmtree(run.policy_folder)
    run.update_manifest(status="interrupted")
    renamed = shutil.copytree(project / "m" / "whole", tmp_path / "renamed")
    again = train.train(_config("m/first", str(renamed)))
    assert not again.manifest["accepted"]
    shutil.rmtree(run.policy_folder)
    run.update_manifest(status="interrupted")
    told = renamed / "config.json"
    told.write_text(json.dumps(json.loads(told.read_text()) | {"rms_norm_eps": 0.1}))
    for other in (str(renamed), "m/adapter", None):
        with pytest.raises(RunError, match=r"the reference .* is another one than when this attempt began"):
            train.train(_config("m/first", other), accept=["config", "model"])


def test_an_attempt_does_not_go_on_with_another_revision_of_its_reference_and_a_finished_run_is_of_one(project):
    run = train.train(_config("m/first", "m/whole"))
    other = _config("m/first", "m/whole", **{"reference.revision": "other"})
    with pytest.raises(RunError, match=r"finished run with other settings \(reference.revision\)"):
        train.train(other)
    run.update_manifest(status="interrupted")
    with pytest.raises(RunError, match=r"the reference .* is another one than when this attempt began"):
        train.train(other, accept=["config", "model"])


def test_a_run_whose_reference_has_a_base_is_found_again_where_that_is_now(project, tmp_path):
    told = project / "m" / "adapter" / "adapter_config.json"
    told.write_text(json.dumps(json.loads(told.read_text()) | {"base_model_name_or_path": "/no/such/folder"}))
    base = {"reference.base": str(project / "m" / "first")}
    run = train.train(_config("m/whole", "m/adapter", **base))
    expected = _said(load_trained(run))
    (project / "m" / "first").rename(tmp_path / "renamed")
    with pytest.raises(TiebreakError, match=r"reference\.base"):
        load_trained(run)
    written = yaml.safe_load(run.config_file.read_text())
    written["reference"]["base"] = str(tmp_path / "renamed")
    run.config_file.write_text(yaml.safe_dump(written))
    assert all(map(torch.equal, _said(load_trained(Run(run.path))), expected))


def test_prompts_that_the_reference_learned_from_are_not_held_out(project):
    first = train.train(_config("m/first", None, **{"output.dir": "runs/one"}))
    with pytest.raises(RunError, match="which made the reference"):
        train.train(
            _config("m/first", str(first.policy_folder), **{"data.heldout_share": 0.6, "output.dir": "runs/two"})
        )
