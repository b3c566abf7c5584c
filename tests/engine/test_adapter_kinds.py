"""rsLoRA and DoRA against their equations, written out: the weights that a layer multiplies with, and their slopes."""

from __future__ import annotations

import pytest
import torch
from torch.func import functional_call
from transformers import AutoModelForCausalLM

from tiebreak.maths.objectives import Objective
from tiebreak.progress import Silent
from tiebreak.training.start_check import check_start
from tiny import cut_off, disturb, load, run, same, scores, settings, token_pairs, weights

PAIRS = token_pairs(4)
KINDS = {
    "rslora": {"adapter__rslora": True},
    "dora": {"adapter__dora": True},
    "both": {"adapter__dora": True, "adapter__rslora": True},
}


def _written_out(factors, base, *, rank, alpha, root, sized):
    """The weight of each adapted layer: W + s·BA (Hu et al. 2021), or m·(W + s·BA) over its rows' lengths, which count
    as constants (DoRA, Liu et al. 2024, Eq. 5 and section 4.3); s is alpha / rank, or alpha / √rank (rsLoRA,
    Kalajdzievski 2023).
    """
    scale = alpha / (rank**0.5 if root else rank)
    found = {}
    for name, down in factors.items():
        if ".lora_A." not in name:
            continue
        path = name.removeprefix("base_model.model.").partition(".lora_A.")[0]
        own = base[f"{path}.weight"].double()
        whole = own + scale * factors[name.replace("lora_A", "lora_B")] @ down
        if sized:
            size = factors[name.replace("lora_A", "lora_magnitude_vector")]
            whole = size[:, None] * whole / whole.norm(dim=1, keepdim=True).detach()
        found[f"{path}.weight"] = whole
    return found


def _gap(model, weights, pair):
    """log p(chosen) − log p(rejected) of one pair, one token after the other."""
    sides = []
    for ids in (pair.chosen_ids, pair.rejected_ids):
        row = torch.tensor([*pair.prompt_ids, *ids])
        logps = functional_call(model, weights, (row[None],)).logits[0].log_softmax(-1)
        first = len(pair.prompt_ids)
        sides.append(sum(logps[place - 1, row[place]] for place in range(first, len(row))))
    return sides[0] - sides[1]


@pytest.mark.parametrize("layout", ["auto", "plain"])
@pytest.mark.parametrize("kind", KINDS)
def test_values_and_gradients_are_those_of_the_equations(kind, layout, tiny_model):
    policy = disturb(load(settings(tiny_model, model__layout=layout, **KINDS[kind]))).policy
    policy.network.train().zero_grad()
    gap = scores(policy, PAIRS).gap
    gap.sum().backward()
    plain = AutoModelForCausalLM.from_pretrained(tiny_model).double()
    factors = {
        name.replace(".default.weight", ".weight").replace(".default", ""): parameter.detach().double().requires_grad_()
        for name, parameter in policy.trainable
    }
    told = {"root": "adapter__rslora" in KINDS[kind], "sized": "adapter__dora" in KINDS[kind]}
    own = _written_out(factors, dict(plain.named_parameters()), rank=4, alpha=8.0, **told)
    wanted = torch.stack([_gap(plain, own, pair) for pair in PAIRS])
    assert torch.allclose(gap.detach().double(), wanted.detach(), rtol=1e-4, atol=1e-4)
    slopes = torch.autograd.grad(wanted.sum(), list(factors.values()))
    for (name, parameter), slope in zip(policy.trainable, slopes, strict=True):
        assert (parameter.grad.double() - slope).norm() <= 1e-4 * slope.norm(), name


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_adapter_changes_nothing_and_starts_as_its_reference(kind, tiny_model):
    config = settings(tiny_model, **KINDS[kind])
    loaded = load(config)
    check_start(loaded.policy, loaded.compared, Objective.of(config.loss), PAIRS, loaded.budget.cut, Silent())
    with torch.no_grad():
        assert torch.allclose(scores(loaded.policy, PAIRS).gap, scores(load(settings(tiny_model)).policy, PAIRS).gap)


def test_each_kind_is_another_model_by_content(tiny_model):
    found = {disturb(load(settings(tiny_model, **kind))).policy.digest() for kind in ({}, *KINDS.values())}
    assert len(found) == 4


@pytest.mark.parametrize("kind", ["rslora", "dora"])
def test_a_run_that_was_cut_off_ends_with_the_same_weights_to_the_bit(kind, tiny_model, tmp_path):
    config = settings(tiny_model, training__epochs=3, training__checkpoint_steps=1, **KINDS[kind])
    pairs = token_pairs(10)
    whole = run(config, pairs, tmp_path / "whole")
    (tmp_path / "cut").mkdir()
    cut_off(config, pairs, tmp_path / "cut", 4)
    resumed = run(config, pairs, tmp_path / "cut")
    assert same(weights(resumed.loaded.policy.network), weights(whole.loaded.policy.network))
