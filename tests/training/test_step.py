"""The gradient of a step is that of all its examples at once, whatever the objective, the cut and the layout."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tiebreak.config import build_config
from tiebreak.config.losses import SECTIONS
from tiebreak.engine.attention import use_plain_attention
from tiebreak.engine.reference.kinds import asked_now
from tiebreak.maths.objectives import Objective, Running, Stated
from tiebreak.records import TokenizedThumb
from tiny import disturb, load, settings, stated, step, token_pairs, token_thumbs
from toys import CENTRED

PAIRS = stated(token_pairs(10, num_prompts=6, seed=5))
THUMBS = token_thumbs(12, num_prompts=5, seed=9)
OBJECTIVES = {name: Objective.of(section()) for name, section in SECTIONS.items()}
OBJECTIVES |= {"dpo, soft labels": Objective.of(SECTIONS["dpo"](soft_labels=True)), "a toy": CENTRED}
TERMS = {"terms": [{"name": "aot", "beta": 0.3}, {"name": "simpo", "weight": 0.3}, {"name": "odpo", "weight": 2.0}]}
OBJECTIVES["dpo, desensitised"] = Objective.of(SECTIONS["dpo"](length_desensitised=0.3))
OBJECTIVES["dpo, decaying"] = Objective.of(SECTIONS["dpo"](token_decay=0.8))
OBJECTIVES["dpo, humanline"] = Objective.of(SECTIONS["dpo"](humanline=(-0.02, 0.05)))
OBJECTIVES["simpo, confident"] = Objective.of(SECTIONS["simpo"](confidence_weights="clamped"))
CONFIDENT = {"terms": [{"name": "dpo", "confidence_weights": "raw"}, "bco", {"name": "sft", "weight": 0.2}]}
OBJECTIVES["a sum, confident"] = Objective.of(build_config({"loss": CONFIDENT}).loss)
OBJECTIVES["beta_dpo, some pairs"] = OBJECTIVES["beta_dpo"].remembering(Running(0.01, 0.02)).drawing(5)
OBJECTIVES["hinge under chi_po"] = Objective.of(SECTIONS["hinge"](divergence="chi_po", max_reward=2.0))
OBJECTIVES["a sum"] = Objective.of(build_config({"loss": TERMS}).loss)


def _examples(objective):
    return THUMBS if objective.formula.learns_from is TokenizedThumb else PAIRS


def _gain(loaded, thumbs):
    """KTO's z_0, example by example: each prompt with the next completion that is of another one."""
    total = 0.0
    for at, thumb in enumerate(thumbs):
        other = next(one for one in thumbs[at + 1 :] + thumbs[:at] if one.prompt_id != thumb.prompt_id)
        mixed = [replace(thumb, completion_ids=other.completion_ids)]
        with torch.no_grad():
            policy, reference = (
                model(mixed).values.double().sum() for model in (loaded.policy.score, loaded.reference.logps)
            )
        total += float(policy - reference)
    return max(total / len(thumbs), 0.0)


def _apart(loaded, examples):
    """KL of each token's whole distribution, one completion at a time, through the networks' own heads."""
    rows = [
        (torch.tensor([[*example.prompt_ids, *ids]]), len(ids)) for example in examples for ids in example.completions
    ]
    with loaded.reference.model() as frozen, torch.no_grad():
        use_plain_attention(frozen.network)
        theirs = [frozen.network(input_ids=ids).logits[0, -num - 1 : -1].log_softmax(-1) for ids, num in rows]
    use_plain_attention(loaded.policy.network)
    ours = [loaded.policy.network(input_ids=ids).logits[0, -num - 1 : -1].log_softmax(-1) for ids, num in rows]
    return torch.cat([(one.exp() * (one - two)).sum(-1) for one, two in zip(theirs, ours, strict=True)])


def _undivided(loaded, objective):
    """The plain thing: one graph of all examples, one backward pass."""
    examples = _examples(objective)
    said = loaded.policy.score(examples, objective.beside)
    asked = asked_now(loaded.reference, examples, objective.beside_reference)
    if objective.asks_distributions:
        said = replace(said, divergences=_apart(loaded, examples))
    policy, reference = objective.summed(said, asked)
    loaded.policy.network.zero_grad()
    stated = Stated.of(examples, objective.facts, policy.sums, draws=objective.draws)
    if objective.formula.asks_baseline:
        gain = _gain(loaded, examples)
        assert gain > 0, "a baseline of 0 would test nothing"
        stated = stated.with_baseline(gain, policy.sums)
    losses = objective(policy, reference, stated).losses
    (losses.sum() / len(examples)).backward()
    return losses.detach(), torch.cat([p.grad.flatten() for _, p in loaded.policy.trainable])


def _step_equals_the_undivided_one(loaded, config, objective):
    losses, wanted = _undivided(loaded, objective)
    metrics, norm = step(loaded, config, _examples(objective), objective)
    found = torch.cat([p.grad.flatten() for _, p in loaded.policy.trainable])
    # Rounding: a row is added up otherwise in a product of another number of rows. On an AMD EPYC with AVX-512 it is
    # at most 5.5e-6 of the gradient (3e-6 on Intel), where losses take means off each other. A sum that is divided by
    # another number of pairs is off by 0.1 and more. dpop multiplies what chosen fell by 50, and so that rounding.
    assert (found - wanted).norm() <= (2e-5 if objective.name == "dpop" else 1e-5) * wanted.norm() + 1e-9
    assert norm == pytest.approx(wanted.norm().item(), rel=1e-5)
    assert len(metrics.values) == len(_examples(objective))
    assert metrics["loss"].mean().item() == pytest.approx(losses.mean().item(), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("layout", ["auto", "plain"])
@pytest.mark.parametrize("budget", [8, 50])
@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
def test_a_step_equals_the_undivided_one(objective, budget, layout, tiny_model):
    config = settings(tiny_model, training__token_budget=budget, training__max_grad_norm=1e9, model__layout=layout)
    loaded = disturb(load(config))
    assert loaded.policy.scorer.layout == ("packed" if layout == "auto" else "plain")
    examples = _examples(objective)
    num = len(loaded.budget.cut(examples))
    assert num == len(examples) if budget == 8 else 1 < num < len(examples)
    _step_equals_the_undivided_one(loaded, config, objective)


@pytest.mark.parametrize("name", ["dpo", "aot", "bco", "kto", "bco_unpaired", "tdpo2"])
def test_so_it_does_where_all_weights_train_and_where_it_is_one_piece(name, tiny_model):
    for budget in (50, 100_000):
        config = settings(tiny_model, "none", training__token_budget=budget, training__max_grad_norm=1e9)
        _step_equals_the_undivided_one(disturb(load(config)), config, OBJECTIVES[name])


@pytest.mark.parametrize(
    "objective", [CENTRED, *(Objective.of(SECTIONS[name](beta=1.0)) for name in ("aot", "dr_dpo"))]
)
def test_per_micro_batch_it_would_be_another_gradient(objective, tiny_model):
    config = settings(tiny_model, training__token_budget=50, training__max_grad_norm=1e9)
    loaded = disturb(load(config))
    _, wanted = _undivided(loaded, objective)
    loaded.policy.network.zero_grad()
    for group in loaded.budget.cut(PAIRS):
        losses = objective(loaded.policy.score(group).summed(), loaded.reference.logps(group).summed()).losses
        (losses.sum() / len(PAIRS)).backward()
    naive = torch.cat([p.grad.flatten() for _, p in loaded.policy.trainable])
    assert (naive - wanted).norm() > 1e-2 * wanted.norm()
