"""Policy and reference, asked of the same: whole distributions of both, in every layout and form of the reference."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

import oracles
from preferences import entropy
from tiebreak.config import build_config
from tiebreak.config.losses import SECTIONS
from tiebreak.engine.attention import use_plain_attention
from tiebreak.engine.comparison import compared
from tiebreak.engine.fused_lora import unfuse
from tiebreak.engine.reference.kinds import Another
from tiebreak.errors import ConfigError
from tiebreak.maths.objectives import Objective
from tiebreak.progress import Silent
from tiebreak.training.settled import check_settings
from tiny import disturb, load, settings, token_pairs

MALLOWS = Objective.of(SECTIONS["mallows"](beta=0.3))
TDPO = Objective.of(SECTIONS["tdpo2"](beta=0.3))
PAIRS = token_pairs(5, num_prompts=3, seed=2)
FORMS = ["lora", "continued", "none"]


def _loaded(form, layout, tiny_model, tiny_adapter, **changes):
    kind = "none" if form == "none" else "lora"
    model = tiny_adapter if form == "continued" else tiny_model
    return load(settings(model, kind, model__layout={"packed": "auto"}.get(layout, layout), **changes))


@pytest.fixture(params=FORMS)
def form(request):
    return request.param


@pytest.fixture(params=["packed", "plain"])
def loaded(request, form, tiny_model, tiny_adapter):
    found = disturb(_loaded(form, request.param, tiny_model, tiny_adapter))
    assert found.policy.scorer.layout == request.param
    return found


def _exact(model):
    """The network of now in float64, by transformers and peft alone."""
    use_plain_attention(model.network)
    twin = copy.deepcopy(model.network)
    unfuse(twin)
    return twin.double().eval()


def _both(loaded):
    """Policy and reference in float64, each a network of its own."""
    with loaded.reference.model() as frozen:
        theirs = _exact(frozen)
        if frozen.network is loaded.policy.network and frozen.adapter is None:
            theirs = theirs.unload()
    return _exact(loaded.policy), theirs


def test_divergences_equal_the_float64_oracle_in_values_and_gradients(loaded):
    exact, theirs = _both(loaded)
    found, told = compared(loaded.policy, loaded.reference, TDPO, PAIRS)
    said, frozen = TDPO.summed(found, told)
    weights = torch.linspace(-1, 1, len(said.sums))  # so that no two mistakes cancel
    (weights * said.divergence + weights.flip(0) * said.sums).sum().backward()
    completions = [(pair.prompt_ids, ids) for pair in PAIRS for ids in pair.completions]
    for place, (prompt, ids) in enumerate(completions):
        apart = oracles.differentiable_kl(exact, theirs, prompt, ids)
        assert said.divergence[place].item() == pytest.approx(apart.item(), rel=1e-4, abs=1e-6)
        assert apart.item() > 1e-4, "nothing would be tested"
        own = oracles.differentiable_logp(exact, prompt, ids)
        with torch.no_grad():
            asked = oracles.differentiable_logp(theirs, prompt, ids)
        assert [said.sums[place].item(), frozen.sums[place].item()] == pytest.approx(
            [own.item(), asked.item()], rel=3e-6
        )
        (weights[place].double() * apart + weights.flip(0)[place].double() * own).backward()
    wanted = {name: p.grad for name, p in exact.named_parameters() if p.requires_grad}
    for name, parameter in loaded.policy.trainable:
        scale = wanted[name].abs().max().item()
        assert (parameter.grad - wanted[name]).abs().max().item() <= 1e-5 * scale + 1e-6, name


def test_the_oracle_of_distributions_is_the_loop_over_tokens_and_the_vocabulary(tiny_model, tiny_adapter):
    exact, theirs = _both(disturb(_loaded("none", "plain", tiny_model, tiny_adapter)))
    for pair in PAIRS[:2]:
        ids = [*pair.prompt_ids, *pair.chosen_ids]
        with torch.no_grad():
            logits = [net(input_ids=torch.tensor([ids])).logits[0].tolist() for net in (theirs, exact)]
        found = oracles.differentiable_kl(exact, theirs, pair.prompt_ids, pair.chosen_ids).item()
        assert oracles.sequential_kl(*logits, len(pair.prompt_ids), len(ids)) == pytest.approx(found, rel=1e-9)


def test_at_the_start_nothing_is_apart_and_the_policy_keeps_its_adapter(form, tiny_model, tiny_adapter):
    for layout in ("packed", "plain"):
        start = _loaded(form, layout, tiny_model, tiny_adapter)
        said, told = TDPO.summed(*compared(start.policy, start.reference, TDPO, PAIRS))
        assert said.divergence.abs().max() < 1e-5
        assert torch.allclose(said.sums, told.sums, rtol=1e-6)
        (said.divergence.sum() + said.sums.sum()).backward()
        assert all(parameter.grad is not None for _, parameter in start.policy.trainable)


def test_other_company_and_the_order_of_pairs_change_nothing(loaded):
    together, _ = TDPO.summed(*compared(loaded.policy, loaded.reference, TDPO, PAIRS))
    for place, pair in enumerate(PAIRS):
        alone, _ = TDPO.summed(*compared(loaded.policy, loaded.reference, TDPO, [pair]))
        both = together.divergence[2 * place : 2 * place + 2]
        assert torch.allclose(alone.divergence, both, rtol=1e-4, atol=1e-6)


def test_a_completion_of_several_examples_is_as_far_in_each(loaded):
    twice = [PAIRS[0], replace(PAIRS[0], example_id="again"), PAIRS[1]]
    said, _ = TDPO.summed(*compared(loaded.policy, loaded.reference, TDPO, twice))
    assert torch.allclose(said.divergence[:2], said.divergence[2:4], rtol=1e-6)


def test_policy_and_reference_may_be_laid_out_otherwise(tiny_model, tiny_adapter):
    packed, plain = (disturb(_loaded("none", layout, tiny_model, tiny_adapter)) for layout in ("packed", "plain"))
    wanted, _ = TDPO.summed(*compared(packed.policy, packed.reference, TDPO, PAIRS))
    with plain.reference.model() as start:
        found, _ = TDPO.summed(*compared(packed.policy, Another(start), TDPO, PAIRS))
        turned, _ = TDPO.summed(*compared(plain.policy, packed.reference, TDPO, PAIRS))
    assert torch.allclose(found.divergence, wanted.divergence, rtol=1e-4)
    assert torch.allclose(turned.divergence, wanted.divergence, rtol=1e-4)


def test_a_reference_that_moves_is_what_distributions_are_compared_with(form, tiny_model, tiny_adapter):
    changes = {"reference__moves__every": 1, "reference__moves__share": 1.0}
    moving = disturb(_loaded(form, "packed", tiny_model, tiny_adapter, **changes))
    before, _ = TDPO.summed(*compared(moving.policy, moving.compared, TDPO, PAIRS))
    moving.compared.moved(1)
    after, _ = TDPO.summed(*compared(moving.policy, moving.compared, TDPO, PAIRS))
    assert before.divergence.min() > 1e-4
    assert after.divergence.abs().max() < 1e-5


def test_a_store_that_could_hold_no_distributions_is_refused_before_a_model_is_loaded():
    with pytest.raises(ConfigError, match=r"reference.store here: tdpo1 compares whole distributions, which no store"):
        check_settings(build_config({"loss": "tdpo1", "reference": {"store": "here"}}), Silent())
    check_settings(build_config({"loss": "tdpo1"}), Silent())


# ------------------------------------------------------------------------------------------- the reference's entropy


def _entropies(loaded):
    """Of each completion, from the start's own distributions in float64."""
    _, start = _both(loaded)
    found = []
    for pair in PAIRS:
        for ids in pair.completions:
            with torch.no_grad():
                logits = start(input_ids=torch.tensor([[*pair.prompt_ids, *ids]])).logits[0]
            found.append(entropy(logits[len(pair.prompt_ids) - 1 : -1].softmax(-1).tolist()))
    return found


