from __future__ import annotations

import inspect
import math
import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import oracles
from tiebreak.maths.diffusion import diffusion_dpo, squared_errors

SHAPE = 3, 2, 3
"""Of an image: odd on purpose."""
BETAS = [0.05, 0.15, 1.0, 20.0]


def drawn(seed: int, num: int = 5) -> list[dict[str, list[list[float]]]]:
    """Pairs of flat images: for chosen and rejected the noise, and what the reference and a near policy predict."""
    draw, pixels = random.Random(seed), math.prod(SHAPE)
    pairs = []
    for _ in range(num):
        noise = [[draw.gauss(0, 1) for _ in range(pixels)] for _ in range(2)]
        reference = [[true + draw.gauss(0, 0.5) for true in side] for side in noise]
        policy = [[said + draw.gauss(0, 0.2) for said in side] for side in reference]
        pairs.append({"noise": noise, "policy": policy, "reference": reference})
    return pairs


def errors(pairs, predicted: str, side: int, dtype=torch.float64):
    of = lambda key: torch.tensor([pair[key][side] for pair in pairs], dtype=dtype).reshape(-1, *SHAPE)  # noqa: E731
    return squared_errors(of("noise"), of(predicted))


def four(pairs, dtype=torch.float64):
    return [errors(pairs, who, side, dtype) for who in ("policy", "reference") for side in (0, 1)]


def expected(pair, beta: float) -> float:
    return oracles.diffusion_dpo_loss(pair["noise"], pair["policy"], pair["reference"], beta)


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("seed", range(3))
def test_the_loss_is_that_of_a_loop_over_pixels(seed, beta):
    pairs = drawn(seed)
    losses = diffusion_dpo(*four(pairs), beta=beta).losses
    assert losses.tolist() == pytest.approx([expected(pair, beta) for pair in pairs], rel=1e-10)


def test_its_gradient_by_each_predicted_pixel_is_the_slope_of_the_loop():
    pairs, beta, num = drawn(7, num=2), 0.4, math.prod(SHAPE)
    predicted = torch.tensor([pair["policy"] for pair in pairs], dtype=torch.float64, requires_grad=True)
    noise = torch.tensor([pair["noise"] for pair in pairs], dtype=torch.float64)
    sides = [squared_errors(noise[:, side], predicted[:, side]) for side in (0, 1)]
    diffusion_dpo(*sides, *four(pairs)[2:], beta=beta).losses.sum().backward()
    for at, pair in enumerate(pairs):
        for side, pixel in ((side, pixel) for side in (0, 1) for pixel in range(num)):

            def moved(value, pair=pair, side=side, pixel=pixel):
                policy = [list(one) for one in pair["policy"]]
                policy[side][pixel] = value
                return expected(pair | {"policy": policy}, beta)

            slope = oracles.slope(moved, pair["policy"][side][pixel])
            assert predicted.grad[at, side, pixel].item() == pytest.approx(slope, rel=1e-5, abs=1e-7)


def test_autograd_agrees_with_differences_in_all_four_errors_and_in_beta():
    given_errors = [one.requires_grad_() for one in four(drawn(3))]
    beta = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5], dtype=torch.float64, requires_grad=True)

    def losses(chosen, rejected, reference_chosen, reference_rejected, beta):
        return diffusion_dpo(chosen, rejected, reference_chosen, reference_rejected, beta=beta).losses

    assert torch.autograd.gradcheck(losses, (*given_errors, beta))


@pytest.mark.parametrize("beta", BETAS)
def test_it_is_dpo_of_the_gaussians_that_the_predictions_are_means_of(beta):
    """Where it comes from: log N(ε; ε̂, s²) in the place of log π, and β/2s² in the place of β; constants cancel."""
    variance = 0.7
    for pair in drawn(5):
        logps = [
            oracles.gaussian_logp(pair["noise"][side], pair[who][side], variance)
            for who in ("policy", "reference")
            for side in (0, 1)
        ]
        found = diffusion_dpo(*four([pair]), beta=beta / (2 * variance)).losses.item()
        assert found == pytest.approx(oracles.dpo_loss(*logps, beta), rel=1e-10)


@pytest.mark.parametrize("beta", BETAS)
def test_where_the_policy_is_its_reference_a_pair_costs_ln_2(beta):
    chosen, rejected, *_ = four(drawn(1))
    found = diffusion_dpo(chosen, rejected, chosen, rejected, beta=beta)
    assert found.losses.tolist() == pytest.approx([math.log(2)] * 5, abs=1e-15)
    assert not found.rewards.any()


@given(*[st.floats(0, 100)] * 4, st.floats(0.01, 50))
def test_a_pair_turned_round_has_the_gap_turned_round(chosen, rejected, reference_chosen, reference_rejected, beta):
    """L(w, l) − L(l, w) = −h, since log σ(h) − log σ(−h) = h."""
    said = [
        torch.tensor([one], dtype=torch.float64) for one in (chosen, rejected, reference_chosen, reference_rejected)
    ]
    one = diffusion_dpo(*said, beta=beta)
    other = diffusion_dpo(said[1], said[0], said[3], said[2], beta=beta)
    gap = one.rewards[0] - one.rewards[1]
    assert torch.equal(one.rewards, other.rewards.flip(0))
    assert (one.losses - other.losses).item() == pytest.approx(-gap.item(), rel=1e-9, abs=1e-9)


