from __future__ import annotations

import contextlib
import math
import shutil
import signal
import threading
from dataclasses import replace

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook
from transformers import AutoModelForCausalLM

import oracles
from tiebreak import faults
from tiebreak.errors import NotFinite, Preempted, RunError, TrainingError
from tiebreak.evaluation.watching import Seen
from tiebreak.maths.objectives import Objective
from tiebreak.progress import Silent
from tiebreak.training.budget import Budget
from tiebreak.training.loop import Outcome
from tiebreak.training.preemption import listening
from tiebreak.training.start_check import check_start
from tiebreak.training.trained import Loaded
from tiny import Always, cut_off, disturb, load, recorded, run, said, same, scores, settings, step, token_pairs, weights

PAIRS = token_pairs(13)
EVERY_STEP = {"training.pairs_per_step": 3, "training.shuffle": False, "evaluation.probes": 5}


def _learn(loaded, config, pairs=PAIRS):
    return step(loaded, config, pairs)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Weights and steps of a training that nobody disturbs; under one name it is trained once."""
    found = {}

    def trained(name, begin):
        if name not in found:
            folder = tmp_path_factory.mktemp("undisturbed")
            loaded, config = begin(folder)
            _train(loaded, config, folder / "run")
            found[name] = weights(loaded.policy.network), _steps(folder / "run")
        return found[name]

    return trained


def _train(loaded, config, folder, probe=None, pairs=PAIRS, stop=None):
    watchers = [Always(probe)] if probe else []
    return run(config, pairs, folder, loaded=loaded, watchers=watchers, stop=stop).outcome


# ------------------------------------------------------------------------------------------------------------ one step


class _Small:
    """A scorer on a device that holds no more than `most` tokens at once."""

    def __init__(self, scorer, most):
        self._scorer, self._most = scorer, most
        self.micro_batches, self.num_tokens, self.layout = scorer.micro_batches, scorer.num_tokens, scorer.layout

    def tokens(self, pairs, beside=None, against=None):
        if self.num_tokens(pairs) > self._most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return self._scorer.tokens(pairs, beside, against)


def _scored_by(loaded, scorer):
    policy = replace(loaded.policy, scorer=scorer)
    return Loaded(policy, loaded.reference, Budget(policy, loaded.budget.tokens))


def test_running_out_of_memory_redoes_the_step_with_the_same_pairs(tiny_model):
    found = []
    for most in (100_000, 60):
        config = settings(tiny_model, training__token_budget=400, training__max_grad_norm=1e9)
        loaded = disturb(load(config))
        loaded = _scored_by(loaded, _Small(loaded.policy.scorer, most))
        metrics, norm = _learn(loaded, config)
        found.append((metrics.means(), norm, weights(loaded.policy.network)))
    (means, norm, moved), (again, norm_again, moved_again) = found
    assert loaded.budget.tokens <= 60
    assert again == pytest.approx(means, rel=1e-5, abs=1e-5)
    assert norm_again == pytest.approx(norm, rel=1e-5)
    assert all(torch.allclose(moved[name], moved_again[name], atol=1e-5) for name in moved)


def test_a_pair_that_does_not_fit_alone_stops_with_one_line_and_moves_nothing(tiny_model):
    config = settings(tiny_model, training__token_budget=400)
    loaded = load(config)
    loaded = _scored_by(loaded, _Small(loaded.policy.scorer, 5))
    before = weights(loaded.policy.network)
    with pytest.raises(TrainingError, match=r"step 1: out of memory with one pair at a time.*data\.max_length"):
        _learn(loaded, config)
    assert same(before, weights(loaded.policy.network))


def test_other_errors_are_not_taken_for_a_lack_of_memory(tiny_model):
    config = settings(tiny_model)
    loaded = load(config)
    loaded = Loaded(replace(loaded.policy, scorer=None), loaded.reference, loaded.budget)
    with pytest.raises(AttributeError):
        _learn(loaded, config)


@pytest.mark.parametrize("kind", ["lora", "none"])
def test_the_gradient_of_a_step_does_not_depend_on_the_token_budget(kind, tiny_model):
    found = []
    for budget in (8, 90, 100_000):
        config = settings(tiny_model, kind, training__token_budget=budget, training__max_grad_norm=1e9)
        loaded = load(config)
        disturb(loaded)
        metrics, norm = _learn(loaded, config)
        found.append((metrics.means(), norm, {name: p.grad for name, p in loaded.policy.trainable}))
        assert metrics.values.shape == (len(PAIRS), 7)
    for means, norm, gradients in found[1:]:
        assert means == pytest.approx(found[0][0], rel=1e-5, abs=1e-5)
        assert norm == pytest.approx(found[0][1], rel=1e-5)
        for name, gradient in gradients.items():
            scale = found[0][2][name].abs().max().item()
            assert (gradient - found[0][2][name]).abs().max().item() <= 1e-5 * scale, name


def test_a_step_equals_the_float64_oracle(tiny_model):
    limit, rate, decay = 0.5, 1e-3, 0.1
    config = settings(
        tiny_model, "none", training__max_grad_norm=limit, training__weight_decay=decay, training__learning_rate=rate
    )
    loaded = load(config)
    disturb(loaded)
    exact = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float64, attn_implementation="eager").eval()
    with torch.no_grad():
        reference = [
            tuple(float(oracles.differentiable_logp(exact, p.prompt_ids, c)) for c in (p.chosen_ids, p.rejected_ids))
            for p in PAIRS
        ]
    started = {name: p.flatten().tolist() for name, p in loaded.policy.network.named_parameters()}
    exact.load_state_dict(loaded.policy.network.state_dict())
    rows = [(p.prompt_ids, p.chosen_ids, p.rejected_ids) for p in PAIRS]
    loss, gradient = oracles.dpo_step_gradient(exact, rows, reference, beta=config.loss.beta)

    metrics, norm = _learn(loaded, config)

    flat, expected_norm = oracles.clipped([g for values in gradient.values() for g in values], limit)
    assert metrics.means()["loss"] == pytest.approx(loss, rel=1e-5)
    assert norm == pytest.approx(expected_norm, rel=1e-5)
    assert expected_norm > limit
    top = max(map(abs, flat))
    ours = torch.cat([p.grad.flatten() for _, p in loaded.policy.trainable]).double()
    assert (ours - torch.tensor(flat, dtype=torch.float64)).abs().max().item() <= 1e-5 * top
    for name, parameter in loaded.policy.trainable:
        decays = decay if parameter.ndim >= 2 else 0.0
        updated = oracles.adamw(started[name], [parameter.grad.double().flatten().tolist()], [rate], decays)
        assert parameter.flatten().tolist() == pytest.approx(updated, rel=1e-5, abs=1e-6), name


def test_the_norm_is_told_before_clipping_and_the_gradient_is_clipped(tiny_model):
    config = settings(tiny_model, training__max_grad_norm=1e-3)
    loaded = load(config)
    _, norm = _learn(loaded, config)
    left = math.sqrt(sum(p.grad.double().square().sum().item() for _, p in loaded.policy.trainable))
    assert norm > 1
    assert left == pytest.approx(1e-3, rel=1e-3)


def test_a_step_of_fewer_pairs_divides_by_its_own_pairs(tiny_model):
    config = settings(tiny_model, training__pairs_per_step=50, training__max_grad_norm=1e9)
    norms = []
    for pairs in (PAIRS[:2], [pair for pair in PAIRS[:2] for _ in range(4)]):
        norms.append(_learn(load(config), config, pairs)[1])
    assert norms[0] == pytest.approx(norms[1], rel=1e-5)


# ---------------------------------------------------------------------------------------------------- a beta that moves


def test_a_beta_that_moves_is_recorded_seen_by_watchers_and_the_same_after_a_kill(tiny_model, tmp_path):
    loss = {"name": "dpo", "beta": 0.6, "beta_schedule": {"to": 0.2}}

    def set_up(folder):
        return settings(tiny_model, loss=loss, reference__store=str(folder / "store"), **TWICE)

    config = set_up(tmp_path / "whole")
    looks = []

    class Looks:
        def due(self, step):
            return True

        def look(self, step, objective):
            looks.append((step, objective.settings["beta"]))
            return Seen({})

        def hear(self, row):
            pass

    whole = run(config, PAIRS, tmp_path / "whole", watchers=[Looks()])
    betas = [row["beta"] for row in whole.rows()]
    assert betas == pytest.approx([0.6 - 0.4 * step / (len(betas) - 1) for step in range(len(betas))])
    assert looks == [(0, 0.6), *zip(range(1, len(betas) + 1), betas, strict=True)]
    # Each step is that of a run whose beta it always was.
    alone = run(settings(tiny_model, loss={"name": "dpo", "beta": 0.6}, **TWICE), PAIRS, tmp_path / "alone")
    assert alone.rows()[0]["loss"] == whole.rows()[0]["loss"]
    assert alone.rows()[1]["rewards/margins"] / 0.6 == pytest.approx(whole.rows()[1]["rewards/margins"] / betas[1])
    cut = set_up(tmp_path / "cut")
    cut_off(cut, PAIRS, tmp_path / "cut", 4)
    resumed = run(cut, PAIRS, tmp_path / "cut")
    assert same(weights(resumed.loaded.policy.network), weights(whole.loaded.policy.network))
    assert [row["beta"] for row in resumed.rows()] == betas


@pytest.mark.parametrize("name", ["beta_dpo", "alpha_dpo"])
def test_what_an_objective_remembers_moves_once_a_step_and_is_the_same_after_a_kill(name, tiny_model, tmp_path):
    seen = []

    class Looks:
        def due(self, step):
            return True

        def look(self, step, objective):
            seen.append(objective.running)
            return Seen({})

        def hear(self, row):
            pass

    def set_up(folder):
        return settings(tiny_model, loss={"name": name}, reference__store=str(folder / "store"), **TWICE)

    whole = run(set_up(tmp_path / "whole"), PAIRS, tmp_path / "whole", watchers=[Looks()])
    assert seen[0] == (0.0, 0.0) and seen[-1] == whole.outcome.running
    assert [mean for mean, _ in seen[1:]] == pytest.approx(
        [0.9 * before[0] + 0.1 * row["logratio_gap"] for before, row in zip(seen, whole.rows(), strict=False)], rel=1e-5
    )
    assert whole.outcome.running[1] > 0
    cut_off(set_up(tmp_path / "cut"), PAIRS, tmp_path / "cut", 4)
    resumed = run(set_up(tmp_path / "cut"), PAIRS, tmp_path / "cut")
    assert resumed.outcome.running == whole.outcome.running
    assert same(weights(resumed.loaded.policy.network), weights(whole.loaded.policy.network))


def test_how_a_step_is_cut_does_not_change_which_of_its_pairs_are_kept(tiny_model, tmp_path):
    config = settings(tiny_model, loss={"name": "beta_dpo"}, **TWICE | {"training__pairs_per_step": 5})
    whole = run(config, PAIRS, tmp_path / "whole")
    keeping = {"name": "beta_dpo", "kept_share": 1.0}
    every = run(
        settings(tiny_model, loss=keeping, **TWICE | {"training__pairs_per_step": 5}), PAIRS, tmp_path / "every"
    )
    assert [row["loss"] for row in whole.rows()] != [row["loss"] for row in every.rows()]
    cut = settings(
        tiny_model, loss={"name": "beta_dpo"}, **TWICE | {"training__pairs_per_step": 5, "training__token_budget": 16}
    )
    pieces = run(cut, PAIRS, tmp_path / "pieces")
    for one, two in zip(whole.rows(), pieces.rows(), strict=True):
        assert one["loss"] == pytest.approx(two["loss"], rel=1e-3)


# ------------------------------------------------------------------------------------------------------- stopping early


def test_a_loss_that_is_not_finite_stops_before_the_optimizer_and_names_the_pair(tiny_model, tmp_path):
    config = settings(tiny_model, "none", **EVERY_STEP)
    loaded, poison = load(config), PAIRS[7].chosen_ids[0]
    poisoned = [p for p in PAIRS if poison in p.prompt_ids + p.chosen_ids + p.rejected_ids]
    assert poisoned == [PAIRS[7]]
    with torch.no_grad():
        loaded.policy.network.get_input_embeddings().weight[poison] = float("nan")
    kept = {}
    with pytest.raises(TrainingError) as caught:
        _train(loaded, config, tmp_path, lambda: kept.update(weights(loaded.policy.network)) or {})
    message = str(caught.value)
    assert "step 3" in message
    assert "loss is not finite for 1 pairs (pair00700000)" in message
    assert [row["step"] for row in recorded(tmp_path) if "loss" in row] == [1, 2]
    now = weights(loaded.policy.network)
    assert all(torch.equal(now[name].nan_to_num(), kept[name].nan_to_num()) for name in kept)


@pytest.mark.parametrize("kind", ["lora", "none"])
def test_a_gradient_that_is_not_finite_stops_before_the_optimizer(kind, tiny_model):
    config = settings(tiny_model, kind)
    loaded = load(config)
    before = weights(loaded.policy.network)
    loaded.policy.trainable[3][1].register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(TrainingError, match=r"gradient norm is not finite for 13 pairs \(pair00000000, .*…\)"):
        _learn(loaded, config)
    assert same(weights(loaded.policy.network), before)


@pytest.mark.parametrize("kind", ["lora", "none"])
@pytest.mark.parametrize(
    ("scale", "words"), [(0.05, r"instead of 0\.693147"), (float("nan"), r"not finite for 4 of 4 pairs \(pair0")]
)
def test_training_does_not_start_where_policy_and_reference_differ(kind, scale, words, tiny_model, tmp_path):
    config = settings(tiny_model, kind)
    loaded = load(config)
    disturb(loaded, scale)
    before = {name: tensor.nan_to_num() for name, tensor in weights(loaded.policy.network).items()}
    with pytest.raises(TrainingError, match=rf"{words}.*nothing was trained"):
        _train(loaded, config, tmp_path)
    assert same({name: tensor.nan_to_num() for name, tensor in weights(loaded.policy.network).items()}, before)
    assert recorded(tmp_path) == []


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("case", ["lora", "adapter", "none", "adapter merged"])
def test_a_fresh_policy_passes_the_check_at_the_start(case, dtype, tiny_model, tiny_adapter):
    kind, model = (
        "none" if case in ("none", "adapter merged") else "lora",
        tiny_adapter if "adapter" in case else tiny_model,
    )
    config = settings(model, kind, model__dtype=dtype, adapter__dropout=0.5, loss__label_smoothing=0.1)
    loaded = load(config)
    check_start(loaded.policy, loaded.reference, Objective.of(config.loss), PAIRS[:8], loaded.budget.cut, Silent())
    assert {p.grad for _, p in loaded.policy.trainable} == {None}


@pytest.fixture
def ctrl_c():
    """Ctrl-C as in a terminal; a shell's background jobs, some CI among them, start with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", ["in the backward pass", "right after the update"])
