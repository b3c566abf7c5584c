"""The fitted direction is that of Bradley and Terry, and what lies outside a span is far from it."""

from __future__ import annotations

import numpy as np
import pytest

from tiebreak.doctor.labels.crossfit import fit_newton
from tiebreak.evaluation.judges.linear import STRENGTHS, Span, better_direction

TRUTH = np.array([2.0, -1.0, 0.0, 0.0])


def differences(num: int, seed: int = 0):
    draw = np.random.default_rng(seed)
    rows = draw.normal(size=(num, len(TRUTH)))
    wins = draw.random(num) < 1 / (1 + np.exp(-rows @ TRUTH))
    return np.where(wins[:, None], rows, -rows)


def test_it_is_the_penalised_maximum_of_the_likelihood():
    rows = differences(300)
    found = better_direction(rows, [str(place) for place in range(300)])
    # Both orders of each pair are fitted, so the penalty of one of these strengths weighs half on each.
    oracles = [fit_newton(rows, 1 / (2 * strength)) for strength in STRENGTHS]
    assert min(np.abs(found - one).max() for one in oracles) < 1e-2
    assert found @ TRUTH / np.linalg.norm(found) / np.linalg.norm(TRUTH) > 0.95


def test_pairs_written_the_other_way_round_turn_the_direction_round():
    rows = differences(60)
    groups = [str(place // 2) for place in range(60)]
    assert better_direction(-rows, groups) == pytest.approx(-better_direction(rows, groups), abs=1e-6)


def test_labels_that_mean_nothing_are_given_less_weight():
    draw = np.random.default_rng(0)
    blind = better_direction(draw.normal(size=(40, 30)), [str(place) for place in range(40)])
    seen = better_direction(differences(40), [str(place) for place in range(40)])
    assert np.linalg.norm(blind) < 0.5 * np.linalg.norm(seen)


def test_one_prompt_alone_cannot_say_how_strong_the_penalty_is():
    assert np.linalg.norm(better_direction(differences(20), ["same"] * 20)) < 0.01


def test_what_varies_otherwise_or_more_than_what_was_seen_is_far():
    draw = np.random.default_rng(0)
    seen = draw.normal(size=(200, 3)) @ np.array([[3.0, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 0.1, 0.1, 0.1]])
    span = Span.of(seen)
    inside = np.quantile(span.distances(seen), 0.99)
    far = span.distances(np.array([[0, 0, 0, 0, 3.0], [60.0, 0, 0, 0, 0], [0, 15.0, 0, 0, 0]]))
    assert (far > 2 * inside).all()
    assert span.distances(seen.mean(0)[None])[0] < inside / 10
