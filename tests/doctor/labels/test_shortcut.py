"""Superficial features predict held-out labels exactly as well as they were planted to."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.optimize import minimize

from bounds import hang_after
from tiebreak.doctor.labels.crossfit import fit_lbfgs, fit_newton, folds_of, sigmoid, subsample
from tiebreak.doctor.labels.shortcut import MAX_ROWS, Shortcut, TooFew, find_shortcuts, find_shortcuts_apart
from tiebreak.maths.intervals import clustered_ratio, wilson, wilson_share


def _planted(num, weights, seed=0):
    """Features whose weighted sum prefers one of two completions with the logistic probability."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(num, len(weights)))
    better = rng.random(num) < sigmoid(features @ np.array(weights))
    return np.where(better[:, None], features, -features).astype(np.float32)


def test_wilsons_interval_is_that_of_the_textbook():
    # Newcombe 1998, table I: 81 of 263 gives .2553 to .3662, 0 of 20 gives 0 to .1611.
    low, high = wilson(np.array([81 / 263, 0.0]), np.array([263, 20]))
    assert low == pytest.approx([0.2553, 0.0], abs=5e-5)
    assert high == pytest.approx([0.3662, 0.1611], abs=5e-5)


def test_without_repeats_the_clustered_interval_is_wilsons():
    values = np.array([1.0] * 30 + [0.0] * 70)
    found = wilson_share(values, np.arange(100))
    low, high = wilson(0.3, 99)  # the sample variance divides by 99
    assert (found.low, found.high) == (pytest.approx(float(low)), pytest.approx(float(high)))


def test_repeating_every_pair_does_not_narrow_the_interval():
    values = np.array([1.0] * 30 + [0.0] * 70)
    once, often = (
        wilson_share(values, np.arange(100)),
        wilson_share(np.tile(values, 9), np.tile(np.arange(100), 9)),
    )
    assert (often.low, often.high) == (pytest.approx(once.low), pytest.approx(once.high))
    assert (often.num, often.num_clusters) == (900, 100)


def test_where_nothing_varies_the_interval_is_that_of_the_clusters():
    found = clustered_ratio(np.full(20, 5.0), np.full(20, 5.0))
    assert (found.value, found.high) == (1, 1)
    assert found.low == pytest.approx(float(wilson(1.0, 20)[0]))


def test_no_cluster_is_in_two_folds_and_folds_are_even_and_do_not_hang_on_the_order():
    clusters = np.random.default_rng(0).integers(0, 50, 400)
    folds = folds_of(clusters)
    assert all(len(set(folds[clusters == code])) == 1 for code in range(50))
    assert np.bincount([folds[clusters == code][0] for code in range(50)]).tolist() == [10] * 5
    order = np.random.default_rng(1).permutation(400)
    assert folds_of(clusters[order]).tolist() == folds[order].tolist()


def test_a_subsample_takes_whole_clusters():
    clusters = np.random.default_rng(0).integers(0, 50, 400)
    rows = subsample(clusters, 100)
    assert 80 < len(rows) <= 100
    assert not set(clusters[rows]) & set(np.delete(clusters, rows))
    assert len(subsample(clusters, 400)) == 400


def test_a_subsample_passes_over_clusters_that_are_too_large_and_is_never_empty():
    clusters = np.repeat(np.arange(21), [4000, *[10] * 20])
    rows = subsample(clusters, 150)
    assert len(rows) == 150
    assert 0 not in clusters[rows]
    large = np.repeat(np.arange(25), 1000)
    rows = subsample(large, 500)
    assert len(rows) == 500
    assert np.bincount(large[rows]).tolist() == [20] * 25


