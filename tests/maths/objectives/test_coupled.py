"""A coupled objective goes down its slopes, and they are those of the undivided step."""

from __future__ import annotations

import pytest
import torch

from tiebreak.maths.logps import Logps
from tiebreak.maths.objectives import slopes
from toys import CENTRED


def test_slopes_are_the_gradient_of_the_weighted_sum_by_every_completion():
    made = torch.Generator().manual_seed(3)
    sums, frozen = (-20 * torch.rand(20, generator=made, dtype=torch.float64) for _ in range(2))
    weights, count = torch.rand(10, generator=made, dtype=torch.float64), torch.ones(20, dtype=torch.long)
    found, losses = slopes(CENTRED, Logps(sums, count), Logps(frozen, count), weights)

    def total(values):
        return float((weights * CENTRED(Logps(values, count), Logps(frozen, count)).losses).sum())

    step = 1e-6
    for place in range(20):
        bump = torch.zeros(20, dtype=torch.float64)
        bump[place] = step
        assert found[place].item() == pytest.approx((total(sums + bump) - total(sums - bump)) / (2 * step), abs=1e-7)
    assert not losses.losses.requires_grad


def test_slopes_leave_no_gradient_behind_and_need_none_around():
    sums, count = torch.tensor([-3.0, -4.0], requires_grad=True), torch.ones(2, dtype=torch.long)
    with torch.no_grad():
        slopes(CENTRED, Logps(sums, count), Logps(sums.detach(), count), torch.ones(1))
    assert sums.grad is None
