from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiebreak.evaluation.gate import MIN_PROMPTS, decide
from tiebreak.maths.stats import Estimate, clustered_mean

shares = st.floats(0, 1)


def _estimate(mean, low, high, num_clusters=50):
    return Estimate(mean, low, high, 2 * num_clusters, num_clusters)


@pytest.mark.parametrize(
    ("low", "mean", "high", "num_prompts", "verdict"),
    [
        (0.51, 0.6, 0.7, 50, "pass"),
        (0.5001, 0.6, 0.7, MIN_PROMPTS, "pass"),
        (0.51, 0.6, 0.7, MIN_PROMPTS - 1, "inconclusive"),
        (1.0, 1.0, 1.0, 3, "inconclusive"),
        (0.5, 0.6, 0.7, 50, "inconclusive"),
        (0.4, 0.55, 0.7, 50, "inconclusive"),
        (0.2, 0.3, 0.5, 50, "fail"),
        (0.1, 0.2, 0.3, 50, "fail"),
        (0.1, 0.2, 0.3, 2, "fail"),
        (0.5, 0.5, 0.5, 50, "fail"),
    ],
)
def test_verdicts(low, mean, high, num_prompts, verdict):
    assert decide(_estimate(mean, low, high, num_prompts)).verdict == verdict


@given(shares, shares, shares, st.integers(1, 100))
def test_nothing_passes_on_few_prompts_or_with_chance_inside_the_interval(one, two, three, num_prompts):
    low, mean, high = sorted((one, two, three))
    decision = decide(_estimate(mean, low, high, num_prompts))
    if decision.verdict == "pass":
        assert num_prompts >= MIN_PROMPTS
        assert low > 0.5
    if decision.verdict == "fail":
        assert high <= 0.5
    assert "\n" not in decision.reason
    assert f"{num_prompts} prompts" in decision.reason


def test_a_decision_holds_the_numbers_that_it_stands_on_and_is_json():
    accuracy = _estimate(0.6, 0.51, 0.7)
    found = json.loads(json.dumps(decide(accuracy).as_dict()))
    assert found["verdict"] == "pass"
    assert found["threshold"] == 0.5
    assert found["accuracy"] == {
        "mean": 0.6,
        "low": 0.51,
        "high": 0.7,
        "num": 100,
        "num_clusters": 50,
        "confidence": 0.95,
    }


def test_coins_rarely_pass_and_a_planted_preference_does():
    import random

    draw = random.Random(1)
    prompts = [str(index // 2) for index in range(200)]
    coins = [decide(clustered_mean([float(draw.random() < 0.5) for _ in prompts], prompts, s)) for s in range(60)]
    planted = [decide(clustered_mean([float(draw.random() < 0.7) for _ in prompts], prompts, s)) for s in range(20)]
    # One coin in forty lies above by chance; of sixty, more than six would be less likely than one in a thousand.
    assert sum(decision.verdict == "pass" for decision in coins) <= 6
    assert all(decision.verdict == "pass" for decision in planted)
