"""Every formula against a float64 loop of its own, in value and gradient, and against numbers worked out by hand."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from drawn import as_tensors, drawn, objective
from preferences import ORACLES, STOPPED
from tiebreak.config import build_config, dump_config, load_config
from tiebreak.config.losses import SECTIONS
from tiebreak.errors import ConfigError
from tiebreak.maths.logps import Logps
from tiebreak.maths.objectives import OBJECTIVES, Objective, slopes

SETTINGS = {
    "dpo": [{}, {"label_smoothing": 0.2}, {"soft_labels": True}, {"soft_labels": True, "label_smoothing": 0.1}],
    "dpo_norm": [{}, {"label_smoothing": 0.3, "beta": 2.0}],
    "robust": [{}, {"label_smoothing": 0.4}, {"label_smoothing": 0.0}],
    "ipo": [{}, {"length": "sum"}, {"tau": 1.5}],
    "odpo": [{}, {"scale": "linear", "alpha": 0.3}],
    "alphapo": [{}, {"alpha": -0.5}, {"alpha": 1.0}],
    "bco": [{}, {"delta": 0.0}, {"delta": -0.4}],
    "sft": [{}, {"length": "sum"}],
    "aot": [{}, {"label_smoothing": 0.2, "beta": 0.3}],
    "aot_unpaired": [{}, {"label_smoothing": 0.2, "beta": 0.3}],
    "cpo": [{}, {"length": "sum", "alpha": 0.2}],
    "mpo": [{}, {"delta": 0.0}],
    "sppo_hard": [{}, {"beta": 0.1}],
    "sppo_soft": [{}, {"beta": 0.1}],
    "kto": [{}, {"beta": 0.5, "desirable_weight": 1.3, "undesirable_weight": 0.7}],
    "bco_unpaired": [{}, {"delta": 0.0}, {"delta": -0.4}],
    "sft_unpaired": [{}, {"length": "sum"}],
}
CASES = [(name, settings) for name in OBJECTIVES for settings in SETTINGS.get(name, [{}])]
every_case = pytest.mark.parametrize(("name", "settings"), CASES, ids=[f"{name}-{said}" for name, said in CASES])


def test_every_objective_has_an_oracle():
    assert set(ORACLES) == set(OBJECTIVES) == set(SECTIONS)


@every_case
@pytest.mark.parametrize("seed", range(3))
def test_the_mean_loss_of_a_step_is_that_of_the_loop(name, settings, seed):
    pairs, asked = drawn(seed), objective(name, **settings)
    found = asked(*as_tensors(pairs, name=name)).losses
    assert found.mean().item() == pytest.approx(ORACLES[name](pairs, **asked.settings), rel=1e-12, abs=1e-12)


@every_case
def test_its_gradient_is_the_slope_of_the_loop(name, settings):
    pairs, asked = drawn(11, num=5), objective(name, **settings)
    policy, reference, stated = as_tensors(pairs, name=name)
    num = len(asked(policy, reference, stated).losses)
    found, _ = slopes(asked, policy, reference, torch.ones(num, dtype=torch.float64), stated)
    fixed = {"shift": pairs} if name in STOPPED else {}
    for place, (index, side) in enumerate((index, side) for index in range(len(pairs)) for side in "wl"):

        def at(value, index=index, side=side):
            moved = [pair | {side: value} if number == index else pair for number, pair in enumerate(pairs)]
            return ORACLES[name](moved, **asked.settings, **fixed)

        here, step = pairs[index][side], 1e-5
        expected = (at(here + step) - at(here - step)) / (2 * step) * num
        assert found[place].item() == pytest.approx(expected, rel=1e-5, abs=1e-6)


LN2 = math.log(2)
AT_START = {
    "dpo": LN2, "dpo_norm": LN2, "robust": LN2, "ipo": 25.0, "hinge": 1.0, "discopop": (1 + LN2) / 2,
    "exo": -LN2 - math.log(1e-3 * (1 - 1e-3)) / 2, "dpop": LN2, "dpo_shift": LN2, "nca": 2 * LN2, "bco": 2 * LN2,
    "tdpo1": LN2, "tdpo2": LN2, "mallows": LN2,
    "apo_zero": 0.0, "apo_down": 0.0, "sppo_hard": 0.5 / 1e-3**2, "cal_dpo": LN2 + 0.5 / 1e-2**2, "aot": LN2,
    "aot_unpaired": None, "beta_dpo": LN2, "dr_dpo": LN2, "kto": 0.5, "bco_unpaired": LN2,
}  # fmt: skip
"""Where policy and reference are one model: section 6 of the literature's own numbers, worked out by hand."""