@pytest.mark.parametrize("model", ["tiny_model", "tiny_adapter"])
def test_a_signal_in_the_middle_of_a_step_ends_the_run_after_it_and_nothing_is_lost(
    model, moment, number, request, tmp_path, undisturbed
):
    config, calls = settings(request.getfixturevalue(model), **EVERY_STEP, adapter__dropout=0.3), []
    whole, steps = undisturbed(model, lambda _: (load(config), config))
    cut = load(config)

    def press(*_):
        calls.append(None)
        if len(calls) == 3:
            signal.raise_signal(number)

    if moment == "in the backward pass":
        hook = cut.policy.trainable[0][1].register_hook(press)
    else:
        hook = register_optimizer_step_post_hook(press)
    handler = signal.getsignal(number)
    with listening() as stop, pytest.raises(Preempted, match="run the same command again"):
        _train(cut, config, tmp_path / "cut", stop=stop)
    hook.remove()
    assert signal.getsignal(number) is handler
    assert (tmp_path / "cut" / "checkpoints" / f"step-{len(_steps(tmp_path / 'cut')):08}").is_dir()
    assert 0 < len(_steps(tmp_path / "cut")) < 5
    resumed = load(config)
    _train(resumed, config, tmp_path / "cut")
    assert same(weights(resumed.policy.network), whole)
    assert _steps(tmp_path / "cut") == steps


