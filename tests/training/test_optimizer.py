from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import oracles
from tiebreak.training.optimizer import build_optimizer, rate_factor, set_rate
from tiny import settings


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_updates_equal_the_paper_and_only_matrices_decay(decay):
    torch.manual_seed(0)
    matrix, vector = (nn.Parameter(torch.randn(shape, dtype=torch.float64)) for shape in ((3, 5), (7,)))
    started = matrix.flatten().tolist(), vector.tolist()
    optimizer = build_optimizer([matrix, vector], settings("any", training__weight_decay=decay).training, 1e-3)
    rates, gradients = [1e-3, 5e-3, 2e-3, 1e-3], [[], []]
    for rate in rates:
        set_rate(optimizer, rate)
        for parameter, seen in zip((matrix, vector), gradients, strict=True):
            parameter.grad = torch.randn_like(parameter) * 10.0 ** torch.randint(-6, 2, parameter.shape)
            seen.append(parameter.grad.flatten().tolist())
        optimizer.step()
    expected = (
        oracles.adamw(started[0], gradients[0], rates, decay),
        oracles.adamw(started[1], gradients[1], rates, 0.0),
    )
    assert matrix.flatten().tolist() == pytest.approx(expected[0], rel=1e-10)
    assert vector.tolist() == pytest.approx(expected[1], rel=1e-10)


def test_the_peak_rate_is_the_configured_one_or_the_default_of_the_method():
    parameter = [nn.Parameter(torch.zeros(2, 2))]
    default = {"training.learning_rate": None}
    for config, rate in (
        (settings("any", training__learning_rate=3e-5), 3e-5),
        (settings("any", **default), 1e-5),
        (settings("any", "none", **default), 1e-6),
    ):
        assert build_optimizer(parameter, config.training, config.learning_rate).param_groups[0]["lr"] == rate


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
@pytest.mark.parametrize(
    ("num_steps", "share", "num_warmup"), [(10, 0.0, 0), (13, 0.1, 2), (100, 0.07, 7), (1, 0.5, 1)]
)
def test_rates_equal_the_written_out_schedule(schedule, num_steps, share, num_warmup):
    found = [2e-5 * rate_factor(step, num_steps, share, schedule) for step in range(num_steps)]
    assert found == pytest.approx(oracles.rates(num_steps, num_warmup, 2e-5, schedule), rel=1e-12, abs=1e-20)


@given(st.integers(1, 500), st.integers(0, 99))
def test_a_share_of_n_percent_warms_up_over_n_percent_of_the_steps(num_steps, percent):
    factors = [rate_factor(step, num_steps, percent / 100, "constant") for step in range(num_steps)]
    assert sum(factor < 1 for factor in factors) == -(-percent * num_steps // 100)


@given(st.integers(1, 200), st.floats(0, 0.99), st.sampled_from(["linear", "cosine", "constant"]))
def test_no_step_is_spent_at_rate_zero_and_none_is_above_the_peak(num_steps, share, schedule):
    factors = [rate_factor(step, num_steps, share, schedule) for step in range(num_steps)]
    assert all(0 < factor <= 1 for factor in factors)
    top = factors.index(max(factors))
    assert factors[: top + 1] == sorted(factors[: top + 1])
    assert factors[top:] == sorted(factors[top:], reverse=True)
    assert all(math.isfinite(factor) for factor in factors)