@pytest.mark.parametrize("name", [name for name, value in AT_START.items() if value is not None])
def test_where_the_policy_is_its_reference_the_loss_is_a_known_number(name):
    _, reference, stated = as_tensors(drawn(4), name=name)
    losses = objective(name).at_start(reference, stated).losses.tolist()
    assert losses == pytest.approx([AT_START[name]] * len(losses), rel=1e-9)


def at_gap(name: str, h: float, **settings) -> float:
    """The loss of one pair whose log-ratios differ by h, with β = 1."""
    pair = {"w": -5 + h, "l": -7.0, "rw": -5.0, "rl": -7.0, "nw": 1, "nl": 1, "margin": 1, "soft": 1, "pw": 1, "pl": 0}
    return objective(name, **{"beta": 1.0} | settings)(*as_tensors([pair])).losses.item()


def test_numbers_worked_out_by_hand():
    assert at_gap("dpo", 1.0) == pytest.approx(0.313262, abs=5e-7)
    assert at_gap("exo", 0.0, label_smoothing=0.1) == pytest.approx(0.510826, abs=5e-7)
    assert at_gap("discopop", 0.0) == pytest.approx(0.846574, abs=5e-7)
    assert at_gap("sppo_hard", 0.0, beta=0.1) == 50.0
    slope = lambda name, h, **said: (at_gap(name, h + 1e-5, **said) - at_gap(name, h - 1e-5, **said)) / 2e-5  # noqa: E731
    assert slope("exo", math.log(9), label_smoothing=0.1) == pytest.approx(0, abs=1e-6)
    assert slope("nca", math.log(2)) == pytest.approx(0, abs=1e-6)
    assert slope("robust", 60.0, label_smoothing=0.1) == pytest.approx(-0.1 / 0.8, abs=1e-6)
    # (1−m) ψ' + m' (e^−h − ψ) − m e^−h at 0, with m = ½ and m' = 1/4τ: the first steps lower the margin.
    assert slope("discopop", 0.0, tau=0.05) == pytest.approx(-0.25 + 5 * (1 - math.log(2)) - 0.5, abs=1e-4)
    assert slope("dpo", math.log(9), label_smoothing=0.1) == pytest.approx(0, abs=1e-6)


LIMITS = {
    "label smoothing of 0 is none": ("robust", {"label_smoothing": 0.0}, "dpo", {}),
    "no penalty": ("dpop", {"penalty": 0.0, "beta": 0.1}, "dpo", {}),
    "rejected counts in full": ("dpo_shift", {"shift": 1.0}, "dpo", {}),
    "length is no matter": ("r_dpo", {"alpha": 0.0}, "dpo", {}),
    "no offset": ("odpo", {"alpha": 0.0}, "dpo", {}),
    "no likelihood": ("iterative_rpo", {"alpha": 0.0}, "dpo", {}),
    "no likelihood of completions": ("regularised_po", {"eta": 0.0, "beta": 0.1}, "dpo", {}),
    "no likelihood beside simpo": ("cpo_simpo", {"alpha": 0.0}, "simpo", {}),
    "hardly bent": ("alphapo", {"alpha": 1e-7, "beta": 2.0, "gamma": 1.0}, "simpo", {}),
    "a beta that follows nothing": ("beta_dpo", {"alpha": 0.0}, "dpo", {}),
    "a margin that follows nothing": ("alpha_dpo", {"alpha": 0.0}, "simpo", {"beta": 2.5, "gamma": 1.5}),
    "a divergence that weighs nothing": ("tdpo2", {"alpha": 0.0}, "dpo", {}),
    "even weights": ("dr_dpo", {"beta_prime": 1e7}, "dpo", {}),
    "dpo alone": ("mpo", {"dpo_weight": 1.0, "bco_weight": 0.0, "sft_weight": 0.0}, "dpo", {}),
    "bco alone": ("mpo", {"dpo_weight": 0.0, "bco_weight": 1.0, "sft_weight": 0.0}, "bco", {}),
    "sft alone": ("mpo", {"dpo_weight": 0.0, "bco_weight": 0.0, "sft_weight": 1.0}, "sft", {}),
}