def _steps(folder):
    return [(row["step"], row["loss"]) for row in recorded(folder) if "loss" in row]


@pytest.mark.usefixtures("ctrl_c")
def test_a_second_signal_ends_at_once(tiny_model, tmp_path):
    config = settings(tiny_model, **EVERY_STEP)

    def probe():
        signal.raise_signal(signal.SIGTERM)
        return {}

    def twice():
        probe()
        return probe()

    with listening() as stop, pytest.raises(Preempted):
        _train(load(config), config, tmp_path / "once", probe, stop=stop)
    with listening() as stop, stop.held(), pytest.raises(KeyboardInterrupt):
        _train(load(config), config, tmp_path / "twice", twice, stop=stop)


TWICE = {"training__epochs": 2, "training__pairs_per_step": 3, "training__checkpoint_steps": 1}


@pytest.mark.parametrize("kind", ["lora", "none"])
@pytest.mark.parametrize("last", range(1, 10))
def test_training_that_goes_on_from_any_step_ends_with_the_same_bits(kind, last, tiny_model, tmp_path, undisturbed):
    def set_up(folder):
        return settings(tiny_model, kind, adapter__dropout=0.3, reference__store=str(folder / "store"), **TWICE)

    def begin(folder):
        return load(set_up(folder)), set_up(folder)

    whole, steps = undisturbed(f"with dropout, {kind}", begin)
    config = set_up(tmp_path)
    cut_off(config, PAIRS, tmp_path / "cut", last)
    resumed = load(config)
    _train(resumed, config, tmp_path / "cut")
    assert same(weights(resumed.policy.network), whole)
    assert _steps(tmp_path / "cut") == steps


