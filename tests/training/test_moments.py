"""A run that goes on with the moments of another one: the same steps as if they had been taken in one run."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from torch.optim.optimizer import register_optimizer_step_post_hook

from tiebreak.config import load_config
from tiebreak.errors import RunError
from tiebreak.fingerprint import file_digest
from tiebreak.training.moments import moments_digest, moments_of
from tiebreak.verbs import train
from tiny import load, same, settings

WORDS = ["the", "cat", "sat", "on", "mat", "and", "dog", "ran", "to", "park"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with the pairs of two steps, together and apart, and held-out ones."""
    monkeypatch.chdir(tmp_path)
    rows = [
        {"prompt": f"{a} {b}", "chosen": f"yes {b}", "rejected": f"no {a} {b}"} for a in WORDS[:4] for b in WORDS[4:]
    ]
    for name, some in (("one", rows[:6]), ("two", rows[6:12]), ("both", rows[:12]), ("held", rows[12:16])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    return tmp_path


def _config(model, name, kind="lora", data=None, **changes):
    given = {
        "model.name": str(model),
        "model.device": "cpu",
        "adapter.kind": kind,
        "adapter.rank": 4,
        "data.train": f"{data or name}.jsonl",
        "data.heldout": "held.jsonl",
        "evaluation.num_samples": 0,
        "evaluation.num_draws": 0,
        "evaluation.neutral_probe": False,
        "evaluation.probes": 0,
        "signals.looks": 0,
        "training.pairs_per_step": 6,
        "training.shuffle": False,
        "training.schedule": "constant",
        "training.warmup_share": 0.0,
        "training.learning_rate": 5e-3,
        "training.token_budget": 256,
        "output.dir": f"runs/{name}",
        "output.trackers": [],
    }
    return load_config(None, given | changes)


def _weights(run):
    return load_file(next(run.policy_folder.glob("*.safetensors")))


def _after(first, model, kind="lora", name="two", moments=True, **changes):
    """Settings of a run that goes on where another one ended, against the first model."""
    more = {"training.moments_from": str(first.path)} if moments else {}
    return _config(first.policy_folder, name, kind, "two", **more | {"reference.model": str(model)} | changes)


@pytest.mark.parametrize("kind", ["lora", "none"])
def test_two_runs_of_one_step_each_with_kept_moments_are_one_run_of_two_steps(kind, tiny_model, here):
    both = train.train(_config(tiny_model, "both", kind))
    first = train.train(_config(tiny_model, "one", kind))
    second = train.train(_after(first, tiny_model, kind))
    assert [run.manifest["num_steps_done"] for run in (both, first, second)] == [2, 1, 1]
    assert same(_weights(second), _weights(both))
    assert moments_digest(str(second.path)) == moments_digest(str(both.path))  # step counts included
    afresh = train.train(_after(first, tiny_model, kind, "afresh", moments=False))
    assert not same(_weights(afresh), _weights(both))
    kept = first.checkpoints_folder / "step-00000001" / "optimizer.safetensors"
    assert second.manifest["moments_from"] == {"step": 1, "sha256": file_digest(kept)}
    assert afresh.manifest["moments_from"] is None


def _cut_off(config, at):
    """Train until a step is taken, and end as if killed."""
    taken = []

    def killed(*_):
        taken.append(None)
        if len(taken) == at:
            raise SystemError("as if killed")

    hook = register_optimizer_step_post_hook(killed)
    with pytest.raises(SystemError):
        train.train(config)
    hook.remove()


@pytest.mark.parametrize("at", [1, 2])
def test_an_attempt_that_goes_on_takes_its_own_moments_and_one_that_starts_anew_the_other_run_s(at, tiny_model, here):
    first = train.train(_config(tiny_model, "one"))
    more = {"training.epochs": 3, "training.checkpoint_steps": 1}
    whole = train.train(_after(first, tiny_model, name="whole", **more))
    config = _after(first, tiny_model, **more)
    _cut_off(config, at)
    if at == 2:  # it has a checkpoint: nothing of the other run is looked at any more
        shutil.rmtree(first.checkpoints_folder)
    run = train.train(config)
    assert same(_weights(run), _weights(whole))
    assert run.manifest["moments_from"] == whole.manifest["moments_from"]
    finished = run.manifest["finished"]
    assert train.train(config).manifest["finished"] == finished
    if at == 2:
        run.update_manifest(status="interrupted")
        shutil.rmtree(run.policy_folder)
        with pytest.raises(RunError, match=r"training.moments_from .*one: holds no whole checkpoint of its step 1"):
            train.train(config, resume="never")


def test_a_finished_run_is_another_one_with_the_moments_of_another_run(tiny_model, here):
    first = train.train(_config(tiny_model, "one"))
    train.train(_after(first, tiny_model))
    other = train.train(_config(tiny_model, "one", **{"output.dir": "elsewhere/one", "training.seed": 3}))
    again = _after(first, tiny_model, **{"training.moments_from": str(other.path)})
    with pytest.raises(RunError, match=r"finished run with other settings \(training.moments_from\)"):
        train.train(again)


@pytest.mark.parametrize(
    ("kind", "changes", "told"),
    [
        ("lora", {"adapter.rank": 2}, r"lora_A.default.weight: \[4, 48\] there and \[2, 48\] here"),
        ("lora", {"adapter.target_modules": ["q_proj"]}, r"\(24 differ, .* there and none here\)"),
        ("none", {}, r"\(49 differ, .* there and none here\)"),
    ],
)
def test_moments_of_other_tensors_are_refused_in_one_line(kind, changes, told, tiny_model, here):
    first = train.train(_config(tiny_model, "one"))
    config = _config(tiny_model, "two", kind, **changes | {"training.moments_from": str(first.path)})
    with pytest.raises(RunError, match=told) as caught:
        train.train(config)
    assert str(caught.value).startswith("training.moments_from") and "\n" not in str(caught.value)
    assert not (here / "runs" / "two" / "run.json").exists()


def test_moments_of_what_is_no_finished_run_are_refused_by_the_setting(tiny_model, here):
    policy = load(settings(tiny_model)).policy
    with pytest.raises(RunError, match=r"^training\.moments_from "):
        moments_of(str(here), policy)
    assert moments_digest(str(here)) is None


def test_moments_belong_to_the_weights_that_became_the_policy(tiny_model, here):
    run = train.train(_config(tiny_model, "both", **{"training.checkpoint_steps": 1}))
    policy = load(settings(tiny_model, **{"adapter.rank": 4})).policy
    assert moments_of(str(run.path), policy).step == 2
    run.update_manifest(artefact_step=1)
    found = moments_of(str(run.path), policy)
    assert found.step == 1
    assert {float(value) for key, value in found.tensors.items() if key.endswith(".step")} == {1.0}
    assert torch.isfinite(torch.cat([value.flatten() for value in found.tensors.values()])).all()
