from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM

import oracles
from tiebreak.config import SIGNALS
from tiebreak.engine.comparison import compared
from tiebreak.engine.scorer import PlainScorer
from tiebreak.evaluation.heldout import Evidence, HeldoutPairs, Probe, probe_steps, probed
from tiebreak.evaluation.kept import KeptRows
from tiebreak.maths.objectives import Objective
from tiny import disturb, load, settings, token_pairs

PAIRS = token_pairs(11, num_prompts=6)


@pytest.fixture(params=["lora", "none"])
def case(request, tiny_model):
    config = settings(tiny_model, request.param, evaluation__probe_pairs=5)
    return disturb(load(config)), config


def _heldout(loaded, config, pairs=PAIRS):
    return HeldoutPairs(loaded.policy, loaded.reference, Objective.of(config.loss), pairs, loaded.budget.cut)


def _probe(loaded, config):
    return probed(Probe(_heldout(loaded, config), config.evaluation, 10).evidence(Objective.of(config.loss)))


def test_evidence_equals_the_float64_oracle(tiny_model):
    config = settings(tiny_model, "none", loss__label_smoothing=0.1)
    loaded = disturb(load(config))
    exact = [AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float64).eval() for _ in range(2)]
    exact[0].load_state_dict(loaded.policy.network.state_dict())
    for pair, row in zip(PAIRS, _heldout(loaded, config).evidence(), strict=True):
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
        assert (row.pair_id, row.prompt_id) == (pair.example_id, pair.prompt_id)
        assert (row.chosen_num_tokens, row.rejected_num_tokens) == (len(pair.chosen_ids), len(pair.rejected_ids))
        assert [row.policy_chosen_logps, row.policy_rejected_logps] == pytest.approx(ours, rel=2e-6)
        assert [row.reference_chosen_logps, row.reference_rejected_logps] == pytest.approx(reference, rel=2e-6)
        assert row.margin == pytest.approx(margin, abs=1e-4)
        assert row.win == oracles.accuracy([margin])
        assert row.loss == pytest.approx(oracles.conservative_dpo_loss(*ours, *reference, 0.3, 0.1), abs=1e-4)


def test_evidence_comes_in_the_order_asked_for(case):
    backwards = _heldout(*case, PAIRS[::-1]).evidence()
    assert [row.pair_id for row in backwards] == [pair.example_id for pair in PAIRS[::-1]]
    straight = {row.pair_id: row for row in _heldout(*case).evidence()}
    for row in backwards:
        assert row.margin == pytest.approx(straight[row.pair_id].margin, abs=1e-5)


def test_what_is_kept_is_known_by_all_that_it_depends_on(case, tmp_path):
    loaded, config = case
    kept = tmp_path / "kept.jsonl"

    def num_scored(pairs=PAIRS, **changed):
        before = len(kept.read_bytes().splitlines()) if kept.exists() else 0
        other = replace(loaded, policy=replace(loaded.policy, **changed))
        _heldout(other, config, pairs).evidence(kept=KeptRows(kept))
        return len(kept.read_bytes().splitlines()) - before

    assert num_scored() == len(PAIRS)
    assert num_scored() == 0
    # The same text, cut or written as other tokens.
    cut = [replace(pair, prompt_ids=(*pair.prompt_ids, 7)) for pair in PAIRS]
    longer = [replace(pair, chosen_ids=(5, *pair.chosen_ids)) for pair in PAIRS]
    assert num_scored(cut) == num_scored(longer) == len(PAIRS)
    assert num_scored(dtype=torch.bfloat16) == len(PAIRS)
    plain = PlainScorer(
        loaded.policy.network, pad_id=loaded.policy.pad_id, device=loaded.policy.device, dtype=loaded.policy.dtype
    )
    assert (loaded.policy.scorer.layout, num_scored(scorer=plain)) == ("packed", len(PAIRS))


def test_a_probe_is_the_mean_of_the_first_pairs_under_heldout_names(case):
    rows, probe = _heldout(*case).evidence(5), _probe(*case)
    moved = {
        side: [
            (getattr(row, f"policy_{side}_logps") - getattr(row, f"reference_{side}_logps"))
            / getattr(row, f"{side}_num_tokens")
            for row in rows
        ]
        for side in ("chosen", "rejected")
    }
    longer = [row.chosen_num_tokens - row.rejected_num_tokens for row in rows]
    assert probe == pytest.approx(
        {
            "heldout/loss": sum(row.loss for row in rows) / 5,
            "heldout/rewards/margins": sum(row.margin for row in rows) / 5,
            "heldout/rewards/accuracies": sum(row.win for row in rows) / 5,
            "heldout/logps/chosen": sum(row.policy_chosen_logps for row in rows) / 5,
            "heldout/logps/rejected": sum(row.policy_rejected_logps for row in rows) / 5,
            "heldout/displaced": sum(one < -1e-3 for one in moved["chosen"]) / 5,
            "heldout/chosen_moved": sum(moved["chosen"]) / 5,
            "heldout/rejected_moved": sum(moved["rejected"]) / 5,
            "heldout/reward_length_correlation": oracles.pearson([row.logratio_gap for row in rows], longer),
        }
    )
    assert set(probe) <= set(SIGNALS)