def _filled(store, config, by: float) -> None:
    """Put values into a store that are off by a little, as those of another micro-batch are in their last bits."""
    loaded = load(config)
    loaded.reference.logps(PAIRS)
    for row in loaded.reference._store._buffer.values():
        row.add_(by)
    loaded.reference.flush()


def _lose(store, config) -> None:
    shutil.rmtree(store)


def _share(store, config) -> None:
    shutil.rmtree(store)
    _filled(store, config, by=2e-3)


@pytest.mark.parametrize("happening", [_lose, _share])
@pytest.mark.parametrize("kind", ["lora", "none"])
@pytest.mark.parametrize("last", [3, 6, 8])
def test_what_becomes_of_the_reference_store_meanwhile_changes_no_bit(
    kind, last, happening, tiny_model, tmp_path, undisturbed
):
    def set_up(folder):
        config = settings(tiny_model, kind, reference__store=str(folder / "store"), **TWICE)
        _filled(folder / "store", config, by=1e-3)
        return config

    def begin(folder):
        config = set_up(folder)
        return load(config), config

    whole, _ = undisturbed(f"with a filled store, {kind}", begin)
    config = set_up(tmp_path)
    cut_off(config, PAIRS, tmp_path / "cut", last)
    happening(tmp_path / "store", config)
    resumed = load(config)
    _train(resumed, config, tmp_path / "cut")
    assert same(weights(resumed.policy.network), whole)


