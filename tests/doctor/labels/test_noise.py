"""Planted flips are estimated from margins, repeats, votes and scores, with intervals that own up to what they miss."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bounds import hang_after
from tiebreak.doctor.labels.crossfit import sigmoid
from tiebreak.doctor.labels.margins import Margins, fit_margins, side_by_side
from tiebreak.doctor.labels.noise import (
    flip_probability,
    from_repeats,
    from_scores,
    from_votes,
    label_noise,
    lapse_rate,
    rate_of_contradiction,
)
from tiebreak.doctor.texts.vocabulary import word_differences
from tiebreak.maths.intervals import wilson_share


def _margins(values, clusters=None):
    codes = np.arange(len(values)) if clusters is None else clusters
    return Margins(values, codes, wilson_share((values > 0).astype(float), codes), ())


def _planted(num, strength, rate, seed=0):
    """Calibrated margins of a predictor, and which labels were flipped."""
    rng = np.random.default_rng(seed)
    logits = strength * rng.normal(size=num)
    agree, flipped = rng.random(num) < sigmoid(logits), rng.random(num) < rate
    return np.where(agree != flipped, logits, -logits), flipped


@pytest.mark.parametrize("rate", [0.0, 0.05, 0.1, 0.3])
@pytest.mark.parametrize("strength", [2.0, 5.0])
def test_a_sure_predictor_finds_the_planted_rate(rate, strength):
    found = lapse_rate(_margins(_planted(20_000, strength, rate)[0])).estimate
    assert found.value == pytest.approx(rate, abs=0.03)
    assert found.low - 0.005 <= rate <= found.high + 0.005


@pytest.mark.parametrize("scale", [0.01, 1.0, 40.0])
def test_the_unit_of_the_margins_does_not_matter(scale):
    values = _planted(5000, 3.0, 0.1)[0]
    one, other = lapse_rate(_margins(values)), lapse_rate(_margins(values * scale))
    assert other.estimate.value == pytest.approx(one.estimate.value, abs=1e-3)
    assert other.slope * scale == pytest.approx(one.slope, rel=1e-2)


def test_the_interval_covers_the_planted_rate_as_often_as_it_says():
    covered = []
    for seed in range(60):
        rate = (0.05, 0.1, 0.3)[seed % 3]
        found = lapse_rate(_margins(_planted(1500, 3.0, rate, seed)[0])).estimate
        covered.append(found.low <= rate <= found.high)
    assert np.mean(covered) >= 0.86  # 95 % less three standard errors of 60 trials


def test_a_predictor_that_is_never_sure_leaves_it_open_and_says_so():
    found = lapse_rate(_margins(_planted(1000, 0.4, 0.3)[0])).estimate
    assert found.high - found.low > 0.3
    assert "hardly ever nearly sure" in found.note


def test_a_predictor_that_knows_nothing_proves_nothing():
    found = lapse_rate(_margins(np.random.default_rng(0).normal(size=1000))).estimate
    assert found.low < 0.05


def test_repeated_pairs_do_not_narrow_the_interval():
    values = _planted(1000, 3.0, 0.1)[0]
    once = lapse_rate(_margins(values)).estimate
    often = lapse_rate(_margins(np.tile(values, 8), np.tile(np.arange(1000), 8))).estimate
    assert often.high - often.low == pytest.approx(once.high - once.low, rel=0.1)


def test_suspicion_is_bayes_rule():
    # One pair at logit 2 the wrong way round, 10 % flips: .1 * .881 / (.1 * .881 + .9 * .119).
    agree = 1 / (1 + np.exp(-2.0))
    expected = 0.1 * agree / (0.1 * agree + 0.9 * (1 - agree))
    assert flip_probability(np.array([-1.0]), 2.0, 0.1)[0] == pytest.approx(expected)
    assert flip_probability(np.array([-800.0, 800.0]), 2.0, 0.1) == pytest.approx([1.0, 0.0])
    assert flip_probability(np.array([-5.0]), 2.0, 0.0)[0] == 0


def test_suspicion_is_calibrated_and_ranks_the_flips_first():
    values, flipped = _planted(100_000, 4.0, 0.1)
    suspicion = label_noise(len(values), margins=_margins(values)).suspicion
    for low, high in ((0, 0.05), (0.2, 0.5), (0.5, 0.8), (0.9, 1.01)):
        inside = (suspicion >= low) & (suspicion < high)
        assert flipped[inside].mean() == pytest.approx(suspicion[inside].mean(), abs=0.05)
    assert flipped[np.argsort(-suspicion)[:500]].mean() > 0.9


def test_repeats_that_contradict_give_the_rate():
    # c = 2e(1 - e): with e = .1 two judgements contradict each other at .18.
    assert rate_of_contradiction(0.18) == pytest.approx(0.1)
    assert rate_of_contradiction(0.7) == 0.5
    rng, num = np.random.default_rng(0), 4000
    prompt = np.repeat(np.arange(num), 2).astype(np.uint64)
    flipped = rng.random(2 * num) < 0.1
    chosen, rejected = (np.where(flipped, *sides).astype(np.uint64) for sides in ((2, 1), (1, 2)))
    found = from_repeats(prompt, chosen, rejected)
    assert found.low < 0.1 < found.high < 0.13
    assert (found.num, found.source) == (2 * num, "repeats")
    order = rng.permutation(2 * num)
    assert from_repeats(prompt[order], chosen[order], rejected[order]) == found


def test_without_repeats_nothing_is_said_and_equal_completions_are_no_judgement():
    prompt, ones = np.array([1, 2, 3, 3], dtype=np.uint64), np.ones(4, dtype=np.uint64)
    assert from_repeats(prompt, ones, ones) is None
    assert from_repeats(prompt, ones, np.array([2, 2, 2, 3], dtype=np.uint64)) is None
    assert from_repeats(*(np.zeros(0, dtype=np.uint64),) * 3) is None


@pytest.mark.parametrize(("num_votes", "rate"), [(3, 0.1), (3, 0.25), (5, 0.2), (4, 0.2)])
def test_votes_give_the_share_of_wrong_majorities(num_votes, rate):
    rng = np.random.default_rng(0)
    right = rng.binomial(num_votes, 1 - rate, 5000)
    decided = right * 2 != num_votes
    wins, losses = np.maximum(right, num_votes - right)[decided], np.minimum(right, num_votes - right)[decided]
    found, wrong = from_votes(wins, losses)
    truth = np.mean((right * 2 < num_votes)[decided])
    assert found.low - 0.01 <= truth <= found.high + 0.01
    assert wrong.mean() == pytest.approx(found.value)


def test_two_votes_say_nothing_for_a_tie_would_have_made_no_label():
    assert from_votes(np.full(50, 2), np.zeros(50, dtype=np.int64)) is None
    found, wrong = from_votes(np.array([3, 2, 3, 2, 0, 1]), np.array([0, 1, 0, 0, 0, 2]))
    assert found.num == 4
    assert np.isnan(wrong).tolist() == [False, False, False, False, True, False]
    assert wrong[5] > 0.5 > wrong[1] > wrong[3] > wrong[0]


def test_thousands_of_votes_on_a_pair_do_not_overflow():
    found, wrong = from_votes(np.array([9000, 8000]), np.array([1000, 2000]))
    assert found.value < 1e-6
    assert (wrong < 1e-6).all()


def test_inverted_scores_are_counted_and_missing_or_equal_ones_are_not():
    found = from_scores(np.array([5, 1, 3, np.nan, 2.0]), np.array([4, 2, 3, 1, 1.0]))
    assert (found.value, found.num, found.note) == (pytest.approx(1 / 3), 3, "1 labels contradict their scores")
    assert from_scores(np.full(3, np.nan), np.ones(3)) is None


def test_the_sources_stand_side_by_side_and_the_surest_is_named():
    values, _ = _planted(2000, 3.0, 0.1)
    votes = from_votes(np.full(2000, 3), np.arange(2000) % 2)
    scores = from_scores(np.ones(2000), np.zeros(2000))
    found = label_noise(2000, margins=_margins(values), votes=votes, scores=scores)
    assert [estimate.source for estimate in found.estimates] == ["margins", "votes", "scores"]
    stated = json.loads(json.dumps(found.as_dict()))
    assert found.surest.source == "votes"  # the narrowest interval
    (votes_row,) = [row for row in stated["sources"] if row["name"] == "votes"]
    assert [stated[name] for name in ("estimate", "low", "high")] == [
        votes_row[name] for name in ("estimate", "low", "high")
    ]


def test_a_pairs_votes_and_its_margin_are_weighed_together():
    values, _ = _planted(2000, 3.0, 0.1)
    votes = from_votes(np.full(2000, 3), np.arange(2000) % 2)
    suspicion = label_noise(2000, margins=_margins(np.full(2000, -1.0) * np.abs(values)), votes=votes).suspicion
    unanimous, split = suspicion[0::2], suspicion[1::2]
    assert split.mean() > unanimous.mean()


def test_without_any_source_nothing_is_suspected():
    found = label_noise(3)
    assert (found.estimates, found.surest) == ((), None)
    assert np.isnan(found.suspicion).all()
    few = label_noise(60, margins=_margins(_planted(60, 3.0, 0.1)[0]))
    assert few.estimates == ()


def _texts(num, rate, seed=0):
    """Pairs in which a good completion says more good words; labels flipped at the rate."""
    rng = np.random.default_rng(seed)
    pairs = []
    for _ in range(num):
        good, bad = (" ".join(f"{kind}{word}" for word in rng.integers(0, 30, 12)) for kind in ("good", "bad"))
        shared = " ".join(f"word{word}" for word in rng.integers(0, 300, 20))
        pairs.append((f"{shared} {good}", f"{shared} {bad} {good[:30]}"))
    flipped = rng.random(num) < rate
    return [pair[::-1] if flip else pair for pair, flip in zip(pairs, flipped, strict=True)], flipped


def test_flipped_labels_of_texts_are_estimated_and_found():
    pairs, flipped = _texts(1500, 0.1)
    margins = fit_margins(word_differences(pairs), np.arange(1500))
    found = label_noise(1500, margins=margins)
    assert found.estimates[0].low <= flipped.mean() <= found.estimates[0].high
    assert found.estimates[0].high - found.estimates[0].low < 0.1
    aside = found.suspicion > 0.5
    assert flipped[aside].mean() > 0.9
    assert aside[flipped].mean() > 0.9


def test_margins_never_come_from_a_model_that_saw_the_cluster():
    # Every cluster has words and a label of its own: only its twins could tell.
    rng = np.random.default_rng(0)
    cluster = np.repeat(np.arange(100), 10)
    signs = np.where(rng.random(100) < 0.5, 1.0, -1.0)[cluster]
    margins = fit_margins(np.eye(100)[cluster] * signs[:, None], cluster)
    assert margins.values == pytest.approx(np.zeros(1000), abs=1e-6)
    assert margins.accuracy.value == 0.5


def test_dense_and_sparse_features_give_the_same_margins():
    from scipy.sparse import csr_matrix

    features = np.random.default_rng(0).normal(size=(300, 4)) + 0.3
    dense, sparse = (fit_margins(x, np.arange(300)) for x in (features, csr_matrix(features)))
    assert dense.values == pytest.approx(sparse.values, abs=1e-8)
    assert dense.ridges == sparse.ridges


def test_words_are_those_of_one_completion_only_and_change_sign_with_the_side():
    pairs = [("The cat sat.", "the dog sat."), ("same", "SAME"), ("", "a b")]
    matrix = word_differences(pairs, bigrams=False).toarray()
    assert [int((row != 0).sum()) for row in matrix] == [2, 0, 2]
    assert sorted(matrix[0][matrix[0] != 0]) == pytest.approx([-(0.5**0.5), 0.5**0.5])
    turned = word_differences([pair[::-1] for pair in pairs], bigrams=False).toarray()
    assert (turned == -matrix).all()
    assert (word_differences(pairs, bigrams=True) != 0).sum(1).ravel().tolist()[0][0] == 6


def test_word_columns_are_the_same_in_every_process():
    assert word_differences([("cat", "")], bigrams=False).indices.tolist() == [0x9E5E43A8 % 2**16]


@pytest.mark.parametrize("text", ["a" * 1_000_000, " " * 1_000_000, "\x00\ud800" * 500_000, ". " * 500_000])
def test_long_and_broken_texts_take_linear_time(text):
    with hang_after():
        assert word_differences([(text, "b")]).shape == (1, 2**16)


def test_no_pairs_give_an_empty_matrix():
    assert word_differences([]).shape == (0, 2**16)


def test_features_and_words_stand_side_by_side_at_a_known_size():
    dense = np.random.default_rng(0).normal(size=(50, 4)) * [1, 10, 100, 0]
    both = side_by_side(dense, word_differences([("cat", "dog")] * 50), words_weight=3.0).toarray()
    lengths = (both[:, :4] ** 2).sum(1)
    assert lengths.mean() == pytest.approx(3 / 4)  # the constant column stays zero
    assert (both[:, 4:] ** 2).sum(1) == pytest.approx(9)
