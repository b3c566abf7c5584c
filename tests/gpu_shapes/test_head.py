"""The head on CUDA: frozen and trained, capped and scaled, a statistic beside it, and how far another model is."""

from __future__ import annotations

import pytest
import torch

from fake_card import CARD
from tiebreak.engine import head as heads
from tiebreak.engine.head import CHUNK, Head, plain_beside, plain_distributions, plain_token_logps, token_logps_beside
from tiebreak.maths.distributions import log_collision

VOCABULARY, HIDDEN, NUM = 50, 16, 2 * CHUNK + 3
FP32, BF16 = torch.float32, torch.bfloat16


@pytest.mark.parametrize("kept", [0, 1, 2**28], ids=["nothing kept", "one chunk kept", "all kept"])
@pytest.mark.parametrize("shape", ["plain", "biased", "capped and scaled"])
@pytest.mark.parametrize("against", [False, True])
@pytest.mark.parametrize(("weights", "states"), [(FP32, FP32), (FP32, BF16), (BF16, BF16)])
@pytest.mark.parametrize("trained", [False, True])
def test_values_gradients_and_all_beside_are_on_the_card(
    trained, weights, states, against, shape, kept, waits, monkeypatch
):
    monkeypatch.setattr(heads, "KEPT_BYTES", kept * 4 * VOCABULARY * CHUNK)
    weight = torch.empty(VOCABULARY, HIDDEN, dtype=weights, device=CARD, requires_grad=trained)
    bias = torch.empty(VOCABULARY, dtype=weights, device=CARD, requires_grad=trained) if shape == "biased" else None
    more = {"scale": 0.5, "softcap": 30.0} if shape == "capped and scaled" else {}
    hidden = torch.empty(NUM, HIDDEN, dtype=states, device=CARD, requires_grad=True)
    targets = torch.zeros(NUM, dtype=torch.long, device=CARD)
    others = (lambda part: torch.empty(NUM, VOCABULARY, device=CARD)[part].log_softmax(-1)) if against else None
    values, beside, apart = token_logps_beside(hidden, targets, Head(weight, bias, **more), log_collision, others)
    told = [values, beside, *([apart] if against else [])]
    assert {(one.shape, one.dtype, one.device) for one in told} == {((NUM,), FP32, CARD)}
    sum(one for one in told if one.requires_grad).sum().backward()
    learned = [hidden, *([weight] if trained else []), *([bias] if trained and bias is not None else [])]
    for one in learned:
        assert (one.grad.shape, one.grad.dtype, one.grad.device) == (one.shape, one.dtype, CARD)
    assert waits.at == []


@pytest.mark.parametrize("dtype", [FP32, BF16])
def test_the_plain_form_selects_without_asking_the_card(dtype, waits):
    logits = torch.empty(3, 6, VOCABULARY, dtype=dtype, device=CARD, requires_grad=True)
    ids = torch.zeros(3, 9, dtype=torch.long, device=CARD)
    places = torch.tensor([0, 1, 7, 8, 17]).to(CARD, non_blocking=True)
    values = plain_token_logps(logits, ids, places, 2)
    beside = plain_beside(logits, places, log_collision)
    assert {(one.shape, one.dtype, one.device) for one in (values, beside)} == {((5,), FP32, CARD)}
    assert plain_distributions(logits, places).shape == (5, VOCABULARY)
    values.sum().backward()
    assert logits.grad.dtype == dtype
    assert waits.at == []