def test_a_checkpoint_beyond_the_last_step_is_refused(tiny_model, tmp_path):
    cut_off(settings(tiny_model, **TWICE), PAIRS, tmp_path, 8)
    shorter = settings(tiny_model, **TWICE | {"training__epochs": 1})
    with pytest.raises(RunError, match=r"of step 7 and this configuration has 5 steps; .*--resume never"):
        _train(load(shorter), shorter, tmp_path)


def test_a_weight_multiplies_the_loss_of_its_pair(tiny_model):
    config = settings(tiny_model, "none", training__max_grad_norm=1e9, training__pairs_per_step=50)
    assert _learn(load(config), config, [replace(PAIRS[0], weight=0.0)])[1] == 0
    twice = [replace(PAIRS[0], weight=2.0), replace(PAIRS[1], weight=0.0)]
    norms = [_learn(load(config), config, pairs)[1] for pairs in ([PAIRS[0]], twice)]
    assert norms[0] == pytest.approx(norms[1], rel=1e-5)


def test_a_loss_that_is_not_finite_goes_back_to_the_last_checkpoint_with_half_the_rate(tiny_model, tmp_path):
    changes = {"training__on_divergence": "rollback", "training__checkpoint_steps": 1}
    config = settings(tiny_model, **EVERY_STEP, **changes)
    faults.arm("nan@step:gradient:3")
    try:
        _train(load(config), config, tmp_path)
    finally:
        faults.arm(None)
    rows = recorded(tmp_path)
    (back,) = [row for row in rows if "rollback" in row]
    assert back == {"step": 2, "rollback": 1, "rate_scale": 0.5}
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3, 4, 5]
    (tmp_path / "plain").mkdir()
    _train(load(config), config, tmp_path / "plain")
    rates, plain = (
        [row["learning_rate"] for row in found if "loss" in row] for found in (rows, recorded(tmp_path / "plain"))
    )
    assert rates == pytest.approx([*plain[:2], *(rate / 2 for rate in plain[2:])])


