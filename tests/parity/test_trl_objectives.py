"""Every objective that TRL has, too: steps of its DPOTrainer beside ours, and its other trainers' own functions.

Where TRL means something else on purpose, the difference stands here with its reason.
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

import tiebreak
from tiny import load, run, settings, token_pairs

pytest.importorskip("trl", reason="parity is measured against TRL, which pip install 'tiebreak[test]' brings")

# Raised inside trl, transformers and accelerate, by their calls of each other's old names; none is a call of ours.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

PAIRS_PER_STEP = 4
TRAJECTORIES = {
    "dpo": ({"name": "dpo", "beta": 0.3}, 20, 0.0),
    "dpo_norm": ({"name": "dpo_norm", "beta": 2.0}, 20, 0.0),
    "ipo": ({"name": "ipo", "tau": 0.5}, 20, 0.0),
    "hinge": ({"name": "hinge", "beta": 0.3}, 3, 0.0),
    "robust": ({"name": "robust", "beta": 0.3, "label_smoothing": 0.2}, 3, 0.0),
    "exo": ({"name": "exo", "beta": 0.3, "label_smoothing": 0.01}, 3, 0.0),
    "nca": ({"name": "nca", "beta": 0.3}, 3, 0.0),
    # Since 0.29 TRL's bco_pair has no δ, which belongs to the loss (Jung et al. 2024): 0 is its meaning.
    "bco": ({"name": "bco_pair", "beta": 0.3}, 3, 0.0),
    "sppo_hard": ({"name": "sppo_hard", "beta": 0.3}, 3, 0.0),
    "aot": ({"name": "aot", "beta": 0.3}, 3, 0.0),
    "aot, smoothed": ({"name": "aot", "beta": 0.3, "label_smoothing": 0.2}, 3, 0.0),
    "aot_unpaired": ({"name": "aot_unpaired", "beta": 0.3}, 3, 0.0),
    # TRL adds 1 to each pair, which has no gradient: Eqs. 7 and 8 have none.
    "apo_zero": ({"name": "apo_zero", "beta": 0.3}, 3, 1.0),
    "apo_down": ({"name": "apo_down", "beta": 0.3}, 3, 1.0),
    "discopop": ({"name": "discopop", "beta": 0.3}, 3, 0.0),
    # Its weights are not clamped since 0.29.
    "dpo, confident": ({"name": "dpo", "beta": 0.3, "confidence_weights": "raw"}, 3, 0.0),
    "dpo under js": ({"name": "dpo", "beta": 0.3, "divergence": "js"}, 3, 0.0),
    "hinge under forward_kl": ({"name": "hinge", "beta": 0.3, "divergence": "forward_kl"}, 3, 0.0),
    # Its coefficient is 1 − α of the paper since 0.29.
    "exo under alpha": ({"name": "exo", "beta": 0.3, "divergence": "alpha", "divergence_alpha": 0.7}, 3, 0.0),
}


@pytest.mark.parametrize("case", TRAJECTORIES)
def test_steps_agree_with_those_of_trl_s_trainer(case, tiny_model, tmp_path):
    from trl_harness import trl_trace

    loss, num_steps, added = TRAJECTORIES[case]
    own = {"training__pairs_per_step": PAIRS_PER_STEP, "training__shuffle": False, "training__learning_rate": 5e-3}
    config = settings(tiny_model, loss=loss, **own)
    pairs = token_pairs(num_steps * PAIRS_PER_STEP, seed=5)
    loaded = load(config)
    loaded.policy.save(tmp_path / "start")
    rows = run(config, pairs, tmp_path, loaded=loaded).rows()
    # Its micro-batch is the whole step: what is sorted over a step, TRL sorts over a micro-batch.
    theirs = trl_trace(
        config, pairs, micro_batch_pairs=PAIRS_PER_STEP, start=tmp_path / "start", output=tmp_path / "trl"
    )
    assert len(rows) == len(theirs.losses) == num_steps
    for row, loss_there, norm in zip(rows, theirs.losses, theirs.grad_norms, strict=True):
        # fp32 sums in another order: 1e-6 of a loss in a step, and Adam carries it on.
        assert row["loss"] == pytest.approx(loss_there - added, rel=2e-5, abs=2e-5)
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


@pytest.mark.parametrize(
    ("name", "own", "asked"),
    [
        ("simpo", {"beta": 2.0, "gamma": 1.2}, {"loss_type": "simpo", "beta": 2.0, "simpo_gamma": 1.2}),
        (
            "alphapo",
            {"beta": 2.0, "gamma": 0.1, "alpha": 0.4},
            {"loss_type": "simpo", "beta": 2.0, "simpo_gamma": 0.1, "alpha": 0.4},
        ),
    ],
)
def test_losses_of_means_are_those_of_trl_s_cpo_trainer(name, own, asked):
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
