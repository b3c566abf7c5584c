"""A reference that follows the policy: what it holds after each step, and what does not move with it."""

from __future__ import annotations

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM

import families
import oracles
from tiebreak.config import load_config
from tiebreak.engine.loading import quietly
from tiebreak.engine.weights import parameters_of
from tiebreak.errors import ConfigError, TrainingError
from tiebreak.maths.objectives import Objective
from tiebreak.progress import Silent
from tiebreak.training.start_check import check_start
from tiny import disturb, load, recorded, run, same, settings, step, token_pairs, token_thumbs

PAIRS = token_pairs(15)
STEPS = {"training.pairs_per_step": 3, "training.shuffle": False, "training.epochs": 2, "training.schedule": "constant"}
FORMS = ["lora", "continued", "none"]


def moving(model, form, every=2, share=0.6, **changes):
    """Settings of a run whose reference moves."""
    moves = {"reference.moves.every": every, "reference.moves.share": share}
    return settings(model, "none" if form == "none" else "lora", **STEPS | moves | changes)


@pytest.fixture(params=FORMS)
def form(request):
    return request.param


@pytest.fixture
def model(form, tiny_model, tiny_adapter):
    return tiny_adapter if form == "continued" else tiny_model


def _own(model):
    return {name: p.detach().clone() for name, p in parameters_of(model.network, model.adapter).items()}


def _followed(loaded):
    with loaded.moving.model() as now:
        return _own(now)


# ----------------------------------------------------------------------------------------------------------- what it is


def test_it_starts_as_the_policy_does_and_draws_nothing_of_the_policy_s_own(form, model):
    loaded = load(moving(model, form))
    assert same(_followed(loaded), _own(loaded.policy))
    plain = load(settings(model, "none" if form == "none" else "lora"))
    assert same(_own(plain.policy), _own(loaded.policy))
    assert plain.moving is None
    assert plain.compared is plain.reference
    check_start(
        loaded.policy, loaded.compared, Objective.of(settings(model).loss), PAIRS[:5], loaded.budget.cut, Silent()
    )


def test_the_start_check_still_finds_a_policy_that_is_not_its_reference(form, model):
    loaded = disturb(load(moving(model, form)))
    with pytest.raises(TrainingError, match=r"policy and reference differ \(reference: .*moves 0\.6 of the way"):
        check_start(
            loaded.policy, loaded.compared, Objective.of(settings(model).loss), PAIRS[:5], loaded.budget.cut, Silent()
        )


def test_only_the_policy_is_trained_and_only_moves_change_the_reference(form, model):
    loaded = load(moving(model, form, every=100))
    before, trainable = _followed(loaded), [name for name, _ in loaded.policy.trainable]
    assert not any(".moving" in name for name in trainable)
    disturb(loaded)
    loaded.compared.logps(PAIRS[:2])
    step(loaded, moving(model, form, every=100), PAIRS[:3])
    assert same(_followed(loaded), before)
    assert loaded.compared.moved(99) == {}
    assert same(_followed(loaded), before)
    assert [name for name, _ in loaded.policy.trainable] == trainable


@pytest.mark.parametrize("share", [1.0, 0.6, 0.25])
def test_each_move_is_a_mean_of_its_weights_and_the_policy_s(share, form, model):
    loaded = load(moving(model, form, every=1, share=share))
    wanted = {name: tensor.double() for name, tensor in _followed(loaded).items()}
    for number in (1, 2, 3):
        disturb(loaded)
        assert loaded.compared.moved(number) == {"reference_moves": number}
        theirs = _own(loaded.policy)
        wanted = {name: share * theirs[name].double() + (1 - share) * own for name, own in wanted.items()}
        found = _followed(loaded)
        assert all(torch.allclose(found[name].double(), own, atol=1e-6) for name, own in wanted.items())
        if share == 1:
            assert same(found, theirs)
            assert torch.equal(loaded.compared.logps(PAIRS[:4]).values, loaded.policy.score(PAIRS[:4]).values)