def test_steps_that_are_taken_back_are_taken_back_from_what_is_shown(tiny_model, tmp_path):
    shown = []

    class Counting(Silent):
        @contextlib.contextmanager
        def stage(self, name, total):
            if name == "training":
                yield lambda amount=1, numbers=None: shown.append(amount)
            else:
                yield lambda amount=1, numbers=None: None

    config = settings(tiny_model, **EVERY_STEP, training__on_divergence="rollback", training__checkpoint_steps=2)
    faults.arm("nan@step:gradient:4,nan@step:gradient:6")
    try:
        run(config, PAIRS, tmp_path, progress=Counting())
    finally:
        faults.arm(None)
    assert [amount for amount in shown if amount] == [1, 1, 1, -1, 1, -1, 1, 1, 1]  # of step 4, twice
    assert sum(shown) == 5


def test_a_loss_that_is_never_finite_stops_after_three_rollbacks(tiny_model, tmp_path):
    config = settings(tiny_model, **EVERY_STEP, training__on_divergence="rollback", training__checkpoint_steps=1)
    faults.arm(",".join(f"nan@step:gradient:{visit}" for visit in range(3, 9)))
    try:
        with pytest.raises(NotFinite, match="step 3: the loss is not finite"):
            _train(load(config), config, tmp_path)
    finally:
        faults.arm(None)
    assert sum("rollback" in row for row in recorded(tmp_path)) == 1  # each one forgets the row of the one before


def test_training_works_outside_the_main_thread(tiny_model, tmp_path):
    config, outcomes = settings(tiny_model, training__pairs_per_step=7), []
    worker = threading.Thread(target=lambda: outcomes.append(_train(load(config), config, tmp_path)))
    worker.start()
    worker.join()
    assert [outcome.num_steps for outcome in outcomes] == [2]


# ---------------------------------------------------------------------------------------------------------- whole runs


