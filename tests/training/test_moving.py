"""A reference that moves, in training: a move belongs to a step that was taken, and no accident changes a bit."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tiebreak import faults
from tiebreak.engine.planner import make_plan
from tiebreak.training.budget import Budget
from tiny import cut_off, load, recorded, run, same, settings, token_pairs, weights

PAIRS = token_pairs(13)
FORMS = ["lora", "continued", "none"]
TWICE = {"training.epochs": 2, "training.pairs_per_step": 3}


@pytest.fixture(params=FORMS)
def form(request):
    return request.param


@pytest.fixture
def set_up(form, tiny_model, tiny_adapter):
    """Settings of a run of ten steps whose reference moves after every third."""

    def made(**changes):
        model = tiny_adapter if form == "continued" else tiny_model
        moves = {"reference.moves.every": 3, "reference.moves.share": 0.6, "adapter.dropout": 0.3}
        return settings(model, "none" if form == "none" else "lora", **TWICE | moves | changes)

    return made


def _state(loaded):
    """All weights, those of the reference among them."""
    return weights(loaded.policy.network) | dict(loaded.moving.tensors())


def _steps(folder):
    return [
        {key: row[key] for key in ("step", "loss", "rewards/margins", "reference_moves") if key in row}
        for row in recorded(folder)
    ]


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("last", [3, 4, 6, 7])
def test_a_run_that_was_killed_ends_with_the_same_bits_and_so_does_its_reference(last, every, set_up, tmp_path):
    config = set_up(**{"training.checkpoint_steps": every})
    whole = run(config, PAIRS, tmp_path / "whole")
    cut_off(config, PAIRS, tmp_path / "cut", last)
    resumed = run(config, PAIRS, tmp_path / "cut")
    assert same(_state(resumed.loaded), _state(whole.loaded))
    assert _steps(tmp_path / "cut") == _steps(tmp_path / "whole")
    assert resumed.loaded.moving.num_moves == 3


def test_a_step_that_is_done_again_with_smaller_micro_batches_moves_the_reference_once(set_up, tmp_path):
    class Small:
        """A scorer on a device that holds no more than sixty tokens at once, of the policy's."""

        def __init__(self, scorer):
            self._scorer = scorer
            self.micro_batches, self.num_tokens, self.layout = scorer.micro_batches, scorer.num_tokens, scorer.layout

        def tokens(self, pairs, beside=None, against=None):
            if self.num_tokens(pairs) > 60 and torch.is_grad_enabled():
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return self._scorer.tokens(pairs, beside, against)

    found = []
    for name in ("roomy", "small"):
        config = set_up(**{"training.token_budget": 400, "adapter.dropout": 0.0, "reference.moves.every": 1})
        loaded = load(config)
        if name == "small":
            policy = replace(loaded.policy, scorer=Small(loaded.policy.scorer))
            loaded = replace(loaded, policy=policy, budget=Budget(policy, 400))
        found.append(run(config, PAIRS, tmp_path / name, loaded=loaded))
    assert found[1].loaded.budget.tokens <= 60
    assert [one.loaded.moving.num_moves for one in found] == [10, 10]
    roomy, small = (_state(one.loaded) for one in found)
    assert all(torch.allclose(roomy[name], small[name], atol=1e-4) for name in roomy)


def test_a_rollback_takes_the_reference_back_and_a_step_that_was_not_taken_moves_nothing(set_up, tmp_path):
    changes = {"training.on_divergence": "rollback", "training.checkpoint_steps": 2, "reference.moves.every": 1}
    config = set_up(**changes)
    faults.arm("nan@step:gradient:4")  # in the fourth step: back to the second, whose reference had moved twice
    try:
        ran = run(config, PAIRS, tmp_path)
    finally:
        faults.arm(None)
    moves = [(row["step"], row["reference_moves"]) for row in recorded(tmp_path) if "reference_moves" in row]
    assert moves == [(number, number) for number in range(1, 11)]
    assert [row["step"] for row in recorded(tmp_path) if "rollback" in row] == [2]
    assert ran.loaded.moving.num_moves == 10


def test_a_restored_checkpoint_is_what_was_saved(set_up, tmp_path):
    loaded = run(set_up(), PAIRS, tmp_path).loaded
    part = loaded.moving
    kept = {name: tensor.clone() for name, tensor in part.tensors().items()}
    with part.model() as now:
        said = now.score(PAIRS[:3]).values
    part.moved(3)
    assert not same(dict(part.tensors()), kept)
    part.restore(kept)
    assert same(dict(part.tensors()), kept)
    assert torch.equal(part.logps(PAIRS[:3]).values, said)


def test_the_plan_counts_what_a_moving_copy_holds(set_up, form):
    loaded = load(set_up())
    plan, without = (
        make_plan(loaded.policy, PAIRS, available_bytes=2**30, reference_bytes=held)
        for held in (loaded.moving.num_bytes, 0)
    )
    copied = sum(4 * p.numel() for p in loaded.policy.network.parameters()) if form == "none" else 0
    assert plan.reference_bytes == plan.peak_bytes - without.peak_bytes == copied
    assert ("MiB reference, " in plan.lines()[0]) is (form == "none")
    with loaded.compared.model() as now:
        own = {id(p) for p in now.network.parameters()} - {id(p) for p in loaded.policy.network.parameters()}
    assert (len(own) > 0) is (form == "none")
