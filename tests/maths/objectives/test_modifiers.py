"""What changes an objective and is no parameter of its formula, against float64 loops of its own."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
import torch

import tiebreak
from drawn import as_tensors, drawn, objective
from preferences import ORACLES, psi, tokens_gap, under
from tiebreak.config import build_config
from tiebreak.config.losses import SECTIONS
from tiebreak.config.losses.loss import MODIFIERS, BetaSchedule, OfPairs, OfSums
from tiebreak.errors import ConfigError
from tiebreak.maths.objectives import slopes
from tiebreak.maths.objectives.modifiers import Modifiers

OF_SUMS = [name for name, section in SECTIONS.items() if issubclass(section, OfSums)]
DIVERGENCES = {
    "js": {"divergence": "js"},
    "forward_kl": {"divergence": "forward_kl"},
    "alpha": {"divergence": "alpha", "divergence_alpha": 0.3},
    "chi_po": {"divergence": "chi_po", "max_reward": 1.5},
}


def test_every_modifier_of_the_configuration_is_one_of_an_objective():
    assert set(MODIFIERS) == set(Modifiers.__dataclass_fields__)


# --------------------------------------------------------------------------------------------------------- divergences


def _under(pairs, asked):
    said = asked.modifiers
    return [under(p, said.divergence, asked.settings["beta"], said.divergence_alpha, said.max_reward) for p in pairs]


@pytest.mark.parametrize("settings", DIVERGENCES.values(), ids=DIVERGENCES)
@pytest.mark.parametrize("name", OF_SUMS)
def test_another_divergence_is_the_objective_of_what_its_link_makes_of_log_ratios(name, settings):
    pairs, asked = drawn(2), objective(name, beta=0.2, **settings)
    policy, reference, stated = as_tensors(pairs)
    found, losses = slopes(asked, policy, reference, torch.ones(len(pairs), dtype=torch.float64), stated)
    expected = ORACLES[name](_under(pairs, asked), **asked.settings)
    assert losses.losses.mean().item() == pytest.approx(expected, rel=1e-9, abs=1e-12)
    for place, (index, side) in enumerate((index, side) for index in range(len(pairs)) for side in "wl"):

        def at(value, index=index, side=side):
            moved = [pair | {side: value} if number == index else pair for number, pair in enumerate(pairs)]
            return ORACLES[name](_under(moved, asked), **asked.settings)

        here, step = pairs[index][side], 1e-6
        expected = (at(here + step) - at(here - step)) / (2 * step) * len(pairs)
        assert found[place].item() == pytest.approx(expected, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("settings", DIVERGENCES.values(), ids=DIVERGENCES)
@pytest.mark.parametrize("name", OF_SUMS)
def test_under_any_divergence_a_run_starts_at_the_same_loss_and_at_rewards_of_zero(name, settings):
    _, reference, stated = as_tensors(drawn(3))
    found, plain = (objective(name, **said).at_start(reference, stated) for said in (settings, {}))
    assert torch.allclose(found.losses, plain.losses, rtol=1e-12)
    assert not found.rewards.any()


@pytest.mark.parametrize(
    ("order", "same"), [(1e-7, {}), (1 - 1e-9, {"divergence": "forward_kl"})], ids=["reverse", "forward"]
)
def test_alpha_lies_between_the_two_divergences(order, same):
    seen = as_tensors(drawn(5))
    found = objective("dpo", divergence="alpha", divergence_alpha=order)(*seen)
    assert torch.allclose(found.losses, objective("dpo", **same)(*seen).losses, rtol=1e-5)


def test_beyond_twice_the_largest_reward_chi_po_has_no_slope():
    pairs = [{"w": -5.0, "l": -9.0, "rw": -9.0, "rl": -5.0, "nw": 1, "nl": 1, "margin": 1, "soft": 1, "pw": 1, "pl": 0}]
    policy, reference, _ = as_tensors(pairs)
    one = torch.ones(1, dtype=torch.float64)
    # The gap is e^4 + 4 − e^−4 + 4 = 62.6.
    found, losses = slopes(objective("dpo", beta=1.0, **DIVERGENCES["chi_po"]), policy, reference, one)
    assert losses.losses.item() == pytest.approx(math.log1p(math.exp(-3)))
    assert found.tolist() == [0, 0]
    found, _ = slopes(objective("dpo", beta=0.01, **DIVERGENCES["chi_po"]), policy, reference, one)
    assert found.abs().min() > 0


def test_divergences_stay_finite_80_nats_from_the_reference_in_fp32():
    base = {"nw": 1, "nl": 1, "margin": 2.0, "soft": 0.7, "pw": 0.9, "pl": 0.2, "rw": -80.0, "rl": -80.0}
    policy, reference, stated = as_tensors(
        [base | {"w": w, "l": l} for w, l in ((-1.0, -80.0), (-80.0, -1.0), (-160.0, -80.0), (-80.0, -160.0))],  # noqa: E741
        torch.float32,
    )
    for name in OF_SUMS:
        if name == "rpo_square":
            continue  # the square of e^80 is beyond fp32, and its step stops
        for settings in DIVERGENCES.values():
            found, losses = slopes(objective(name, **settings), policy, reference, torch.ones(4), stated)
            assert losses.losses.isfinite().all() and found.isfinite().all(), (name, settings)


@pytest.mark.parametrize("name", [name for name in SECTIONS if name not in OF_SUMS])
def test_where_the_partition_function_does_not_cancel_another_divergence_is_refused(name):
    with pytest.raises(ConfigError, match=f"{name} does not read divergence, which is of dpo, robust, hinge"):
        build_config({"loss": {"name": name, "divergence": "js"}})


@pytest.mark.parametrize(
    ("loss", "told"),
    [
        ({"divergence": "alpha"}, "divergence: alpha needs divergence_alpha"),
        ({"divergence": "chi_po"}, "divergence: chi_po needs max_reward"),
        ({"divergence": "js", "divergence_alpha": 0.5}, "divergence_alpha is read with divergence: alpha alone"),
        ({"max_reward": 2.0}, "max_reward is read with divergence: chi_po alone"),
        ({"divergence": "alpha", "divergence_alpha": 1.0}, "less than 1"),
        ({"divergence": "kl"}, "'js', 'forward_kl', 'alpha' or 'chi_po'"),
    ],
)
def test_a_divergence_without_what_it_needs_or_with_what_it_does_not_read_is_refused(loss, told):
    with pytest.raises(ConfigError, match=told):
        build_config({"loss": {"name": "dpo", **loss}})


def test_each_term_of_a_sum_has_its_own_divergence():
    seen = as_tensors(drawn(6))
    terms = [{"name": "dpo", "divergence": "js"}, {"name": "hinge", "weight": 0.5}]
    found = type(objective("dpo")).of(build_config({"loss": {"terms": terms}}).loss)(*seen).losses
    expected = objective("dpo", divergence="js")(*seen).losses + 0.5 * objective("hinge")(*seen).losses
    assert torch.allclose(found, expected, rtol=1e-12)


# ---------------------------------------------------------------------------------------------------- a beta that moves

WITH_BETA = [name for name, section in SECTIONS.items() if "beta" in section.model_fields]


@pytest.mark.parametrize("name", WITH_BETA)
def test_beta_goes_from_its_first_value_to_its_last_and_the_loss_is_that_of_the_step_s_own(name):
    seen = as_tensors(drawn(7), name=name)
    for shape, half in (("linear", 0.4), ("cosine", 0.4)):
        moves = objective(name, beta=0.6, beta_schedule=BetaSchedule(to=0.2, shape=shape))
        for step, beta in ((0, 0.6), (2, half), (4, 0.2), (9, 0.2)):
            here = moves.at(step, 5)
            assert here.settings["beta"] == pytest.approx(beta, rel=1e-12)
            assert here.moving == {"beta": here.settings["beta"]}
            fixed = objective(name, beta=here.settings["beta"])
            assert torch.equal(here(*seen).losses, fixed(*seen).losses)
        assert moves.at_end.settings["beta"] == moves.at(0, 1).settings["beta"] == 0.2
        with pytest.raises(ValueError, match="beta moves over a run"):
            moves(*seen)


def test_a_cosine_is_slow_at_both_ends():
    first, *_ = (objective("dpo", beta=1.0, beta_schedule=BetaSchedule(to=2.0, shape="cosine")),)
    found = [first.at(step, 11).settings["beta"] for step in range(11)]
    assert found == pytest.approx([1.5 - math.cos(math.pi * step / 10) / 2 for step in range(11)])


@pytest.mark.parametrize("name", [name for name in SECTIONS if name not in WITH_BETA])
def test_what_has_no_beta_has_none_that_moves(name):
    with pytest.raises(ConfigError, match=f"{name} does not read beta_schedule, which is of dpo, dpo_norm, robust"):
        build_config({"loss": {"name": name, "beta_schedule": {"to": 1.0}}})


@pytest.mark.parametrize(
    ("schedule", "told"),
    [
        ({"to": 0}, "loss.beta_schedule.to: found 0; input should be greater than 0"),
        ({"to": 1.0, "shape": "step"}, "loss.beta_schedule.shape: found 'step'"),
        ({}, "'loss.beta_schedule.to' is missing"),
        ({"to": 1.0, "steps": 3}, "unknown key 'loss.beta_schedule.steps'"),
        (0.1, "wanted a section of settings|valid dictionary"),
    ],
)
def test_a_schedule_that_says_not_where_to_is_refused(schedule, told):
    with pytest.raises(ConfigError, match=told):
        build_config({"loss": {"name": "dpo", "beta_schedule": schedule}})


def test_terms_of_a_sum_have_betas_that_move_on_their_own():
    terms = [{"name": "dpo", "beta": 1.0, "beta_schedule": {"to": 0.5}}, {"name": "bco", "beta": 0.3}]
    moves = type(objective("dpo")).of(build_config({"loss": {"terms": terms}}).loss)
    assert moves.at(1, 3).moving == {"beta/dpo": 0.75}
    seen = as_tensors(drawn(8))
    expected = objective("dpo", beta=0.75)(*seen).losses + objective("bco", beta=0.3)(*seen).losses
    assert torch.allclose(moves.at(1, 3)(*seen).losses, expected, rtol=1e-12)


# ------------------------------------------------------------------------------------------------------ views of tokens

VIEWS = {"length_desensitised": 0.3, "token_decay": 0.9, "humanline": (-1.0, 1.5)}


def _by_token(seed: int) -> list[dict[str, list[float]]]:
    draw = random.Random(seed)
    pairs = []
    for _ in range(4):
        rows = {side: [-draw.uniform(0.01, 4) for _ in range(draw.randint(1, 9))] for side in "wl"}
        pairs.append(
            rows | {f"r{side}": [min(-0.01, one + draw.gauss(0, 1.5)) for one in row] for side, row in rows.items()}
        )
    return pairs


@pytest.mark.parametrize(("view", "setting"), VIEWS.items())
def test_a_view_of_tokens_is_that_of_the_loop_in_value_and_gradient(view, setting):
    pairs, made = _by_token(1), tiebreak.objective("dpo", beta=0.4, **{view: setting})
    ours = {side: [torch.tensor(p[side], dtype=torch.float64, requires_grad=True) for p in pairs] for side in "wl"}
    found = made(ours["w"], ours["l"], [p["rw"] for p in pairs], [p["rl"] for p in pairs])
    expected = [psi(0.4 * tokens_gap(p, view, setting)) for p in pairs]
    assert found.losses.tolist() == pytest.approx(expected, rel=1e-12)
    found.losses.sum().backward()
    for number, (p, side) in enumerate((p, side) for p in pairs for side in "wl"):
        for place, here in enumerate(p[side]):

            def at(value, p=p, side=side, place=place):
                moved = [value if where == place else one for where, one in enumerate(p[side])]
                return psi(0.4 * tokens_gap(p | {side: moved}, view, setting))

            slope = (at(here + 1e-6) - at(here - 1e-6)) / 2e-6
            assert ours[side][number // 2].grad[place].item() == pytest.approx(slope, abs=1e-8)


@pytest.mark.parametrize(
    ("view", "none"), [("length_desensitised", 1.0), ("token_decay", 1.0), ("humanline", (-99, 99))]
)
def test_at_its_limit_a_view_of_tokens_is_none(view, none):
    seen = [[p[side] for p in _by_token(2)] for side in ("w", "l", "rw", "rl")]
    plain, viewed = tiebreak.objective("hinge")(*seen), tiebreak.objective("hinge", **{view: none})(*seen)
    assert torch.allclose(plain.losses, viewed.losses, rtol=1e-12)


@pytest.mark.parametrize(("view", "setting"), VIEWS.items())
def test_where_policy_and_reference_agree_every_view_starts_where_dpo_does(view, setting):
    seen = [[p[side] for p in _by_token(3)] for side in "wl"]
    found = tiebreak.objective("dpo", **{view: setting})(*seen, *seen).losses
    assert found.tolist() == pytest.approx([math.log(2)] * 4)


@pytest.mark.parametrize(
    ("loss", "told"),
    [
        ({"token_decay": 0.9, "humanline": [-1, 1.5]}, "token_decay and humanline are views of the same tokens"),
        ({"length_desensitised": 0.5, "token_decay": 1.0}, "length_desensitised and token_decay are views"),
        ({"token_decay": 0}, "greater than 0"),
        ({"token_decay": 1.1}, "less than or equal to 1"),
        ({"humanline": [0.5, 1.5]}, "humanline wants two bounds around 0, the lower one first"),
        ({"humanline": [1.5, -1]}, "humanline wants two bounds around 0, the lower one first"),
        ({"humanline": 1.5}, "loss.humanline: found 1.5; humanline wants two bounds around 0, the lower one first"),
        ({"humanline": [1.5]}, "loss.humanline: found .1.5.; humanline wants two bounds"),
    ],
)
def test_tokens_are_seen_in_one_way_and_with_bounds_that_mean_something(loss, told):
    with pytest.raises(ConfigError, match=told):
        build_config({"loss": {"name": "dpo", **loss}})


@pytest.mark.parametrize("view", VIEWS)
def test_terms_of_a_sum_see_the_same_tokens_and_sums_know_none(view):
    with pytest.raises(ConfigError, match=f"{view} is of a loss alone"):
        build_config({"loss": {"terms": [{"name": "dpo", view: VIEWS[view]}]}})
    for given in ([-1.0], [-2.0], [-1.0], [-2.0]), ([[-1.0]], [[-2.0]], [-1.0], [-2.0]):
        with pytest.raises(ValueError, match="give log-probabilities of every token"):
            tiebreak.objective("dpo", **{view: VIEWS[view]})(*given)


# ---------------------------------------------------------------------------------------------- confidence of a pair

OF_PAIRS = [name for name, section in SECTIONS.items() if issubclass(section, OfPairs)]


@pytest.mark.parametrize("how", ["clamped", "raw"])
@pytest.mark.parametrize("name", OF_PAIRS)
def test_a_pair_weighs_as_much_as_the_policy_would_write_it(name, how):
    policy, reference, stated = as_tensors(drawn(9, num=3))
    confidences = torch.tensor([-0.4, -0.3, 0.2, 0.3, -2.0, 1.5], dtype=torch.float64)
    policy = replace(policy, confidence=confidences)
    found = objective(name, confidence_weights=how)(policy, reference, stated)
    plain = objective(name)(policy, reference, stated)
    wanted = [math.exp(-0.7), 1.0 if how == "clamped" else math.exp(0.5), math.exp(-0.5)]
    assert found.losses.tolist() == pytest.approx(
        [w * one for w, one in zip(wanted, plain.losses.tolist(), strict=True)]
    )
    assert torch.equal(found.rewards, plain.rewards)
    assert torch.equal(
        objective(name, confidence_weights=how).unweighted(policy, reference, stated).losses, plain.losses
    )
    with pytest.raises(ValueError, match="weighs pairs by the policy's confidence, and none was given"):
        objective(name, confidence_weights=how)(replace(policy, confidence=None), reference, stated)


def test_no_gradient_goes_through_a_weight_and_of_a_sum_the_terms_weigh_for_themselves():
    policy, reference, stated = as_tensors(drawn(10, num=3))
    policy = replace(policy, confidence=torch.full((6,), -0.25, dtype=torch.float64, requires_grad=True))
    terms = [{"name": "dpo", "confidence_weights": "raw"}, {"name": "sft", "weight": 0.1}]
    asked = type(objective("dpo")).of(build_config({"loss": {"terms": terms}}).loss)
    one = torch.ones(3, dtype=torch.float64)
    found, _ = slopes(asked, policy, reference, one, stated)
    parts = [slopes(objective(name), policy, reference, one, stated)[0] for name in ("dpo", "sft")]
    assert torch.allclose(found, math.exp(-0.5) * parts[0] + 0.1 * parts[1])
    assert asked.beside is not None and asked.unweighted.beside is None and policy.confidence.grad is None


@pytest.mark.parametrize("name", [name for name in SECTIONS if name not in OF_PAIRS])
def test_what_mixes_pairs_or_imitates_chosen_is_not_weighed(name):
    with pytest.raises(
        ConfigError, match=f"{name} does not read confidence_weights, which is of dpo, dpo_norm, robust"
    ):
        build_config({"loss": {"name": name, "confidence_weights": "clamped"}})


def test_in_a_notebook_confidences_are_given_beside_log_probabilities():
    made, numbers = tiebreak.objective("dpo", confidence_weights="raw"), ([-3.0], [-4.0], [-3.5], [-4.0])
    found = made(*numbers, chosen_confidences=[-0.5], rejected_confidences=[-1.0]).losses.item()
    assert found == pytest.approx(math.exp(-1.5) * tiebreak.objective("dpo")(*numbers).losses.item())
    with pytest.raises(ValueError, match="none was given"):
        made([[-1.0]], [[-2.0]], [[-1.0]], [[-2.0]])