@pytest.mark.parametrize("kind", ["lora", "none"])
def test_the_same_seed_gives_bit_equal_weights_whatever_the_caller_s_stream(kind, tiny_model, tmp_path):
    found = []
    for caller, seed in ((1, 4), (2, 4), (1, 5)):
        torch.manual_seed(caller)
        config = settings(tiny_model, kind, training__seed=seed, adapter__dropout=0.3, training__pairs_per_step=3)
        loaded = load(config)
        _train(loaded, config, tmp_path / f"{caller}-{seed}")
        found.append(weights(loaded.policy.network))
    assert same(found[0], found[1])
    assert not same(found[0], found[2])


def test_training_leaves_the_caller_s_random_stream_alone(tiny_model, tmp_path):
    config = settings(tiny_model, adapter__dropout=0.3)
    loaded = load(config)
    torch.manual_seed(9)
    before = torch.get_rng_state()
    _train(loaded, config, tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


def test_every_step_is_recorded_with_the_rate_that_it_used(tiny_model, tmp_path):
    config = settings(
        tiny_model, training__epochs=2, training__pairs_per_step=3, training__warmup_share=0.2, evaluation__probes=3
    )
    loaded = load(config)
    outcome = run(
        config, PAIRS, tmp_path, loaded=loaded, watchers=[Always(lambda: {"heldout/loss": 1.0}, {0, 3, 7, 10})]
    ).outcome
    rows, probes = ([row for row in recorded(tmp_path) if key in row] for key in ("loss", "heldout/loss"))
    assert isinstance(outcome, Outcome)
    assert outcome.num_steps == 10
    assert [row["step"] for row in rows] == list(range(1, 11))
    assert [row["epoch"] for row in rows] == [1] * 5 + [2] * 5
    assert [row["learning_rate"] for row in rows] == pytest.approx(oracles.rates(10, 2, 1e-3, "linear"))
    assert [row["step"] for row in probes] == [0, 3, 7, 10]
    assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert rows[-1]["loss"] < 0.6
    assert not loaded.policy.network.training


@pytest.mark.parametrize(("weight", "num_warnings"), [(0.0, 1), (1.0, 0)])
def test_a_first_step_that_teaches_nothing_is_warned_of(weight, num_warnings, tiny_model, tmp_path):
    config, told = settings(tiny_model, **EVERY_STEP), []

    class Warned(Silent):
        def warn(self, text):
            told.append(text)

    pairs = [replace(pair, weight=weight) for pair in PAIRS[:6]]
    run(config, pairs, tmp_path / "run", loaded=load(config), progress=Warned())
    assert ["the gradient is exactly 0" in text for text in told].count(True) == num_warnings


def test_pairs_are_learned_the_way_their_labels_point(tiny_model, tmp_path):
    config = settings(tiny_model, training__epochs=6, training__learning_rate=5e-3)
    loaded = load(config)
    _train(loaded, config, tmp_path)
    ours, reference = scores(loaded.policy, PAIRS), said(loaded.reference, PAIRS)
    assert (ours.gap - reference.gap).min() > 0


class _Enough:
    """A watcher that has seen enough after some steps."""

    def __init__(self, after):
        self._after = after

    def due(self, step):
        return step >= self._after

    def look(self, step, objective):
        return Seen({"heldout/loss": 0.5}, stop="held-out loss rises")

    def hear(self, row):
        pass


def test_a_watcher_can_end_training_and_a_run_that_goes_on_stays_ended(tiny_model, tmp_path):
    config = settings(tiny_model, **EVERY_STEP)
    ran = run(config, PAIRS, tmp_path, watchers=[_Enough(2)])
    assert (ran.outcome.num_steps, ran.outcome.num_steps_done) == (5, 2)
    assert [row["step"] for row in recorded(tmp_path)] == [1, 2, 2]
    again = run(config, PAIRS, tmp_path)
    assert again.outcome.num_steps_done == 2
    assert same(weights(again.loaded.policy.network), weights(ran.loaded.policy.network))
