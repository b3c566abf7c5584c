"""A run on CUDA: the plan, a step with its optimizer, what a checkpoint holds, memory, and how often the host waits."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fake_card import CARD, FREE, GIB, policy_on_card
from tiebreak.engine.memory import memory_bytes, peak_memory_bytes, release_cached
from tiebreak.engine.planner import MOST_TOKENS, USABLE, make_plan
from tiebreak.engine.ranks import Alone
from tiebreak.engine.reference.kinds import AdapterOff
from tiebreak.maths.objectives import Objective
from tiebreak.progress import Silent
from tiebreak.training.budget import Budget
from tiebreak.training.optimizer import build_optimizer
from tiebreak.training.order import Step
from tiebreak.training.pace import Pace
from tiebreak.training.parts import Moments, Streams, Weights
from tiebreak.training.step import learn
from tiny import load, settings, stated, token_pairs, token_thumbs

PAIRS = stated(token_pairs(8, num_prompts=3))
FP32, BF16 = torch.float32, torch.bfloat16


@pytest.fixture(params=["lora", "none"])
def config(request, tiny_model):
    return settings(tiny_model, request.param, model__dtype="bfloat16")


@pytest.fixture
def policy(config, request):
    loaded = load(config).policy  # before tensors are fake
    request.getfixturevalue("waits")
    return policy_on_card(loaded, BF16)


@pytest.fixture
def optimizer(policy, config):
    return build_optimizer([p for _, p in policy.trainable], config.training, config.learning_rate)


def _learn(policy, optimizer, config, examples=PAIRS, objective=None, tokens=64):
    return learn(
        policy,
        _Itself(policy),
        objective or Objective.of(config.loss),
        Step(0, 0, tuple(examples)),
        optimizer,
        budget=Budget(policy, tokens),
        ranks=Alone(),
        max_grad_norm=1.0,
    )


class _Itself(AdapterOff):
    """The policy as its own reference, so that all weights may train as well as an adapter."""

    def __init__(self, policy):
        super().__init__(policy, policy.source)
        self._model = policy

    def logps(self, examples, beside=None):
        with torch.no_grad():
            return self._model.score(examples, beside)


def test_weights_are_as_wide_as_what_trains_them_needs(policy):
    frozen = {p.dtype for p in policy.network.parameters() if not p.requires_grad}
    assert {p.dtype for _, p in policy.trainable} == {FP32}
    assert frozen == ({BF16} if policy.is_adapter else set())


def test_a_step_waits_for_the_card_once(policy, optimizer, config, waits):
    policy.network.train()
    metrics, norm = _learn(policy, optimizer, config)
    assert metrics.values.device == CARD and norm == 0.0
    told = len(PAIRS) + 1  # the losses and the norm, which are read together and come one by one from what is no memory
    assert len(waits.at) == told and len(set(waits.at)) == 1 and "step.py" in waits.at[0], waits.at


def test_micro_batches_add_no_wait(policy, optimizer, config, waits):
    policy.network.train()
    _learn(policy, optimizer, config, tokens=1)
    assert len(set(waits.at)) == 1, waits.at


@pytest.mark.parametrize("loss", ["ipo", "kto", "aot", "bco", "odpo"])
def test_other_objectives_wait_no_more(loss, tiny_model, request):
    config = settings(tiny_model, "lora", model__dtype="bfloat16", loss={"name": loss})
    loaded = load(config).policy
    waits = request.getfixturevalue("waits")
    policy = policy_on_card(loaded, BF16)
    optimizer = build_optimizer([p for _, p in policy.trainable], config.training, config.learning_rate)
    examples = stated(PAIRS) if loss != "kto" else token_thumbs(8, num_prompts=3)
    _learn(policy, optimizer, config, examples)
    assert len(set(waits.at)) == 1, waits.at


def test_one_kernel_takes_the_step_and_moments_lie_where_their_parameters_are(policy, optimizer, config):
    _learn(policy, optimizer, config)
    assert all(group["fused"] for group in optimizer.param_groups)
    for _, parameter in policy.trainable:
        held = optimizer.state[parameter]
        assert {held[key].device for key in ("exp_avg", "exp_avg_sq")} == {CARD}
        assert {held[key].dtype for key in ("exp_avg", "exp_avg_sq")} == {FP32}
        assert held["step"].device == CARD  # where the one kernel of the step reads it


def test_a_checkpoint_is_written_from_the_cpu_and_goes_back_to_the_card(policy, optimizer, config):
    _learn(policy, optimizer, config)
    for part in (Weights(policy), Moments(policy, optimizer)):
        tensors = part.tensors()
        assert len(tensors) == len(policy.trainable) * (1 if part.name == "policy" else 3)
        assert {tensor.device.type for tensor in tensors.values()} == {"cpu"}
        part.restore(tensors)
    test_one_kernel_takes_the_step_and_moments_lie_where_their_parameters_are(policy, optimizer, config)
    assert {p.device for _, p in policy.trainable} == {CARD}
    _learn(policy, optimizer, config)  # and it goes on


def test_the_card_s_random_stream_is_kept_and_set(monkeypatch, waits):
    state, heard = torch.zeros(16, dtype=torch.uint8), []
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: state)
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda *told: heard.append(told))
    monkeypatch.setattr(torch, "get_rng_state", lambda: state)
    monkeypatch.setattr(torch, "set_rng_state", lambda *told: None)
    streams = Streams(CARD)
    tensors = streams.tensors()
    assert tensors.keys() == {"cpu", "cuda"}
    streams.restore(tensors)
    [(found, device)] = heard
    assert found is state and device == CARD


def test_memory_is_that_of_the_card(waits):
    assert memory_bytes(CARD) == peak_memory_bytes(CARD) == 5 * GIB
    release_cached(CARD)


def test_the_plan_counts_what_is_free_and_what_was_reserved_and_is_unused(policy):
    plan = make_plan(policy, PAIRS)
    assert plan.available_bytes == FREE + 1 * GIB
    assert plan.token_budget == MOST_TOKENS["cuda"] and "gain no speed" in plan.reason
    assert plan.token_bytes > 1


def test_the_plan_keeps_to_little_memory(policy):
    roomy = make_plan(policy, PAIRS, available_bytes=FREE)
    tight = int((roomy.optimizer_bytes + roomy.head_bytes + 200.5 * roomy.token_bytes) / USABLE) + 1
    plan = make_plan(policy, PAIRS, available_bytes=tight)
    assert plan.token_budget == 200
    assert plan.peak_bytes <= USABLE * tight


def test_a_plan_of_activations_computed_twice_goes_through_a_step(policy, optimizer, config):
    roomy = make_plan(policy, PAIRS, available_bytes=FREE)
    little = roomy.optimizer_bytes + roomy.head_bytes + (roomy.longest_pair - 0.5) * roomy.token_bytes
    plan = make_plan(policy, PAIRS, available_bytes=int(little / USABLE) + 1)
    assert plan.gradient_checkpointing and plan.token_bytes < roomy.token_bytes
    policy.network.train()
    _learn(policy, optimizer, config, tokens=plan.token_budget)


def test_autocast_of_wide_weights_is_planned_with_narrow_activations(tiny_model, request):
    config = settings(tiny_model, "none", model__dtype="float32")
    loaded = load(config).policy
    request.getfixturevalue("waits")
    wide = policy_on_card(loaded, FP32)
    narrow = replace(wide, dtype=BF16, scorer=policy_on_card(wide, BF16).scorer)
    assert make_plan(narrow, PAIRS).token_bytes < make_plan(wide, PAIRS).token_bytes


def test_the_first_step_is_timed_when_the_card_is_done(policy, monkeypatch):
    done = []
    monkeypatch.setattr(torch.cuda, "synchronize", done.append)
    monkeypatch.setattr(torch.random, "fork_rng", _Nothing)
    policy.ranks.kept[policy.key] = policy
    Pace(policy, Silent()).estimate([Step(0, 0, tuple(PAIRS))], Budget(policy, 64), 10)
    assert done and set(done) == {CARD}
    assert all(p.grad is None for _, p in policy.trainable)


class _Nothing:
    """Streams of numbers that are left alone; the card has none."""

    def __init__(self, devices):
        assert list(devices) == [CARD]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None