@pytest.mark.parametrize(("name", "settings", "parent", "own"), LIMITS.values(), ids=LIMITS)
def test_at_its_limit_it_is_its_parent(name, settings, parent, own):
    seen = as_tensors(drawn(8))
    found, expected = objective(name, **settings)(*seen).losses, objective(parent, **own)(*seen).losses
    assert found.mean().item() == pytest.approx(expected.mean().item(), rel=1e-6)


def test_a_soft_label_turned_round_is_the_pair_turned_round():
    pairs = drawn(5)
    turned = [
        p
        | {"w": p["l"], "l": p["w"], "rw": p["rl"], "rl": p["rw"], "nw": p["nl"], "nl": p["nw"], "soft": 1 - p["soft"]}
        for p in pairs
    ]
    asked = objective("dpo", soft_labels=True)
    assert torch.allclose(asked(*as_tensors(pairs)).losses, asked(*as_tensors(turned)).losses, rtol=1e-12)


def test_robust_is_the_unbiased_estimate_of_clean_dpo():
    """(1−2ε) L = (1−ε) L(w, l) − ε L(l, w): over labels flipped at ε, the mean is dpo of the true ones."""
    for h in (-3.0, 0.2, 4.0):
        flipped = 0.8 * at_gap("robust", h, label_smoothing=0.2) + 0.2 * at_gap("robust", -h, label_smoothing=0.2)
        assert flipped == pytest.approx(at_gap("dpo", h), rel=1e-12)


@pytest.mark.parametrize("name", ["dpo", "robust", "hinge", "odpo", "r_dpo", "simpo", "dpo_norm", "repo", "alphapo"])
def test_a_wider_gap_never_costs_more(name):
    gaps = [-80.0, -5.0, -0.1, 0.0, 0.1, 5.0, 80.0]
    said = {} if name == "repo" else {"beta": 1.0}
    pair = {"rw": -90.0, "rl": -90.0, "l": -90.0, "nw": 1, "nl": 1, "margin": 1, "soft": 1, "pw": 1, "pl": 0}
    losses = [objective(name, **said)(*as_tensors([pair | {"w": -90.0 + h}])).losses.item() for h in gaps]
    assert all(before >= after for before, after in itertools.pairwise(losses))


@every_case
def test_far_from_the_start_and_on_one_token_it_stays_finite_in_fp32(name, settings):
    base = {"rw": -80.0, "rl": -80.0, "nw": 1, "nl": 1, "margin": 2.0, "soft": 0.7, "pw": 0.9, "pl": 0.2, "z": 0.7}
    base |= {"kw": 80.0, "kl": 160.0, "hw": 1e-6, "hl": 1e-3}
    # A log-probability of 0 has no odds, and e^88 is the end of fp32, which alphapo's bent reward reaches there.
    far = (-1.0, -80.0), (-80.0, -1.0), (-1e-3, -80.0), (-80.0, -1e-3)
    pairs = [base | {"w": w, "l": l} for w, l in far]  # noqa: E741
    policy, reference, stated = as_tensors(pairs, torch.float32, name)
    asked = objective(name, **settings)
    num = len(asked(policy, reference, stated).losses)
    by_sums, losses = slopes(asked, policy, reference, torch.ones(num), stated)
    assert losses.losses.isfinite().all()
    assert by_sums.isfinite().all()