def test_before_the_first_step_nothing_has_moved_and_rounding_is_related_to_nothing(tiny_model):
    config = settings(tiny_model, evaluation__probe_pairs=5)
    probe = _probe(load(config), config)
    assert probe["heldout/displaced"] == 0
    assert probe["heldout/chosen_moved"] == pytest.approx(0, abs=1e-5)
    assert "heldout/reward_length_correlation" not in probe


def test_a_policy_that_learned_length_is_seen_by_its_correlation():
    def evidence(gap, length, pair=0):
        return Evidence(f"pair{pair}", "prompt", 0.5, 1.0, 1.0, 0.7, 0.0, -10.0 + gap, -9.0, -10.0, -9.0, length, 10)

    gains = [evidence(0.5 * length, 10 + length, length) for length in range(1, 6)]
    assert probed(gains)["heldout/reward_length_correlation"] == pytest.approx(1)
    assert probed(gains)["heldout/displaced"] == 0
    falls = [evidence(-0.5 * length, 10 + length, length) for length in range(1, 6)]
    assert probed(falls)["heldout/reward_length_correlation"] == pytest.approx(-1)
    assert probed(falls)["heldout/displaced"] == 1
    assert "heldout/reward_length_correlation" not in probed([evidence(3.0, 12), evidence(2.0, 12), evidence(1.0, 12)])


def test_what_is_kept_of_the_reference_equals_a_recomputation(case):
    loaded, config = case
    heldout = _heldout(loaded, config)
    _probe(loaded, config)
    disturb(loaded)  # only the policy moves
    kept, fresh = heldout.evidence(), _heldout(loaded, config).evidence()
    for one, two in zip(kept, fresh, strict=True):
        assert one.reference_chosen_logps == pytest.approx(two.reference_chosen_logps, rel=1e-6)
        assert one.policy_chosen_logps == pytest.approx(two.policy_chosen_logps, rel=1e-6)
        assert one.margin == pytest.approx(two.margin, abs=1e-5)


def test_measuring_leaves_no_trace_in_a_policy_that_is_training(case):
    loaded, config = case
    policy = loaded.policy
    policy.network.train()
    before = [(name, parameter.clone()) for name, parameter in policy.trainable]
    torch.manual_seed(2)
    state = torch.get_rng_state()
    _probe(loaded, config)
    assert policy.network.training
    assert torch.equal(torch.get_rng_state(), state)
    for (name, then), (also, now) in zip(before, policy.trainable, strict=True):
        assert name == also
        assert torch.equal(then, now)
        assert now.grad is None


def test_dropout_is_off_while_measuring(tiny_model):
    config = settings(tiny_model, adapter__dropout=0.5)
    loaded = disturb(load(config))
    loaded.policy.network.train()
    heldout = _heldout(loaded, config)
    assert heldout.evidence() == heldout.evidence()


def test_before_training_every_pair_is_a_tie(tiny_model):
    config = settings(tiny_model)
    assert {row.win for row in _heldout(load(config), config).evidence()} == {0.5}


@pytest.mark.parametrize(
    ("total", "probes", "expected"), [(10, 3, {3, 7, 10}), (10, 1, {10}), (10, 0, set()), (2, 5, {1, 2}), (1, 3, {1})]
)
def test_probes_are_spread_evenly_and_the_last_step_is_one(total, probes, expected):
    assert probe_steps(total, probes) == expected


@pytest.mark.parametrize(("probes", "due"), [(0, []), (2, [0, 5, 10])])
def test_a_probe_is_due_before_the_first_step_too_unless_none_is_wanted(tiny_model, probes, due):
    config = settings(tiny_model, evaluation__probes=probes)
    probe = Probe(None, config.evaluation, 10)
    assert [step for step in range(11) if probe.due(step)] == due


@pytest.mark.parametrize("layout", ["auto", "plain"])
@pytest.mark.parametrize("kind", ["lora", "none"])
def test_where_whole_distributions_are_compared_evidence_holds_what_they_cost(kind, layout, tiny_model):
    config = settings(tiny_model, kind, loss={"name": "tdpo2", "beta": 0.3, "alpha": 0.5}, model__layout=layout)
    start = _heldout(load(config), config).evidence()
    assert [row.loss for row in start] == pytest.approx([math.log(2)] * len(PAIRS), abs=1e-6)
    assert [row.loss_at_start for row in start] == pytest.approx([math.log(2)] * len(PAIRS), abs=1e-6)
    loaded, found = disturb(load(config)), []
    for pair, row in zip(PAIRS, _heldout(loaded, config).evidence(), strict=True):
        said, _ = Objective.of(config.loss).summed(
            *compared(loaded.policy, loaded.reference, Objective.of(config.loss), [pair])
        )
        chosen, rejected = said.divergence.tolist()
        found.append(0.3 * row.logratio_gap - 0.5 * 0.3 * (rejected - chosen))
        assert row.loss == pytest.approx(-oracles.log_sigmoid(found[-1]), rel=1e-4)
        assert row.margin == pytest.approx(0.3 * row.logratio_gap, abs=1e-4)
