"""Two samples: against SciPy's tests of the numbers themselves, and what must hold of any."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from tiebreak.maths.two_samples import of_intervals, smirnov


def _histogram(values, edges):
    return list(edges), np.histogram(values, edges)[0].tolist()


@pytest.mark.parametrize("shift", [0.0, 0.1, 0.4])
def test_in_fine_bins_smirnov_is_that_of_the_numbers(shift):
    draw = np.random.default_rng(0)
    first, other = draw.normal(size=400), draw.normal(size=300) + shift
    edges, counts = zip(*(_histogram(side, np.linspace(-6, 6, 4001)) for side in (first, other)), strict=True)
    found, oracle = smirnov(edges, counts, (400, 300)), stats.ks_2samp(first, other, method="asymp")
    assert found.size == pytest.approx(oracle.statistic, abs=0.006)
    assert found.p == pytest.approx(oracle.pvalue, rel=0.25, abs=1e-4)


def test_other_edges_of_the_same_numbers_are_no_difference():
    values = np.random.default_rng(1).lognormal(4, 0.6, 2000)
    edges, counts = zip(*(_histogram(values, np.geomspace(1, top, 24)) for top in (2000, 3000)), strict=True)
    found = smirnov(edges, counts, (2000, 2000))
    assert found.size < 0.05
    assert smirnov(edges[:1] * 2, counts[:1] * 2, (2000, 2000)).p == 1


@pytest.mark.parametrize("seed", range(20))
def test_however_numbers_are_binned_no_more_is_claimed_than_they_differ(seed):
    draw = np.random.default_rng(seed)
    sides = [np.floor(draw.lognormal(2 + 0.4 * place, 0.3, 500)) for place in range(2)]
    some = [np.unique([*draw.choice(60, 6), 0, 200 + place]).tolist() for place in range(2)]
    edges, counts = zip(*(_histogram(*one) for one in zip(sides, some, strict=True)), strict=True)
    found, oracle = smirnov(edges, counts, (500, 500)), stats.ks_2samp(*sides, method="asymp")
    assert found.size <= oracle.statistic + 1e-12
    common = [np.mean(sides[0] < at) - np.mean(sides[1] < at) for at in {*some[0]} & {*some[1]}]
    assert found.size >= max(map(abs, common), default=0) - 1e-12


def test_by_chance_alone_smirnov_finds_a_difference_in_one_of_twenty_at_most():
    draw, edges, found = np.random.default_rng(2), np.linspace(-5, 5, 31), 0
    for _ in range(400):
        sides = [_histogram(draw.normal(size=150), edges) for _ in range(2)]
        found += smirnov(*zip(*sides, strict=True), (150, 150)).p < 0.05
    assert found / 400 < 0.075


def test_the_difference_of_two_estimates_is_that_of_two_normals():
    found = of_intervals((0.5, 0.402, 0.598), (0.7, 0.602, 0.798))
    assert found.size == pytest.approx(0.2)
    assert found.p == pytest.approx(2 * stats.norm.sf(0.2 / (0.05 * np.sqrt(2))), rel=1e-3)
    assert of_intervals((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)).p == 1
    assert of_intervals((0.5, 0.5, 0.5), (0.6, 0.6, 0.6)).p == 0
