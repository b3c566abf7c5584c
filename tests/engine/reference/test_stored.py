from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tiebreak.engine.models import load_policy
from tiny import disturb, settings, token_pairs

PAIRS = token_pairs(6, num_prompts=4)


def _load(model: Path, folder: Path, adapter: str = "lora", **changes):
    return load_policy(settings(model, adapter, reference__store=str(folder), **changes))


@pytest.fixture
def filled(tiny_model, tmp_path):
    """A folder that already holds the values of the tiny model for all pairs."""
    policy = _load(tiny_model, tmp_path)
    policy.reference.logps(PAIRS)
    policy.reference.flush()
    assert policy.reference.num_live == len(PAIRS)
    return tmp_path


def _num_live(policy, pairs=PAIRS) -> int:
    policy.reference.logps(pairs)
    return policy.reference.num_live


def test_a_hit_equals_a_live_pass_bit_for_bit(tiny_model, filled):
    policy = _load(tiny_model, filled)
    live, stored = policy.reference.live.tokens(PAIRS), policy.reference.tokens(PAIRS)
    assert policy.reference.num_live == 0
    assert torch.equal(live.chosen, stored.chosen)
    assert torch.equal(live.rejected, stored.rejected)
    assert torch.equal(live.summed().gap, policy.reference.logps(PAIRS).gap)


def test_a_hit_equals_a_live_pass_in_any_order_and_subset(tiny_model, filled):
    policy = _load(tiny_model, filled)
    some = [PAIRS[4], PAIRS[0], PAIRS[0], PAIRS[3]]
    stored, live = policy.reference.logps(some), policy.reference.live.tokens(some).summed()
    assert stored.gap.tolist() == pytest.approx(live.gap.tolist(), rel=1e-5)
    assert policy.reference.num_live == 0


@pytest.mark.parametrize("change", [{"loss__beta": 0.01}, {"training__epochs": 3}, {"adapter__rank": 2}])
def test_beta_epochs_and_adapter_cost_no_recomputation(tiny_model, filled, change):
    assert _num_live(_load(tiny_model, filled, **change)) == 0


def test_full_fine_tuning_uses_what_an_adapter_s_run_computed(tiny_model, filled):
    assert _num_live(_load(tiny_model, filled, "none")) == 0


def test_a_policy_that_has_moved_still_finds_the_values_of_its_start(tiny_model, filled):
    policy = disturb(_load(tiny_model, filled))
    assert _num_live(policy) == 0


def test_other_ids_are_computed_again(tiny_model, filled):
    longer = [type(p)(p.pair_id, p.prompt_id, (7, *p.prompt_ids), p.chosen_ids, p.rejected_ids) for p in PAIRS]
    assert _num_live(_load(tiny_model, filled), longer) == len(PAIRS)


def test_other_weights_never_find_them(tiny_model, filled, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    policy = load_policy(settings(tiny_model, "none"))
    with torch.no_grad():
        next(iter(policy.model.parameters()))[0, 0] += 1e-3
    policy.save(other)
    assert _num_live(_load(other, filled)) == len(PAIRS)


def test_another_rotation_of_the_same_weights_never_finds_them(tiny_model, filled, tmp_path_factory):
    other = tmp_path_factory.mktemp("rope")
    load_policy(settings(tiny_model, "none")).save(other)
    config = json.loads((other / "config.json").read_text())
    config["rope_parameters"] = {"rope_type": "default", "rope_theta": 777.0}
    (other / "config.json").write_text(json.dumps(config))
    assert _num_live(_load(other, filled)) == len(PAIRS)


def test_another_precision_never_finds_them(tiny_model, filled):
    assert _num_live(_load(tiny_model, filled, model__dtype="bfloat16")) == len(PAIRS)


def test_a_starting_adapter_is_another_reference_than_its_base(tiny_adapter, filled):
    assert _num_live(_load(tiny_adapter, filled)) == len(PAIRS)


def test_a_store_that_was_tampered_with_is_found_by_the_spot_check_and_set_aside(tiny_model, filled):
    policy = _load(tiny_model, filled)
    assert policy.reference.spot_check(PAIRS, 4, policy.dtype) is None
    policy = _load(tiny_model, filled)
    for row in policy.reference._store._shards:
        row.logps.mul_(1.01)
    assert "set aside" in policy.reference.spot_check(PAIRS, 4, policy.dtype)
    assert list(filled.glob("*.stale-1"))
    policy.reference.num_live = 0
    assert _num_live(policy) == len(PAIRS)


def test_half_a_pass_is_kept(tiny_model, tmp_path):
    first = _load(tiny_model, tmp_path)
    first.reference.logps(PAIRS[:3])
    first.reference.flush()
    second = _load(tiny_model, tmp_path)
    assert len(second.reference.missing(PAIRS)) < len(PAIRS)
    assert _num_live(second) == len(second.reference.missing(PAIRS)) + second.reference.num_live


def test_values_that_are_not_finite_are_not_kept(tiny_model, tmp_path):
    policy = _load(tiny_model, tmp_path)
    with torch.no_grad():
        policy.model.get_base_model().lm_head.weight.fill_(torch.nan)
    assert policy.reference.logps(PAIRS).gap.isnan().all()
    policy.reference.flush()
    assert not list(tmp_path.glob("*/*.safetensors"))


def test_without_a_store_every_value_is_still_asked_for_once(tiny_model):
    policy = load_policy(settings(tiny_model))
    policy.reference.logps(PAIRS)
    assert _num_live(policy) == len(PAIRS)