def test_newton_and_lbfgs_find_the_same_minimum_as_a_general_optimizer():
    features = _planted(200, [1.0, -2.0, 0.5]).astype(np.float64)

    def loss(weights):
        return np.logaddexp(0, -features @ weights).sum() + 1.5 / 2 * weights @ weights

    expected = minimize(loss, np.zeros(3), tol=1e-10).x
    assert fit_newton(features, 1.5) == pytest.approx(expected, abs=1e-4)
    assert fit_lbfgs(features, 1.5) == pytest.approx(expected, abs=1e-2)


def test_newton_stays_finite_where_a_feature_separates_everything():
    features = np.column_stack([np.full(500, 1e4), np.ones(500)])
    assert np.isfinite(fit_newton(features, 1e-3)).all()


def test_length_that_decides_seven_of_ten_is_found_with_its_interval():
    rng, num = np.random.default_rng(0), 4000
    longer = np.where(rng.random(num) < 0.7, 1, -1) * rng.integers(1, 90, num)
    features = np.column_stack([longer, rng.normal(size=num)])
    found = find_shortcuts(features, ["length", "lists"], np.arange(num))
    assert found.length.low < 0.7 < found.length.high
    assert found.length == found.rows[0].alone
    assert found.rows[1].alone.value == pytest.approx(0.5, abs=0.03)
    assert found.rows[0].coefficient > 10 * abs(found.rows[1].coefficient)


def test_a_preference_for_brevity_is_a_shortcut_too():
    features = -np.abs(np.random.default_rng(0).normal(size=(500, 1)))
    found = find_shortcuts(features, ["length"], np.arange(500))
    assert found.length.value == 1
    assert found.rows[0].coefficient < 0


def test_all_features_together_see_what_none_sees_alone():
    found = find_shortcuts(_planted(6000, [2.0, -2.0, 2.0]), ["a", "b", "c"], np.arange(6000))
    assert found.together.value > max(row.alone.value for row in found.rows) + 0.08
    best = np.mean(np.maximum(sigmoid(x := _planted(200_000, [2.0, -2.0, 2.0], 1) @ [2.0, -2.0, 2.0]), sigmoid(-x)))
    assert found.together.low < best < found.together.high


def test_equal_features_are_ties_and_count_one_half():
    features = np.zeros((400, 2))
    features[:100, 0] = 1
    found = find_shortcuts(features, ["length", "never"], np.arange(400))
    assert found.length.value == pytest.approx(1 / 4 + 3 / 8)
    assert (found.rows[1].alone.value, found.rows[1].coefficient) == (0.5, 0)


def test_writing_a_pair_the_other_way_round_changes_nothing_but_the_side():
    features = _planted(300, [1.0, 0.3])
    found, turned = (find_shortcuts(sign * features, ["a", "b"], np.arange(300)) for sign in (1, -1))
    assert turned.together == found.together
    assert [row.coefficient for row in turned.rows] == pytest.approx([-row.coefficient for row in found.rows])


def test_a_feature_that_only_names_the_prompt_is_not_mistaken_for_a_shortcut():
    # The same random feature and label on every pair of a prompt: fitting on its twins would predict it perfectly.
    rng = np.random.default_rng(3)
    prompt = np.repeat(np.arange(60), 20)
    names = np.eye(60)[prompt] * np.where(rng.random(60) < 0.5, 1, -1)[prompt][:, None]
    found = find_shortcuts(names, [str(i) for i in range(60)], prompt)
    assert found.together.value == 0.5
    assert found.together.num_clusters == 60


def test_labels_without_a_shortcut_are_predicted_by_chance():
    excluded = 0
    for seed in range(40):
        features = np.random.default_rng(seed).normal(size=(400, 10))
        found = find_shortcuts(features, [str(i) for i in range(10)], np.repeat(np.arange(200), 2))
        excluded += not found.together.low <= 0.5 <= found.together.high
    assert excluded <= 6


@pytest.mark.parametrize(("num", "num_clusters"), [(39, 39), (400, 19), (0, 1)])
def test_too_few_pairs_say_so_and_give_no_number(num, num_clusters):
    found = find_shortcuts(np.ones((num, 1)), ["length"], np.arange(num) % num_clusters)
    assert isinstance(found, TooFew)
    assert "at least 40 pairs in 20 clusters" in found.as_dict()["note"]


