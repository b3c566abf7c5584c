from __future__ import annotations

import pytest
import torch

from tiebreak.engine.planner import MOST_TOKENS, USABLE, make_plan
from tiebreak.errors import ModelError
from tiny import load, scores, settings, token_pairs

PAIRS = token_pairs(12, num_prompts=5)
PLENTY = 2**36


@pytest.fixture(params=["lora", "none"])
def policy(request, tiny_model):
    return load(settings(tiny_model, request.param, training__token_budget=None)).policy


def _for(tokens: float, plan) -> int:
    """The free memory in which exactly `tokens` tokens fit."""
    return int((plan.optimizer_bytes + plan.head_bytes + tokens * plan.token_bytes) / USABLE) + 1


def test_with_plenty_of_memory_a_micro_batch_is_as_large_as_gains_speed(policy):
    plan = make_plan(policy, PAIRS, available_bytes=PLENTY)
    assert plan.token_budget == MOST_TOKENS["cpu"]
    assert not plan.gradient_checkpointing
    assert plan.peak_bytes < PLENTY


def test_with_less_memory_a_micro_batch_is_what_fits(policy):
    roomy = make_plan(policy, PAIRS, available_bytes=PLENTY)
    plan = make_plan(policy, PAIRS, available_bytes=_for(200.5, roomy))
    assert plan.token_budget == 200
    assert plan.peak_bytes <= USABLE * plan.available_bytes


def test_activations_are_computed_twice_only_where_the_longest_pair_does_not_fit_otherwise(tiny_model):
    policy = load(settings(tiny_model, training__token_budget=None)).policy
    roomy = make_plan(policy, PAIRS, available_bytes=PLENTY)
    longest = roomy.longest_pair
    assert not make_plan(policy, PAIRS, available_bytes=_for(longest + 0.5, roomy)).gradient_checkpointing
    plan = make_plan(policy, PAIRS, available_bytes=_for(longest - 0.5, roomy))
    assert plan.gradient_checkpointing
    assert plan.token_bytes < roomy.token_bytes
    assert plan.token_budget >= longest
    policy.network.train()
    scores(policy, PAIRS).gap.sum().backward()


def test_a_pair_that_cannot_fit_is_refused_with_what_to_do(policy):
    with pytest.raises(ModelError, match=r"longest pair has \d+ tokens.*data\.max_length"):
        make_plan(policy, PAIRS, available_bytes=1000)


def test_what_is_given_is_kept(policy):
    plan = make_plan(policy, PAIRS, token_budget=77, available_bytes=PLENTY)
    assert plan.token_budget == 77
    assert "token_budget says" in plan.reason


def test_a_pair_longer_than_the_usual_micro_batch_still_fits(policy):
    long = type(PAIRS[0])("long", "long", tuple(range(3, 250)) * 7, (5, 2), (6, 7, 2))
    plan = make_plan(policy, [*PAIRS, long], available_bytes=PLENTY)
    assert plan.token_budget == plan.longest_pair == policy.scorer.num_tokens([long])


def test_the_bytes_of_a_token_foretell_what_a_larger_pass_keeps(policy):
    plan, weights = make_plan(policy, PAIRS, available_bytes=PLENTY), list(policy.network.parameters())
    known = {w.untyped_storage().data_ptr() for w in weights}
    kept: dict[int, torch.Tensor] = {}
    policy.network.train()
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: kept.setdefault(t.untyped_storage().data_ptr(), t) is None or t, lambda t: t
    ):
        passed = scores(policy, PAIRS)
    found = sum(t.untyped_storage().nbytes() for at, t in kept.items() if at not in known)
    del passed
    tokens = policy.scorer.num_tokens(PAIRS)
    # Scored positions, dense here, keep a little more than the prompt's that the estimate is made from.
    assert plan.token_bytes * tokens == pytest.approx(found, rel=0.35)


def test_planning_leaves_no_gradient_and_no_change(policy):
    before = {name: p.detach().clone() for name, p in policy.network.named_parameters()}
    make_plan(policy, PAIRS, available_bytes=PLENTY)
    assert all(p.grad is None and torch.equal(before[n], p) for n, p in policy.network.named_parameters())


def test_the_plan_says_in_words_what_was_chosen_and_why(policy):
    first, second = make_plan(policy, PAIRS, available_bytes=PLENTY).lines()
    assert "64.0 GiB free" in first
    assert f"at most {MOST_TOKENS['cpu']} tokens" in second