def test_less_error_on_chosen_and_more_on_rejected_cost_less():
    even = torch.full((3,), 10.0)
    moved = torch.tensor([9.0, 10.0, 11.0])
    better, same, worse = diffusion_dpo(moved, even, even, even, beta=1.0).losses.tolist()
    assert better < same < worse
    worse, same, better = diffusion_dpo(even, moved, even, even, beta=1.0).losses.tolist()
    assert better < same < worse


def test_what_is_added_to_policy_and_reference_alike_changes_nothing():
    said = [torch.tensor([one], dtype=torch.float64) for one in (3.0, 5.0, 4.0, 4.5)]
    alike = [one + shift for one, shift in zip(said, (2.0, 8.0, 2.0, 8.0), strict=True)]
    assert torch.equal(diffusion_dpo(*said, beta=0.5).losses, diffusion_dpo(*alike, beta=0.5).losses)


def test_extreme_gaps_stay_finite_in_fp32_with_useful_gradients():
    chosen = torch.tensor([1e6, 0.0, 1e30], requires_grad=True)
    rejected = torch.tensor([0.0, 1e6, 0.0], requires_grad=True)
    losses = diffusion_dpo(chosen, rejected, torch.zeros(3), torch.zeros(3), beta=20.0).losses
    losses.sum().backward()
    assert losses.tolist() == pytest.approx([2e7, 0.0, 2e31])
    assert (chosen.grad.tolist(), rejected.grad.tolist()) == ([20.0, 0.0, 20.0], [-20.0, 0.0, -20.0])


def test_a_small_difference_of_large_errors_is_not_lost_in_fp32():
    """One image is far harder than the other: the difference within each is taken first, and is exact."""
    said = [torch.tensor([one], dtype=torch.float32) for one in (16384.1, 3.123457, 16384.2, 3.123123)]
    exact = diffusion_dpo(*(one.double() for one in said), beta=20.0).losses.item()
    assert diffusion_dpo(*said, beta=20.0).losses.item() == pytest.approx(exact, rel=1e-6)


def test_beta_may_differ_by_pair_as_omega_does_by_time():
    said, betas = four(drawn(2)), [0.1, 0.2, 0.4, 0.8, 1.6]
    together = diffusion_dpo(*said, beta=torch.tensor(betas, dtype=torch.float64)).losses.tolist()
    alone = [
        diffusion_dpo(*(one[at : at + 1] for one in said), beta=beta).losses.item() for at, beta in enumerate(betas)
    ]
    assert together == pytest.approx(alone, rel=1e-12)


def test_the_scripts_of_the_paper_are_met_by_half_their_beta_over_the_numbers_of_an_image():
    """Errors there are means and the factor is −beta_dpo/2: written out here as they write it, in plain numbers."""
    pairs, size = drawn(4), math.prod(SHAPE)
    found = diffusion_dpo(*four(pairs), beta=5000 / (2 * size)).losses.tolist()
    for pair, loss in zip(pairs, found, strict=True):
        mean = {
            (who, side): sum((a - b) ** 2 for a, b in zip(pair["noise"][side], pair[who][side], strict=True)) / size
            for who in ("policy", "reference")
            for side in (0, 1)
        }
        model_diff = mean["policy", 0] - mean["policy", 1]
        ref_diff = mean["reference", 0] - mean["reference", 1]
        assert loss == pytest.approx(-oracles.log_sigmoid(-0.5 * 5000 * (model_diff - ref_diff)), rel=1e-9, abs=1e-12)


def test_rewards_are_minus_beta_times_the_rise_of_the_error_image_after_image():
    said = four(drawn(6))
    found = diffusion_dpo(*said, beta=0.3).rewards.tolist()
    rises = [(ours - theirs).tolist() for ours, theirs in zip(said[:2], said[2:], strict=True)]
    assert found == pytest.approx([-0.3 * rise for pair in zip(*rises, strict=True) for rise in pair], rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_widened_before_it_is_squared_and_refused_after(dtype):
    noise, predicted = torch.full((2, 4, 64, 64), 100.0, dtype=dtype), torch.zeros(2, 4, 64, 64, dtype=dtype)
    found = squared_errors(noise, predicted)
    assert found.dtype == torch.float32
    assert found.tolist() == [1e4 * 4 * 64 * 64] * 2
    half = torch.ones(2, dtype=dtype)
    with pytest.raises(ValueError, match=r"fp32 or better, found torch\.\w*float16"):
        diffusion_dpo(half, half, half, half, beta=1.0)


@pytest.mark.parametrize(
    "beta", [0.0, -0.15, math.nan, math.inf, torch.tensor([1.0, -1.0]), torch.tensor([math.nan, 1.0])]
)
def test_a_beta_that_turns_the_preference_round_is_refused(beta):
    even = torch.ones(2)
    with pytest.raises(ValueError, match="beta is a positive number"):
        diffusion_dpo(even, even, even, even, beta=beta)


def test_numbers_of_other_pairs_are_refused_and_not_spread():
    even, one, asked = torch.ones(2), torch.ones(1), inspect.unwrap(diffusion_dpo)  # as it is where no type is checked
    with pytest.raises(ValueError, match=r"one for each of 2 pairs; found \(2, 1\)"):
        asked(even, even, even, even, beta=torch.ones(2, 1))
    with pytest.raises(ValueError, match=r"of the same pairs; found the shapes .*\(1,\)"):
        asked(even, even, one, even, beta=1.0)


def test_a_prediction_of_another_shape_is_refused_and_not_spread_over_the_image():
    with pytest.raises(ValueError, match=r"noise is of shape \(2, 3, 4\), what was predicted of \(2, 1, 4\)"):
        squared_errors(torch.zeros(2, 3, 4), torch.zeros(2, 1, 4))
