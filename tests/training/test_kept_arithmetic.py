"""A run goes on, and is measured, in the arithmetic that it began in, whatever the machine is fast in by then."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import pytest
import torch

from tiebreak.engine import arithmetic, models, placing, probes, products
from tiebreak.engine.model import Model
from tiebreak.engine.ranks import Alone
from tiebreak.errors import RunError
from tiebreak.progress import Silent
from tiebreak.runs import Run
from tiebreak.training.opening import made_ready
from tiebreak.training.trained import as_begun, load_trained
from tiebreak.verbs import train
from tiny import run_of_cats


@pytest.fixture(scope="module")
def ran(tiny_model, tmp_path_factory):
    """A run that computes in bfloat16, since its machine is fast in it."""
    folder = tmp_path_factory.mktemp("narrow")
    config = run_of_cats(tiny_model, folder, 12, evaluation__probes=0)
    said = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "dtype_of", lambda *_: torch.bfloat16)
        patch.setattr(probes, "_asked", {"oneDNN": True, "wide": False})
        patch.setattr(Silent, "say", lambda _, text: said.append(text))
        run = train.train(config, Silent())
    assert any("arithmetic: bfloat16 on cpu" in text for text in said)
    return config, run


def copy_of(run: Run, tmp_path, **facts) -> Run:
    other = Run(tmp_path / "run")
    shutil.copytree(run.path, other.path)
    other.update_manifest(**facts)
    return other


def test_a_run_keeps_what_its_machine_was_fast_in(ran):
    _, run = ran
    assert run.manifest["dtype"] == "bfloat16"
    assert {"oneDNN": True, "wide": False}.items() <= run.manifest["faster"].items()


def test_it_is_measured_in_its_arithmetic(ran, monkeypatch):
    _, run = ran
    monkeypatch.setattr(probes, "_asked", {"oneDNN": False, "wide": True})
    monkeypatch.setattr(probes, "_held", {})
    assert load_trained(run).policy.dtype == torch.bfloat16
    assert probes.known("oneDNN") is True


@pytest.mark.parametrize(
    ("kind", "model", "num"),
    [
        ("lora", {}, 4),
        ("none", {}, 4),
        ("lora", {"model__dtype": "bfloat16"}, 1),
        ("none", {"model__dtype": "bfloat16", "model__layout": "plain"}, 1),
    ],
)
def test_nothing_is_asked_after_a_run_has_kept_what_it_goes_by(tiny_model, tmp_path, monkeypatch, kind, model, num):
    for name in ("_asked", "_held"):
        monkeypatch.setattr(probes, name, {})
    monkeypatch.setattr(products, "LEAST_WEIGHT", 1)
    config = run_of_cats(tiny_model, tmp_path, 40, kind, evaluation__num_samples=1, evaluation__probes=0, **model)
    run = train.train(config, Silent())
    assert len(probes.given()) >= num
    assert run.manifest["faster"] == probes.given()


def test_the_other_processes_of_a_run_go_by_what_the_first_one_asked(monkeypatch):
    for name in ("_asked", "_held"):
        monkeypatch.setattr(probes, name, {"oneDNN": False})
    monkeypatch.setattr(placing, "replicate", lambda model, _: model)
    ranks = Alone()
    ranks.kept[placing._COMING] = Model(*[None] * 10)
    chosen = SimpleNamespace(chosen=SimpleNamespace(strategy="ddp"), device="cpu", settings=None)
    placing._placed(ranks, "policy", chosen, {"oneDNN": True})
    assert probes.known("oneDNN") is False  # the first one itself
    monkeypatch.setattr(Alone, "writes", False)
    ranks.kept[placing._COMING] = Model(*[None] * 10)
    placing._placed(ranks, "policy", chosen, {"oneDNN": True})
    assert probes.known("oneDNN") is True


def test_an_attempt_that_goes_on_computes_as_it_began(ran, tmp_path, monkeypatch):
    config, run = ran
    monkeypatch.setattr(probes, "_asked", {"oneDNN": False, "wide": True, "new": True})
    monkeypatch.setattr(probes, "_held", {})
    ready = made_ready(config, copy_of(run, tmp_path), {}, Silent())
    assert ready.loaded.policy.dtype == torch.bfloat16
    assert {"oneDNN": True, "wide": False, "new": True}.items() <= probes.given().items()


def test_a_run_of_before_computes_in_float32_on_a_machine_that_is_fast_in_bfloat16(ran, tmp_path, monkeypatch):
    config, run = ran
    old = copy_of(run, tmp_path, dtype=None, faster=None)
    monkeypatch.setattr(arithmetic, "_multiplies_bfloat16", lambda: True)
    monkeypatch.setattr(arithmetic, "_is_worth_it", lambda *_: True)
    assert as_begun(config, old).model.dtype == "float32"
    assert made_ready(config, old, {}, Silent()).loaded.policy.dtype == torch.float32


def test_what_is_named_comes_first(ran):
    config, run = ran
    named = config.model.model_copy(update={"dtype": "float32"})
    assert as_begun(config.model_copy(update={"model": named}), run).model.dtype == "float32"


def test_a_run_of_a_gpu_is_measured_as_this_machine_computes(ran, tmp_path):
    config, run = ran
    assert as_begun(config, copy_of(run, tmp_path, device="cuda:0")).model.dtype == "auto"


@pytest.mark.parametrize("facts", [{"dtype": "int8"}, {"dtype": 3}, {"dtype": ["float32"]}])
def test_an_arithmetic_that_nobody_has_is_an_error_of_the_run(ran, tmp_path, facts):
    config, run = ran
    with pytest.raises(RunError, match="not as a run writes them"):
        as_begun(config, copy_of(run, tmp_path, **facts))


@pytest.mark.parametrize("faster", [["oneDNN"], "x", 1])
def test_answers_that_are_none_are_an_error_of_the_run(ran, tmp_path, faster):
    config, run = ran
    with pytest.raises(RunError, match="not as a run writes them"):
        made_ready(config, copy_of(run, tmp_path, faster=faster), {}, Silent())