def test_a_step_cut_in_pieces_is_not_the_step_where_pairs_depend_on_each_other():
    """Why there are coupled objectives at all: cut into single pairs, aot and dr_dpo are dpo."""
    policy, reference, stated = as_tensors(drawn(9))
    for name in ("aot", "dr_dpo"):
        asked = objective(name, beta=0.1)
        alone = [
            asked(*(Logps(one.sums[at : at + 2], one.num_tokens[at : at + 2]) for one in (policy, reference))).losses
            for at in range(0, 14, 2)
        ]
        whole, dpo = asked(policy, reference, stated).losses, objective("dpo")(policy, reference).losses
        assert torch.allclose(torch.cat(alone), dpo)
        assert abs(whole.mean() - dpo.mean()) > 1e-3


def test_ties_in_the_margins_of_a_step_keep_their_order():
    pair = {"w": -3.0, "l": -4.0, "rw": -3.5, "rl": -4.0, "nw": 2, "nl": 2, "margin": 1, "soft": 1, "pw": 1, "pl": 0}
    pairs = [pair, pair | {"rw": -2.0}, pair]
    found = objective("aot", beta=1.0)(*as_tensors(pairs)).losses
    assert found.mean().item() == pytest.approx(ORACLES["aot"](pairs, beta=1.0, label_smoothing=0.0), rel=1e-12)


# ---------------------------------------------------------------------------------------------------------------- sums


def of_terms(*terms) -> Objective:
    return Objective.of(build_config({"loss": {"terms": list(terms)}}).loss)


def test_a_sum_of_terms_is_the_objective_that_has_a_name_of_its_own():
    seen = as_tensors(drawn(3))
    made = of_terms(
        {"name": "dpo", "beta": 0.1, "weight": 0.8}, {"name": "bco", "beta": 0.1, "weight": 0.2}, {"name": "sft"}
    )
    wanted = objective("mpo")(*seen)
    assert torch.allclose(made(*seen).losses, wanted.losses, rtol=1e-12)
    assert torch.equal(made(*seen).rewards, wanted.rewards)
    assert (made.name, made.is_coupled, made.asks_reference) == ("dpo + bco + sft", True, True)


def test_a_sum_needs_what_its_terms_need():
    free = of_terms("simpo", {"name": "sft", "weight": 0.1})
    assert not free.asks_reference and not free.is_coupled and not free.facts
    more = of_terms({"name": "dpo", "soft_labels": True}, "odpo", "rpo_square")
    assert more.facts == ("soft_label", "margin")
    with pytest.raises(ValueError, match="none was given"):
        of_terms("sft", "dpo")(as_tensors(drawn(0))[0], None)


@pytest.mark.parametrize(
    ("loss", "told"),
    [
        ({"terms": []}, r"loss.terms: found \[\]; wanted a list of objectives, such as \[{name: dpo, weight"),
        ({"terms": {"name": "dpo"}}, "loss.terms: found .*; wanted a list of objectives"),
        ({"terms": ["dpo", 3]}, "loss.terms.*: found 3; wanted an objective's name, or its settings with a weight"),
        ({"terms": [{"name": "dpo", "gamma": 1}]}, "dpo does not read gamma, which is of simpo"),
        ({"terms": [{"name": "terms"}]}, "no such objective"),
        ({"terms": ["rpo"]}, "four papers are called so"),
        ({"terms": [{"name": "dpo", "length_desensitised": 0.5}]}, "terms of a sum see the same tokens"),
        ({"terms": [{"loss": {"name": "dpo", "length_desensitised": 0.5}}]}, "terms of a sum see the same tokens"),
        ({"terms": [{"name": "dpo", "weight": -1}]}, "greater than or equal to 0"),
        ({"terms": ["dpo"], "beta": 0.1}, "beside terms nothing is read; beta belongs into the term that reads it"),
        ({"name": "dpo", "terms": ["dpo"]}, "unknown key 'loss.terms'|does not read terms"),
    ],
)
def test_a_sum_refuses_what_its_terms_would(loss, told):
    with pytest.raises(ConfigError, match=told):
        build_config({"loss": loss})


def test_a_sum_is_written_down_and_read_again(tmp_path):
    config = build_config({"loss": {"terms": ["sigmoid", {"name": "sft", "weight": 0.2}]}})
    (tmp_path / "c.yaml").write_text(dump_config(config))
    assert load_config(tmp_path / "c.yaml").loss == config.loss