def test_features_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="do not fit"):
        find_shortcuts(np.ones((50, 2)), ["length"], np.arange(50))
    with pytest.raises(ValueError, match="finite"):
        find_shortcuts(np.full((50, 1), np.nan), ["length"], np.arange(50))


def test_a_million_pairs_take_seconds_and_say_that_they_were_thinned():
    features = _planted(1_000_000, [0.5] * 10)
    with hang_after():
        found = find_shortcuts(features, [str(i) for i in range(10)], np.arange(1_000_000) // 2)
    assert isinstance(found, Shortcut)
    assert MAX_ROWS - 2 <= found.num_rows <= MAX_ROWS
    told = json.loads(json.dumps(found.as_dict()))
    assert told["note"] == f"measured on {found.num_rows} of 1000000 pairs"
    assert found.together.high - found.together.low < 0.01


# --------------------------------------------------------------------------------------------- completions on their own


def _apart(num, weights, seed=0, level=0.0):
    """Features that say with the logistic probability whether a completion is liked."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(num, len(weights)))
    return features.astype(np.float32), rng.random(num) < sigmoid(features @ np.array(weights) + level)


@pytest.mark.parametrize("level", [0.0, -2.0])
def test_completions_are_told_apart_as_well_as_was_planted_whatever_the_share_of_liked(level):
    weights = [1.0, -1.5, 0.0]
    found = find_shortcuts_apart(*_apart(4000, weights, level=level), ["a", "b", "c"], np.arange(4000) // 2)
    features, liked = _apart(400_000, weights, 1, level)
    truth = {name: _area(column, liked) for name, column in zip("abc", features.T, strict=True)}
    for row in found.rows:
        assert row.alone.low < truth[row.name] < row.alone.high, row.name
    assert found.together.low < _area(features @ np.array(weights), liked) < found.together.high
    assert np.sign([row.coefficient for row in found.rows[:2]]).tolist() == [1, -1]
    assert found.rows[1].alone.value < 0.5  # less of it is liked


def _area(scores, liked):
    ranks = np.argsort(np.argsort(scores))
    return (ranks[liked].mean() - (liked.sum() - 1) / 2) / (~liked).sum()


def test_features_that_say_nothing_tell_nothing():
    above = 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        features, liked = rng.normal(size=(200, 8)).astype(np.float32), rng.random(200) < 0.3
        found = find_shortcuts_apart(features, liked, list("abcdefgh"), np.arange(200) // 2)
        above += found.together.low > 0.5
    assert above <= 3


def test_all_features_together_are_measured_on_clusters_that_were_not_fitted():
    """A feature that names its cluster says all of labels that were seen, and nothing of others."""
    rng = np.random.default_rng(0)
    clusters = np.repeat(np.arange(30), 8)
    liked = rng.random(30)[clusters] < 0.5
    features = np.eye(30, dtype=np.float32)[clusters]
    found = find_shortcuts_apart(features, liked, [str(n) for n in range(30)], clusters)
    assert found.together.low < 0.5


def test_too_few_completions_or_one_label_are_said():
    features = np.zeros((400, 1), np.float32)
    assert find_shortcuts_apart(features[:30], np.arange(30) < 9, ["a"], np.arange(30)).reason == (
        "30 completions in 30 clusters: at least 40 completions in 20 clusters are needed"
    )
    alone = find_shortcuts_apart(features, np.ones(400, bool), ["a"], np.arange(400))
    assert alone == TooFew("every completion has the same label")
    told = find_shortcuts_apart(features, np.arange(400) % 2 == 0, ["a"], np.arange(400)).as_dict()
    assert (told["num_completions"], told["length"]["accuracy"]) == (400, 0.5)
