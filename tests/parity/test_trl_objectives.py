"""Every objective that TRL has, too: steps of its DPOTrainer beside ours, and its other trainers' own functions.

Where TRL means something else on purpose, the difference stands here with its reason.
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from cases import OF_DPO, OF_FUNCTIONS

import tiebreak
from tiny import load, run, settings, token_pairs

pytest.importorskip("trl", reason="parity is measured against TRL, which pip install 'tiebreak[test]' brings")

# Raised inside trl, transformers and accelerate, by their calls of each other's old names; none is a call of ours.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

PAIRS_PER_STEP = 4


@pytest.mark.parametrize("case", OF_DPO)
def test_steps_agree_with_those_of_trl_s_trainer(case, tiny_model, tmp_path):
    from trl_harness import trl_trace

    steps = OF_DPO[case]
    own = {"training__pairs_per_step": PAIRS_PER_STEP, "training__shuffle": False, "training__learning_rate": 5e-3}
    config = settings(tiny_model, loss=dict(steps.loss), **own)
    pairs = token_pairs(steps.num * PAIRS_PER_STEP, seed=5)
    loaded = load(config)
    loaded.policy.save(tmp_path / "start")
    rows = run(config, pairs, tmp_path, loaded=loaded).rows()
    theirs = trl_trace(
        config, pairs, micro_batch_pairs=PAIRS_PER_STEP, start=tmp_path / "start", output=tmp_path / "trl"
    )
    assert len(rows) == len(theirs.losses) == steps.num
    for row, loss_there, norm in zip(rows, theirs.losses, theirs.grad_norms, strict=True):
        # fp32 sums in another order: 1e-6 of a loss in a step, and Adam carries it on.
        assert row["loss"] == pytest.approx(loss_there - steps.added, rel=2e-5, abs=2e-5)
        assert row["grad_norm"] == pytest.approx(norm, rel=1e-4)
    assert rows[-1]["loss"] != rows[0]["loss"]


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
    # The other term is likelihood (TRL: by default over prompt and completion, Eq. 6 is of the completion). Its odds
    # are computed in fp32.
    found = tiebreak.objective("orpo", beta=0.2)(*sums, **counts)
    odds, *_ = orpo.ORPOTrainer.odds_ratio_loss(_theirs(beta=0.2), chosen, rejected)
    assert torch.allclose(found.losses, -chosen - odds.double(), rtol=1e-5, atol=1e-6)


def test_trl_s_likelihood_is_by_token_of_the_micro_batch_and_ours_by_completion():
    """Of one length they are one; Pang et al. 2024, Eq. 1 divides by the length of the completion."""
    chosen = [[-1.0, -2.0], [-3.0, -4.0, -5.0, -6.0]]
    found = tiebreak.objective("sft")(chosen, [[-1.0], [-1.0]]).mean
    by_token = -sum(map(sum, chosen)) / 6
    assert found.item() == pytest.approx((1.5 + 4.5) / 2)
    assert found.item() != pytest.approx(by_token)
