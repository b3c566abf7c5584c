from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM

import oracles
from tiebreak.engine.models import load_policy
from tiebreak.evaluation.heldout import HeldoutPairs
from tiny import disturb, settings, token_pairs

PAIRS = token_pairs(11, num_prompts=6)


@pytest.fixture(params=["lora", "none"])
def case(request, tiny_model):
    config = settings(tiny_model, request.param, evaluation__probe_pairs=5)
    return disturb(load_policy(config)), config


def test_evidence_equals_the_float64_oracle(tiny_model):
    config = settings(tiny_model, "none", loss__label_smoothing=0.1)
    policy = disturb(load_policy(config))
    exact = [AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float64).eval() for _ in range(2)]
    exact[0].load_state_dict(policy.model.state_dict())
    for pair, row in zip(PAIRS, HeldoutPairs(policy, PAIRS, config).evidence(), strict=True):
        with torch.no_grad():
            ours, reference = (
                [
                    float(oracles.differentiable_logp(m, pair.prompt_ids, c))
                    for c in (pair.chosen_ids, pair.rejected_ids)
                ]
                for m in exact
            )
        margin = oracles.implicit_reward(ours[0], reference[0], 0.3) - oracles.implicit_reward(
            ours[1], reference[1], 0.3
        )
        assert (row.pair_id, row.prompt_id) == (pair.pair_id, pair.prompt_id)
        assert (row.chosen_num_tokens, row.rejected_num_tokens) == (len(pair.chosen_ids), len(pair.rejected_ids))
        assert [row.policy_chosen_logps, row.policy_rejected_logps] == pytest.approx(ours, rel=2e-6)
        assert [row.reference_chosen_logps, row.reference_rejected_logps] == pytest.approx(reference, rel=2e-6)
        assert row.margin == pytest.approx(margin, abs=1e-4)
        assert row.win == oracles.accuracy([margin])
        assert row.loss == pytest.approx(oracles.conservative_dpo_loss(*ours, *reference, 0.3, 0.1), abs=1e-4)


def test_evidence_comes_in_the_order_asked_for(case):
    heldout = HeldoutPairs(case[0], PAIRS, case[1])
    backwards = heldout.evidence(PAIRS[::-1])
    assert [row.pair_id for row in backwards] == [pair.pair_id for pair in PAIRS[::-1]]
    straight = {row.pair_id: row for row in heldout.evidence()}
    for row in backwards:
        assert row.margin == pytest.approx(straight[row.pair_id].margin, abs=1e-5)


def test_a_probe_is_the_mean_of_the_first_pairs_under_heldout_names(case):
    heldout = HeldoutPairs(case[0], PAIRS, case[1])
    rows, probe = heldout.evidence(PAIRS[:5]), heldout.probe()
    assert probe == pytest.approx(
        {
            "heldout/loss": sum(row.loss for row in rows) / 5,
            "heldout/rewards/margins": sum(row.margin for row in rows) / 5,
            "heldout/rewards/accuracies": sum(row.win for row in rows) / 5,
            "heldout/logps/chosen": sum(row.policy_chosen_logps for row in rows) / 5,
            "heldout/logps/rejected": sum(row.policy_rejected_logps for row in rows) / 5,
        }
    )


def test_what_is_kept_of_the_reference_equals_a_recomputation(case):
    policy, config = case
    heldout = HeldoutPairs(policy, PAIRS, config)
    heldout.probe()
    disturb(policy)  # only the policy moves
    kept, fresh = heldout.evidence(), HeldoutPairs(policy, PAIRS, config).evidence()
    for one, two in zip(kept, fresh, strict=True):
        assert one.reference_chosen_logps == pytest.approx(two.reference_chosen_logps, rel=1e-6)
        assert one.policy_chosen_logps == pytest.approx(two.policy_chosen_logps, rel=1e-6)
        assert one.margin == pytest.approx(two.margin, abs=1e-5)


def test_measuring_leaves_no_trace_in_a_policy_that_is_training(case):
    policy, config = case
    policy.model.train()
    before = [(name, parameter.clone()) for name, parameter in policy.trainable]
    torch.manual_seed(2)
    state = torch.get_rng_state()
    HeldoutPairs(policy, PAIRS, config).probe()
    assert policy.model.training
    assert torch.equal(torch.get_rng_state(), state)
    for (name, then), (also, now) in zip(before, policy.trainable, strict=True):
        assert name == also
        assert torch.equal(then, now)
        assert now.grad is None


def test_dropout_is_off_while_measuring(tiny_model):
    config = settings(tiny_model, adapter__dropout=0.5)
    policy = disturb(load_policy(config))
    policy.model.train()
    heldout = HeldoutPairs(policy, PAIRS, config)
    assert heldout.evidence() == heldout.evidence()


def test_before_training_every_pair_is_a_tie(tiny_model):
    config = settings(tiny_model)
    assert {row.win for row in HeldoutPairs(load_policy(config), PAIRS, config).evidence()} == {0.5}