def test_the_start_stays_where_it_was_and_is_what_is_measured(form, model, tmp_path):
    config = moving(model, form, every=1, share=1.0)
    loaded = load(config)
    with loaded.reference.model() as start, torch.no_grad():
        before = start.score(PAIRS).values
    run(config, PAIRS, tmp_path, loaded=loaded)
    with loaded.reference.model() as start, torch.no_grad():
        assert torch.equal(start.score(PAIRS).values, before)
    assert torch.equal(loaded.compared.logps(PAIRS).values, loaded.policy.score(PAIRS).values)
    assert not torch.allclose(loaded.compared.logps(PAIRS).values, before, atol=1e-3)


def test_a_policy_that_was_trained_has_no_reference_that_moves(form, model, tmp_path):
    config = moving(model, form)
    loaded = load(config)
    loaded.policy.save(tmp_path)
    start = model if form == "continued" else None
    assert load(config, trained=tmp_path, kept=start).moving is None


KINDS = {
    "weights split into size and direction": {"use_dora": True},
    "ranks of their own": {"rank_pattern": {"q_proj": 5}, "alpha_pattern": {"q_proj": 3}},
    "a head of its own": {"modules_to_save": ["lm_head"]},
    "tokens of its own": {"trainable_token_indices": [3, 4]},
    "embeddings": {"target_modules": ["q_proj", "embed_tokens"]},
}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_all_that_an_adapter_trains_moves(kind, tiny_model, tmp_path):
    with quietly():
        settled = {"r": 2, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"} | kind
        made = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model), peft.LoraConfig(**settled))
        with torch.no_grad():
            for parameter in made.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.1 * torch.randn_like(parameter))
        made.save_pretrained(tmp_path)
    _moves_wholly(tmp_path)


def test_adapters_on_stacked_experts_move_each_by_itself(tokenizer, tmp_path):
    families.raw("mixtral", **families.PACKABLE["mixtral"] | {"vocab_size": len(tokenizer)}).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    _moves_wholly(tmp_path)


def _moves_wholly(model):
    loaded = load(moving(model, "lora", every=1, share=1.0))
    assert torch.equal(loaded.compared.logps(PAIRS).values, loaded.policy.score(PAIRS).values)
    trained = {id(parameter) for _, parameter in loaded.policy.trainable}
    assert {id(p) for p in parameters_of(loaded.policy.network, loaded.policy.adapter).values()} == trained
    before = loaded.compared.logps(PAIRS).values
    disturb(loaded)
    loaded.compared.moved(1)
    assert torch.equal(loaded.compared.logps(PAIRS).values, loaded.policy.score(PAIRS).values)
    assert not torch.allclose(loaded.compared.logps(PAIRS).values, before, atol=1e-3)


# ----------------------------------------------------------------------------------------------------------- whole runs


def _oracle(path, share, every, num_steps, rate, beta):
    """TR-DPO as the paper has it, in float64: one sequence at a time, gradients by the paper's expression for them."""
    policy, reference = (
        AutoModelForCausalLM.from_pretrained(path, dtype=torch.float64, attn_implementation="eager").eval()
        for _ in range(2)
    )
    optimizer, losses = torch.optim.AdamW(policy.parameters(), lr=rate, weight_decay=0.0), []
    for number in range(num_steps):
        first = 3 * number % len(PAIRS)
        rows = [(p.prompt_ids, p.chosen_ids, p.rejected_ids) for p in PAIRS[first : first + 3]]
        with torch.no_grad():
            said = [
                tuple(float(oracles.differentiable_logp(reference, prompt, one)) for one in both)
                for prompt, *both in rows
            ]
        loss, gradient = oracles.dpo_step_gradient(policy, rows, said, beta=beta)
        losses.append(loss)
        norm = sum(g * g for values in gradient.values() for g in values) ** 0.5
        for name, parameter in policy.named_parameters():
            scaled = torch.tensor(gradient[name], dtype=torch.float64) * min(1.0, 1.0 / norm)
            parameter.grad = scaled.view_as(parameter)
        optimizer.step()
        if (number + 1) % every == 0:
            theirs = dict(policy.named_parameters())
            with torch.no_grad():
                for name, own in reference.named_parameters():
                    own.copy_(share * theirs[name] + (1 - share) * own)
    return losses, dict(reference.named_parameters())


