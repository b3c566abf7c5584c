"""Every objective of pairs that TRL has, too: steps of its trainers beside ours.

Where TRL means something else on purpose, the difference stands in `cases` with its reason, and is measured here.
"""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from cases import LIKELIHOODS, OF_DPO, OF_FUNCTIONS, OF_ORPO, OF_PAIRS
from transformers import AutoModelForCausalLM

import tiebreak
from tiny import load, run, settings

pytest.importorskip("trl", reason="parity is measured against TRL, which pip install 'tiebreak[test]' brings")

# Raised inside trl, transformers and accelerate, by their calls of each other's old names; none is a call of ours.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

PAIRS_PER_STEP = 4
OWN = {"training__pairs_per_step": PAIRS_PER_STEP, "training__shuffle": False, "training__learning_rate": 5e-3}


def _both(config, pairs, is_reference_free, folder):
    """What we and TRL record of each step, from the same adapter."""
    from trl_harness import reference_free_trace, trl_trace

    loaded, start = load(config), folder / "start"
    loaded.policy.save(start)
    rows = run(config, pairs, folder, loaded=loaded).rows()
    if is_reference_free:
        return rows, reference_free_trace(config, pairs, start=start, output=folder / "trl")
    return rows, trl_trace(config, pairs, micro_batch_pairs=PAIRS_PER_STEP, start=start, output=folder / "trl")


@pytest.mark.parametrize("case", OF_PAIRS)
def test_steps_agree_with_those_of_trl_s_trainer(case, tiny_model, tmp_path):
    steps = OF_PAIRS[case]
    config = settings(tiny_model, loss=dict(steps.loss), **OWN)
    rows, theirs = _both(config, steps.pairs(PAIRS_PER_STEP), case not in OF_DPO, tmp_path)
    assert len(rows) == len(theirs.losses) == steps.num
    for row, loss_there, norm in zip(rows, theirs.losses, theirs.grad_norms, strict=True):
        # fp32 sums in another order: 1e-6 of a loss in a step, and Adam carries it on.
        assert row["loss"] == pytest.approx(loss_there - steps.added, rel=2e-5, abs=2e-5)
        assert row["grad_norm"] == pytest.approx(norm, rel=1e-4)
    assert rows[-1]["loss"] != rows[0]["loss"]


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_on_pairs_of_all_lengths_it_is_the_likelihood_that_differs_and_nothing_else(name, tiny_model, tmp_path):
    steps = replace(LIKELIHOODS[name], num=1, chosen=None, prompt=None)
    config, pairs = settings(tiny_model, loss=dict(steps.loss), **OWN), steps.pairs(PAIRS_PER_STEP)
    [row], theirs = _both(config, pairs, name not in OF_DPO, tmp_path)
    network = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    by_prompt, by_token = [], []
    for pair in pairs:
        ids = torch.tensor([[*pair.prompt_ids, *pair.chosen_ids]])
        with torch.no_grad():
            said = network(ids).logits.log_softmax(-1)[0, :-1].gather(1, ids[0, 1:, None])[:, 0]
        by_prompt.append(said)
        by_token.append(said[len(pair.prompt_ids) - 1 :])
    ours = -torch.stack([one.mean() for one in by_token]).mean()
    there = -torch.cat(by_prompt if name in OF_ORPO else by_token).mean()
    weight = getattr(config.loss, "sft_weight", getattr(config.loss, "alpha", 1.0))
    assert abs(there - ours) > 0.01
    assert theirs.losses[0] - row["loss"] == pytest.approx(float(weight * (there - ours)), abs=2e-5)


def _drawn() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    made = torch.Generator().manual_seed(7)
    chosen, rejected = (-3 * torch.rand(16, generator=made, dtype=torch.float64) - 0.01 for _ in range(2))
    tokens = [torch.randint(1, 40, (16,), generator=made) for _ in range(2)]
    return chosen, rejected, *tokens


def _theirs(**changes) -> SimpleNamespace:
    usual = {"alpha": 0.0, "beta": 0.1, "simpo_gamma": 0.5, "label_smoothing": 0.0, "loss_type": "sigmoid"}
    return SimpleNamespace(accelerator=SimpleNamespace(device="cpu"), **usual | changes)


@pytest.mark.parametrize("name", OF_FUNCTIONS)
def test_losses_of_means_are_those_of_trl_s_cpo_trainer(name):
    own, asked = OF_FUNCTIONS[name]
    cpo = pytest.importorskip("trl.experimental.cpo.cpo_trainer")
    chosen, rejected, num_chosen, num_rejected = _drawn()
    found = tiebreak.objective(name, **own)(
        chosen * num_chosen, rejected * num_rejected, chosen_num_tokens=num_chosen, rejected_num_tokens=num_rejected
    )
    # TRL hands its function the means: average_log_prob is set for simpo.
    losses, *_ = cpo.CPOTrainer.cpo_loss(_theirs(**asked), chosen, rejected)
    assert torch.allclose(found.losses, losses, rtol=1e-9)


def test_the_preference_of_cpo_and_the_odds_of_orpo_are_those_of_trl():
    cpo = pytest.importorskip("trl.experimental.cpo.cpo_trainer")
    orpo = pytest.importorskip("trl.experimental.orpo.orpo_trainer")
    chosen, rejected, num_chosen, num_rejected = _drawn()
    sums = chosen * num_chosen, rejected * num_rejected
    counts = {"chosen_num_tokens": num_chosen, "rejected_num_tokens": num_rejected}
    found = tiebreak.objective("cpo", beta=0.3, alpha=0.0)(*sums, **counts)
    assert torch.allclose(found.losses, cpo.CPOTrainer.cpo_loss(_theirs(beta=0.3), *sums)[0], rtol=1e-9)
    # Its odds are computed in fp32.
    found = tiebreak.objective("orpo", beta=0.2)(*sums, **counts)
    odds, *_ = orpo.ORPOTrainer.odds_ratio_loss(_theirs(beta=0.2), chosen, rejected)
    assert torch.allclose(found.losses, -chosen - odds.double(), rtol=1e-5, atol=1e-6)
