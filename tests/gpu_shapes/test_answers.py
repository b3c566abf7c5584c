"""Answers on CUDA: a few tokens at the table and by transformers' `generate`, greedy and drawn."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from fake_card import CARD, moved
from families import PACKABLE, build
from tiebreak.engine.answers.answerer import Sampling
from tiebreak.engine.answers.drawing import Wanted, likeliest, noise_of
from tiebreak.engine.answers.local import _drawn_at, generate
from tiebreak.engine.answers.padded import _Chosen
from tiebreak.engine.answers.seating import at_the_table, may_come_to_the_table
from tiny import EOS, PAD

PROMPTS = [(5, 6, 7), (8, 9), (5, 6, 7, 8, 9, 10, 11, 12)]
EXPERTS = {"qwen3_moe", "mixtral", "gpt_oss", "deepseek_v3", "phimoe"}
FP32, BF16 = torch.float32, torch.bfloat16


def _network(kind, dtype):
    network = build(kind, **PACKABLE[kind]).to(dtype)
    if kind in EXPERTS and dtype == FP32:
        network.set_experts_implementation("batched_mm")
    return network


@pytest.mark.parametrize("kind", PACKABLE)
def test_every_family_comes_to_the_table_and_is_answered(kind, request):
    network = _network(kind, BF16)
    request.getfixturevalue("waits")
    moved(network)
    assert may_come_to_the_table(network, None)
    found = generate(network, PROMPTS, Sampling(num=1, temperature=0.0, max_new_tokens=3), [EOS], PAD)
    assert found == [((0, 0, 0), False)] * len(PROMPTS)  # a number that is read is nought


@pytest.mark.parametrize("temperature", [0.0, 0.7])
@pytest.mark.parametrize("dtype", [FP32, BF16])
def test_tokens_are_picked_on_the_card(dtype, temperature, waits):
    # What transformers' own `generate` does besides reads numbers where fake tensors have none.
    pick = partial(_drawn_at, Sampling(1, temperature)) if temperature else lambda logits, _: likeliest(logits)
    scores = torch.empty(3, 250, dtype=dtype, device=CARD)
    left = _Chosen(pick, [noise_of(0, (5, 6), at) for at in range(3)])(torch.zeros(3, 4, device=CARD), scores)
    assert (left.shape, left.dtype, left.device) == (scores.shape, dtype, CARD)
    assert len(waits.at) == (1 if temperature else 0)  # for the drawn numbers, which are made on the host


def test_at_the_table_a_step_waits_for_its_tokens_and_the_rest_follows_them(request):
    network, num_new = _network("llama", BF16), 5
    waits = request.getfixturevalue("waits")
    waiting = [Wanted(at, at, num_new, noise_of(0, PROMPTS[at], at)) for at in range(3)]
    with torch.no_grad():
        list(at_the_table(moved(network), PROMPTS, waiting, lambda logits, _: likeliest(logits), [EOS], PAD, None))
    reads = [one for one in waits.at if "tolist" in one]
    assert len(reads) == num_new * len(waiting)  # a list comes one by one from what is no memory


def test_answers_leave_the_table_and_others_take_their_seats(request, monkeypatch):
    network = _network("mistral", BF16)
    request.getfixturevalue("waits")
    moved(network)
    monkeypatch.setattr("tiebreak.engine.answers.seating.MAX_BATCH", 2)
    waiting = [Wanted(at % 3, at, 1 + at, noise_of(0, PROMPTS[at % 3], at)) for at in range(5)]
    with torch.no_grad():
        ended = list(at_the_table(network, PROMPTS, waiting, lambda logits, _: likeliest(logits), [EOS], PAD, None))
    assert sorted(len(one.ids) for some in ended for one in some) == [1, 2, 3, 4, 5]
