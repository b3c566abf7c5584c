"""The area under the ROC curve and its interval: against loops over all couples, and over many draws."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tiebreak.maths.intervals import clustered_auc, wilson


def auc_by_loops(values, positive) -> float:
    """Hanley & McNeil 1982, Eq. 1: every couple, a tie being one half."""
    high = [value for value, is_so in zip(values, positive, strict=True) if is_so]
    low = [value for value, is_so in zip(values, positive, strict=True) if not is_so]
    told = [1.0 if x > y else 0.5 if x == y else 0.0 for x in high for y in low]
    return sum(told) / len(told)


def delong_variance(values, positive) -> float:
    """DeLong, DeLong & Clarke-Pearson 1988, by loops: S10 / M + S01 / N."""
    high = [value for value, is_so in zip(values, positive, strict=True) if is_so]
    low = [value for value, is_so in zip(values, positive, strict=True) if not is_so]

    def beats(x, y):
        return 1.0 if x > y else 0.5 if x == y else 0.0

    of_high = [sum(beats(x, y) for y in low) / len(low) for x in high]
    of_low = [sum(beats(x, y) for x in high) / len(high) for y in low]
    mean = sum(of_high) / len(of_high)
    parts = [sum((one - mean) ** 2 for one in some) / (len(some) - 1) / len(some) for some in (of_high, of_low)]
    return sum(parts)


@pytest.mark.parametrize("seed", range(6))
def test_the_area_is_that_of_all_couples_and_ties_are_halves(seed):
    rng = np.random.default_rng(seed)
    values, positive = rng.integers(0, 8, 60).astype(float), rng.random(60) < 0.3
    found = clustered_auc(values, positive, np.arange(60))
    assert found.value == pytest.approx(auc_by_loops(values, positive), abs=1e-12)
    turned = clustered_auc(-values, positive, np.arange(60))
    assert turned.value == pytest.approx(1 - found.value)
    assert (turned.low, turned.high) == (pytest.approx(1 - found.high), pytest.approx(1 - found.low))


def test_where_every_case_is_its_own_cluster_the_variance_is_delongs():
    rng = np.random.default_rng(0)
    positive = rng.random(900) < 0.4
    values = rng.normal(size=900) + 0.5 * positive
    found = clustered_auc(values, positive, np.arange(900))
    variance = delong_variance(values.tolist(), positive.tolist())
    low, high = wilson(found.value, min(found.value * (1 - found.value) / variance, 900))
    assert (found.low, found.high) == (pytest.approx(float(low), abs=2e-4), pytest.approx(float(high), abs=2e-4))


def test_copies_within_a_cluster_are_no_evidence():
    rng = np.random.default_rng(1)
    positive = rng.random(80) < 0.5
    values = rng.normal(size=80) + positive
    once = clustered_auc(values, positive, np.arange(80))
    often = clustered_auc(np.repeat(values, 5), np.repeat(positive, 5), np.repeat(np.arange(80), 5))
    assert (often.value, often.low, often.high) == pytest.approx((once.value, once.low, once.high))
    assert (often.num, often.num_clusters) == (400, 80)


def test_what_is_told_apart_wholly_is_as_sure_as_its_clusters():
    positive = np.arange(40) % 2 == 0
    found = clustered_auc(positive.astype(float), positive, np.arange(40) // 2)
    assert (found.value, found.high, found.num_clusters) == (1, 1, 20)
    assert found.low == pytest.approx(float(wilson(1.0, 20)[0]))


@pytest.mark.parametrize("shift", [0.0, 0.7, 1.8])
def test_the_interval_holds_the_truth_in_19_of_20_draws_of_clustered_cases(shift):
    """Each prompt has a level of its own that all its completions share, so that cases of a cluster are alike."""
    truth = 0.5 * (1 + math.erf(shift / math.sqrt(2 * (1 + 1)) / math.sqrt(2)))
    held = 0
    for seed in range(400):
        rng = np.random.default_rng([seed, int(10 * shift)])
        clusters = np.repeat(np.arange(60), 4)
        positive = rng.random(240) < rng.beta(1, 1, 60)[clusters]
        values = rng.normal(size=60)[clusters] + rng.normal(size=240) + shift * positive
        found = clustered_auc(values, positive, clusters)
        held += found.low <= truth <= found.high
    assert 0.92 <= held / 400 <= 0.985
