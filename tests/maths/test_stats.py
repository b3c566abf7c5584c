from __future__ import annotations

import numpy as np
import pytest

import oracles
from tiebreak.maths.stats import NUM_RESAMPLES, clustered_mean, clustered_share


def test_the_mean_is_that_of_the_values_and_the_clusters_are_counted():
    found = clustered_mean([1.0, 0.0, 0.5, 1.0], ["a", "b", "a", "c"], seed=1)
    assert (found.mean, found.num, found.num_clusters, found.confidence) == (0.625, 4, 3, 0.95)


@pytest.mark.parametrize("clusters", ["aabccdd", "aaaabcd", "abcabca"])
def test_the_interval_is_that_of_all_possible_resamples(clusters):
    values = [0.1, 0.9, 0.3, 0.85, 0.2, 0.55, 0.7]
    exact = np.array(oracles.cluster_bootstrap_means(values, clusters))
    found = clustered_mean(values, list(clusters), seed=3, confidence=0.8)
    # 10,000 draws: a share of them is known to ± 0.012 (four standard errors), so the quantile lies between these.
    for bound, share in ((found.low, 0.1), (found.high, 0.9)):
        low, high = np.quantile(exact, [share - 0.012, share + 0.012], method="inverted_cdf")
        assert low - 1e-12 <= bound <= high + 1e-12


def test_the_same_seed_gives_the_same_interval_and_another_seed_nearly_so():
    values, clusters = [(i * 0.618) % 1 for i in range(60)], [str(i // 2) for i in range(60)]
    one, two, other = (clustered_mean(values, clusters, seed) for seed in (5, 5, 6))
    assert one == two
    assert (one.low, one.high) != (other.low, other.high)
    assert one.low == pytest.approx(other.low, abs=0.02)


def test_only_the_grouping_of_clusters_matters_not_their_names_or_order():
    values = [0.0, 1.0, 0.5, 0.25, 1.0]
    one = clustered_mean(values, ["a", "a", "b", "c", "c"], seed=2)
    two = clustered_mean(values, ["x", "x", "y", "z", "z"], seed=2)
    assert one == two


def test_repeating_every_pair_does_not_narrow_the_interval():
    rng = np.random.default_rng(0)
    values, prompts = rng.normal(size=40).tolist(), [str(i) for i in range(40)]
    once = clustered_mean(values, prompts, seed=1)
    five_times = clustered_mean(values * 5, prompts * 5, seed=1)
    assert five_times.high - five_times.low == pytest.approx(once.high - once.low, rel=1e-9)


def test_the_interval_covers_the_truth_as_often_as_it_says_on_clustered_data():
    rng, covered, naive, trials = np.random.default_rng(7), 0, 0, 200
    for trial in range(trials):
        effects = rng.normal(size=30)
        sizes = rng.integers(1, 6, size=30)
        clusters = [str(i) for i, size in enumerate(sizes) for _ in range(size)]
        values = [effects[int(c)] + 0.5 * rng.normal() for c in clusters]
        found = clustered_mean(values, clusters, seed=trial)
        alone = clustered_mean(values, [str(i) for i in range(len(values))], seed=trial)
        covered += found.low <= 0 <= found.high
        naive += alone.low <= 0 <= alone.high
    # 95 % less what the percentile bootstrap loses with 30 clusters; three standard errors of 200 trials are 5 %.
    assert 0.89 <= covered / trials <= 0.99
    assert naive / trials < 0.85


def test_many_clusters_are_resampled_in_parts_without_losing_any():
    num = 4_000_000 // NUM_RESAMPLES + 101
    values = [float(i % 2) for i in range(num)]
    found = clustered_mean(values, [str(i) for i in range(num)], seed=0)
    expected = 1.96 * np.std(values) / np.sqrt(num)
    assert found.high - found.mean == pytest.approx(expected, rel=0.05)
    assert found.mean - found.low == pytest.approx(expected, rel=0.05)


def test_nothing_has_no_mean():
    with pytest.raises(ValueError, match="at least one"):
        clustered_mean([], [], seed=0)
    with pytest.raises(ValueError, match="same length"):
        clustered_mean([1.0], ["a", "b"], seed=0)


def test_a_share_without_a_counterexample_keeps_an_honest_interval():
    prompts = [str(index) for index in range(68)]
    won, lost = clustered_share([1.0] * 68, prompts, seed=0), clustered_share([0.0] * 68, prompts, seed=0)
    # Clopper & Pearson 1934: the share at which 68 wins of 68 still have a chance of 2.5 %.
    assert won.low**68 == pytest.approx(0.025)
    assert (won.mean, won.high) == (1.0, 1.0)
    assert (lost.mean, lost.low, lost.high) == (0.0, 0.0, pytest.approx(1 - won.low))


def test_a_share_with_counterexamples_and_a_share_of_ties_are_plain_means():
    mixed, prompts = [1.0, 0.0, 1.0, 1.0, 0.5], list("abcde")
    assert clustered_share(mixed, prompts, seed=3) == clustered_mean(mixed, prompts, seed=3)
    ties = clustered_share([0.5] * 5, prompts, seed=3)
    assert (ties.mean, ties.low, ties.high) == (0.5, 0.5, 0.5)
