"""What is drawn is distributed as the softmax says, and hangs on nothing but seed, prompt, number and place."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from oracles import nucleus
from tiebreak.engine.answers.drawing import BLOCK, LIKELY, Wanted, _keep_nucleus, drawn, likeliest, noise_of

VOCABULARY = 3 * BLOCK - 50


def _logits(rows, scale=3.0, vocabulary=VOCABULARY):
    return scale * torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(5))


def _drawn(logits, temperature, seed, times=1):
    noise = [noise_of(seed, [7, 8], row) for row in range(len(logits))]
    return torch.stack([drawn(logits, temperature, noise) for _ in range(times)], dim=1)


@pytest.mark.parametrize("temperature", [0.7, 1.0, 2.5])
def test_tokens_come_as_often_as_the_softmax_says(temperature):
    logits = _logits(1)
    tokens = _drawn(logits.expand(400, -1), temperature, seed=1, times=50).flatten()
    expected = (logits[0].double() / temperature).softmax(-1).numpy() * len(tokens)
    counts = np.bincount(tokens.numpy(), minlength=VOCABULARY)
    often = expected >= 5
    found = [*counts[often], counts[~often].sum()]
    assert chisquare(found, [*expected[often], expected[~often].sum()]).pvalue > 1e-3
    # A test that could not tell another temperature apart would be worth nothing.
    other = (logits[0].double() / (1.1 * temperature)).softmax(-1).numpy() * len(tokens)
    assert chisquare(found, [*other[often], other[~often].sum()]).pvalue < 1e-6


def test_a_row_s_token_does_not_hang_on_the_rows_beside_it():
    logits = _logits(9)
    together = _drawn(logits, 1.0, seed=3, times=4)
    noise = noise_of(3, [7, 8], 6)
    alone = [int(drawn(logits[6:7], 1.0, [noise])) for _ in range(4)]
    assert together[6].tolist() == alone


def test_seed_prompt_number_and_place_each_draw_anew():
    flat = torch.zeros(1, 4000)
    keys = [(0, [1, 2], 0), (1, [1, 2], 0), (0, [1, 3], 0), (0, [1, 2], 1)]
    sequences = []
    for key in keys:
        noise = noise_of(*key)
        sequences.append([int(drawn(flat, 1.0, [noise])) for _ in range(3)])
    assert len({tuple(one) for one in sequences}) == len(keys)
    assert all(len(set(one)) == 3 for one in sequences)


def test_rounding_moves_hardly_any_token():
    """The share is about twice the total variation; a uniform number through the cumulated softmax would move more."""
    logits = _logits(200, scale=1.0, vocabulary=5000)
    moved = logits + 1e-5 * torch.randn(logits.shape, generator=torch.Generator().manual_seed(6))
    one, two = (_drawn(some, 1.0, seed=9, times=20) for some in (logits, moved))
    assert int((one != two).sum()) <= 2


def test_what_is_impossible_is_never_drawn_and_extreme_temperatures_do_not_break():
    logits = _logits(50)
    logits[:, 10:] = -math.inf
    assert int(_drawn(logits, 5.0, seed=2, times=20).max()) < 10
    logits = _logits(50)
    assert torch.equal(_drawn(logits, 1e-6, seed=2)[:, 0], likeliest(logits))
    assert len(set(_drawn(logits, 1e6, seed=2)[:, 0].tolist())) > 40


def test_drawing_takes_nothing_from_anybody_s_random_stream():
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    _drawn(_logits(3), 1.0, seed=0)
    assert torch.equal(torch.get_rng_state(), before)
    assert np.random.get_state()[1].tolist() == numpy_before


def test_an_answer_ends_with_an_eos_that_it_does_not_hold_or_where_its_room_does():
    one = Wanted(0, 0, room=2, noise=noise_of(0, [1], 0))
    assert [one.take(token, (2, 3)) for token in (5, 3)] == [False, True]
    assert (one.ids, one.finished) == ([5], True)
    one = Wanted(0, 0, room=2, noise=noise_of(0, [1], 0))
    assert [one.take(token, (2, 3)) for token in (5, 6)] == [False, True]
    assert (one.ids, one.finished) == ([5, 6], False)


def test_noise_is_the_same_on_every_machine():
    found = noise_of(0, [1, 2, 3], 4).standard_exponential(2)
    assert found.tolist() == pytest.approx([2.9142930743313498, 2.720018055257809], rel=1e-12)


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 0.5), (0.7, 0.9), (2.0, 0.97), (1.0, 0.01)])
def test_tokens_come_as_often_as_the_nucleus_says_and_no_other_comes(temperature, top_p):
    logits = _logits(1)
    noise = [noise_of(2, [7, 8], row) for row in range(400)]
    tokens = torch.stack([drawn(logits.expand(400, -1), temperature, noise, top_p) for _ in range(50)]).flatten()
    expected = np.array(nucleus(logits[0].double().tolist(), temperature, top_p)) * len(tokens)
    counts = np.bincount(tokens.numpy(), minlength=VOCABULARY)
    assert not counts[expected == 0].any()
    often = expected >= 5
    if often.sum() == 1:  # the likeliest alone
        assert counts[often] == len(tokens)
        return
    rare = [(counts[~often].sum(), expected[~often].sum())] if expected[~often].sum() >= 5 else []
    found, wanted = zip(*zip(counts[often], expected[often], strict=True), *rare, strict=True)
    assert chisquare(found, np.array(wanted) * sum(found) / sum(wanted)).pvalue > 1e-3


def test_a_nucleus_keeps_the_token_that_reaches_its_share_and_all_that_are_as_likely():
    logits = torch.tensor([[0.4, 0.3, 0.1, 0.1, 0.1]], dtype=torch.float64).log().float()
    for top_p, wanted in (
        (0.39, {0}),
        (0.41, {0, 1}),
        (0.69, {0, 1}),
        (0.72, {0, 1, 2, 3, 4}),
        (0.999, {0, 1, 2, 3, 4}),
    ):
        noise = [noise_of(0, [1], row) for row in range(300)]
        assert set(drawn(logits.expand(300, -1), 1.0, noise, top_p).tolist()) == wanted, top_p


def test_a_nucleus_of_all_tokens_draws_to_the_bit_what_no_nucleus_draws():
    logits, noise = _logits(50), lambda: [noise_of(4, [1], row) for row in range(50)]
    assert torch.equal(drawn(logits, 0.8, noise()), drawn(logits, 0.8, noise(), 1.0))


def test_a_token_of_a_nucleus_does_not_hang_on_the_rows_beside_it():
    logits = _logits(9)
    noise = lambda: [noise_of(3, [7, 8], row) for row in range(9)]  # noqa: E731
    together = drawn(logits, 1.0, noise(), 0.8)
    assert [
        int(drawn(logits[row : row + 1], 1.0, noise()[row : row + 1], 0.8)) for row in range(9)
    ] == together.tolist()


def test_a_nucleus_of_many_tokens_is_found_as_one_of_few_is():
    logits = torch.cat([_logits(2, scale, 5 * LIKELY) for scale in (0.1, 6.0)])  # of thousands of tokens, and of a few
    for top_p in (0.3, 0.9, 0.999, 1 - 1e-12):
        weights = (logits - logits.amax(-1, keepdim=True)).exp()
        _keep_nucleus(weights, top_p)
        for row, found in zip(logits.double().tolist(), weights, strict=True):
            wanted = torch.tensor(nucleus(row, 1.0, top_p)) > 0
            # Where float32 ends a sum at its last token, float64 may go one further.
            assert int(((found > 0) ^ wanted).sum()) <= (1 if top_p < 0.9999 else 30)
