from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from tiebreak.maths.kl import kl_of

# A language of two letters and an end; what follows hangs on the letter before. Every sequence ends after three.
POLICY = {"": [0.5, 0.3, 0.2], "a": [0.1, 0.6, 0.3], "b": [0.7, 0.2, 0.1]}
START = {"": [0.4, 0.4, 0.2], "a": [0.3, 0.3, 0.4], "b": [0.2, 0.5, 0.3]}
LETTERS = "ab."


def _sequences():
    """Yield (probability, log-ratio of each token) of every sequence that the policy can say."""
    for length in (1, 2, 3):
        for letters in itertools.product(range(3), repeat=length):
            if 2 in letters[:-1] or (length < 3 and letters[-1] != 2):
                continue
            probability, ratios, before = 1.0, [], ""
            for letter in letters:
                ours, theirs = POLICY[before][letter], START[before][letter]
                probability *= ours
                ratios.append(math.log(ours) - math.log(theirs))
                before = LETTERS[letter]
            yield probability, np.array(ratios)


def _exact(before="", left=3):
    """KL of all that may follow, by the chain rule."""
    found = 0.0
    for letter, (ours, theirs) in enumerate(zip(POLICY[before], START[before], strict=True)):
        found += ours * math.log(ours / theirs)
        found += ours * _exact(LETTERS[letter], left - 1) if letter < 2 and left > 1 else 0.0
    return found


def test_both_estimators_have_the_kl_of_sequences_for_their_mean():
    told = [(probability, kl_of([ratios])) for probability, ratios in _sequences()]
    assert sum(probability for probability, _ in told) == pytest.approx(1, abs=1e-12)
    for name in ("sequence", "sequence_k3"):
        assert sum(p * getattr(one, name) for p, one in told) == pytest.approx(_exact(), rel=1e-12)


def test_the_mean_of_what_is_drawn_comes_near_the_exact_kl():
    draw = np.random.default_rng(0)
    probabilities, ratios = zip(*_sequences(), strict=True)
    drawn = draw.choice(len(ratios), 40_000, p=np.array(probabilities) / sum(probabilities))
    found = kl_of([ratios[place] for place in drawn])
    length = sum(p * len(one) for p, one in zip(probabilities, ratios, strict=True))
    assert found.sequence == pytest.approx(_exact(), abs=0.02)
    assert found.sequence_k3 == pytest.approx(_exact(), abs=0.02)
    assert found.token == pytest.approx(_exact() / length, abs=0.01)
    assert found.token_k3 == pytest.approx(_exact() / length, abs=0.01)


def test_k3_is_never_negative_and_k1_may_be():
    found = kl_of([np.array([-0.5, -0.1]), np.array([])])
    assert found.sequence == pytest.approx(-0.3)
    assert found.token == pytest.approx(-0.3)
    assert found.sequence_k3 == pytest.approx((math.exp(0.5) - 1.5 + math.exp(0.1) - 1.1) / 2)
    assert kl_of([np.zeros(3)]) == kl_of([np.zeros(1)])


def test_what_is_nothing_or_beyond_all_numbers_is_said():
    with pytest.raises(ValueError, match="at least one token"):
        kl_of([np.array([])])
    assert math.isinf(kl_of([np.array([-1e4])]).sequence_k3)