@pytest.mark.parametrize(("share", "every"), [(1.0, 3), (0.6, 2), (1.0, 1)])
def test_a_run_of_all_weights_is_that_of_a_plain_loop(share, every, tiny_model, tmp_path):
    config = moving(tiny_model, "none", every=every, share=share)
    ran = run(config, PAIRS, tmp_path)
    losses, reference = _oracle(tiny_model, share, every, 10, config.learning_rate, config.loss.beta)
    assert [row["loss"] for row in ran.rows()] == pytest.approx(losses, abs=1e-5)
    found = _followed(ran.loaded)
    apart = max((found[name].double() - own).abs().max().item() for name, own in reference.items())
    print(f"{share} every {every}: weights of the reference differ by {apart:.1e}")
    # Adam divides a gradient by its own size: rounding in one near zero moves a weight by part of a step.
    assert apart <= 0.05 * config.learning_rate
    if every == 1:
        assert losses == pytest.approx([losses[0]] * 10)  # a reference that is the policy at every step: ln 2


def test_a_run_s_steps_compare_with_a_reference_that_moved_and_metrics_say_when(form, model, tmp_path):
    ran = run(moving(model, form, every=2, share=1.0), PAIRS, tmp_path)
    moves = [(row["step"], row["reference_moves"]) for row in recorded(tmp_path) if "reference_moves" in row]
    assert moves == [(2, 1), (4, 2), (6, 3), (8, 4), (10, 5)]
    margins = [row["rewards/margins"] for row in ran.rows()]
    assert [abs(margins[index]) < 1e-5 for index in range(10)] == [index % 2 == 0 for index in range(10)]
    told = ran.loaded.moving.as_dict()
    assert (told["every"], told["share"], told["num_moves"], len(told["weights"])) == (2, 1.0, 5, 64)


COUPLED = [{"name": "aot", "beta": 0.3}, {"name": "bco", "beta": 0.3}, {"name": "dr_dpo", "beta": 0.3}]


@pytest.mark.parametrize("loss", COUPLED, ids=lambda loss: loss["name"])
def test_losses_of_a_step_move_with_it_whatever_the_micro_batches(loss, form, model, tmp_path):
    found = []
    for budget in (16, 10_000):
        config = moving(model, form, every=2, share=0.5, loss=loss, **{"training.token_budget": budget})
        (tmp_path / str(budget)).mkdir()
        found.append(run(config, PAIRS, tmp_path / str(budget)).rows())
    cut, whole = ([row["loss"] for row in rows] for rows in found)
    assert cut == pytest.approx(whole, rel=1e-3, abs=1e-4)
    frozen = settings(model, "none" if form == "none" else "lora", loss=loss, **STEPS)
    (tmp_path / "frozen").mkdir()
    stays = [row["loss"] for row in run(frozen, PAIRS, tmp_path / "frozen").rows()]
    assert stays[:2] == pytest.approx(whole[:2], rel=1e-4)
    assert abs(stays[-1] - whole[-1]) > 1e-4


def test_completions_on_their_own_and_their_baseline_compare_with_what_moved(form, model, tmp_path):
    thumbs = token_thumbs(12)
    for every, share in ((1, 1.0), (2, 0.5)):
        (tmp_path / str(every)).mkdir()
        changes = {"loss": {"name": "kto", "beta": 0.3}, "data.pairing": "none"}
        config = moving(model, form, every=every, share=share, **changes)
        losses = [row["loss"] for row in run(config, thumbs, tmp_path / str(every)).rows()]
        # The policy is its reference: λ/2 for good and bad alike, whatever was learned.
        found = [abs(loss - 0.5) < 1e-5 for loss in losses]
        assert found == [every == 1 or index == 0 for index in range(len(losses))]


# ------------------------------------------------------------------------------------------------------------- refusals


def test_a_reference_that_moves_is_not_stored():
    with pytest.raises(ConfigError, match=r"reference: .*take reference\.store out, or reference\.moves"):
        load_config(None, {"reference.moves.every": 4, "reference.store": "store"})
    for store in ("auto", "off"):
        assert load_config(None, {"reference.moves.every": 4, "reference.store": store}).reference.moves.share == 0.6


@pytest.mark.parametrize(("key", "value"), [("every", 0), ("share", 0.0), ("share", 1.1), ("alpha", 0.5)])
def test_moves_out_of_their_range_are_refused_by_name(key, value):
    with pytest.raises(ConfigError, match=rf"reference\.moves\.{key}"):
        load_config(None, {f"reference.moves.{key}": value})