def test_the_reference_s_entropy_equals_the_float64_oracle_asked_now_or_stored(loaded):
    wanted = _entropies(loaded)
    for afresh in (True, False):
        said, told = MALLOWS.summed(*compared(loaded.policy, loaded.reference, MALLOWS, PAIRS, afresh=afresh))
        assert told.entropy.tolist() == pytest.approx(wanted, rel=1e-4, abs=1e-6)
        assert said.entropy is None and said.sums.requires_grad and not told.entropy.requires_grad


@pytest.mark.parametrize("kind", ["lora", "none"])
def test_a_store_holds_it_and_another_run_asks_for_nothing(kind, tiny_model, tmp_path):
    config = settings(tiny_model, kind, loss={"name": "mallows"}, reference__store=str(tmp_path))
    first = load(config)
    _, told = MALLOWS.summed(*compared(first.policy, first.reference, MALLOWS, PAIRS))
    first.reference.flush()
    second = load(config)
    _, again = MALLOWS.summed(*compared(second.policy, second.reference, MALLOWS, PAIRS))
    assert (first.reference.num_asked, second.reference.num_asked) == (len(PAIRS), 0)
    assert torch.equal(again.entropy, told.entropy) and torch.equal(again.sums, told.sums)
    second.reference.begin(PAIRS, second.budget.cut, Silent())  # computed again, and found to be the same
    assert second.reference.num_asked == 0
    # Others store no entropies, and are not served rows that hold some.
    plain = load(settings(tiny_model, kind, reference__store=str(tmp_path)))
    assert torch.equal(plain.reference.logps(PAIRS).values, second.reference.logps(PAIRS).values)
    assert plain.reference.num_asked == len(PAIRS)
    _, live = MALLOWS.summed(*compared(plain.policy, plain.reference, MALLOWS, PAIRS))
    assert torch.allclose(live.entropy, told.entropy, rtol=1e-6)
