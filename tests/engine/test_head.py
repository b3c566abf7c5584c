from __future__ import annotations

import pytest
import torch
from jaxtyping import TypeCheckError

import oracles
from tiebreak.engine.head import completion_logps

ROWS, TIME, VOCABULARY = 3, 7, 5
PROMPT, LENGTH = [2, 4, 2], [7, 5, 3]


def _case(first: int = 1):
    torch.manual_seed(0)
    logits = 3 * torch.randn(ROWS, TIME, VOCABULARY, dtype=torch.float32)
    ids = torch.randint(VOCABULARY, (ROWS, TIME))
    position = torch.arange(TIME)
    mask = torch.stack([(position >= p) & (position < n) for p, n in zip(PROMPT, LENGTH, strict=True)])
    return logits, ids, mask, first


def test_sums_and_counts_equal_the_loop_over_tokens():
    logits, ids, mask, first = _case()
    found, num_tokens = completion_logps(logits[:, first:-1], ids, mask, first)
    for row in range(ROWS):
        length = LENGTH[row]
        expected = oracles.sequence_logp(
            logits[row, :length].double().tolist(), ids[row, :length].tolist(), PROMPT[row]
        )
        assert found[row].item() == pytest.approx(expected[0], rel=1e-6)
        assert num_tokens[row].item() == expected[1]


def test_the_gradient_is_one_hot_minus_softmax_at_scored_positions_and_zero_elsewhere():
    logits, ids, mask, first = _case()
    kept = logits[:, first:-1].clone().requires_grad_()
    completion_logps(kept, ids, mask, first)[0].sum().backward()
    softmax = kept.detach().double().softmax(-1)
    for row in range(ROWS):
        for position in range(first, TIME - 1):
            expected = [0.0] * VOCABULARY
            if PROMPT[row] <= position + 1 < LENGTH[row]:
                target = ids[row, position + 1].item()
                expected = [float(k == target) - softmax[row, position - first, k].item() for k in range(VOCABULARY)]
            assert kept.grad[row, position - first].tolist() == pytest.approx(expected, abs=1e-6)


def test_padding_may_hold_anything():
    logits, ids, mask, first = _case()
    clean = completion_logps(logits[:, first:-1], ids, mask, first)[0]
    dirty = logits.clone()
    dirty[2, LENGTH[2] :] = float("-inf")
    dirty[1, LENGTH[1] :] = float("nan")
    assert torch.equal(completion_logps(dirty[:, first:-1], ids, mask, first)[0], clean)


def test_a_narrow_model_gets_its_softmax_in_fp32():
    logits, ids, mask, first = _case()
    narrow = logits.bfloat16()
    found, _ = completion_logps(narrow[:, first:-1], ids, mask, first)
    assert found.dtype == torch.float32
    assert torch.equal(found, completion_logps(narrow.float()[:, first:-1], ids, mask, first)[0])


def test_large_scores_do_not_overflow():
    logits, ids, mask, first = _case()
    found, _ = completion_logps(logits[:, first:-1] + 1e4, ids, mask, first)
    expected, _ = completion_logps(logits[:, first:-1], ids, mask, first)
    assert found.tolist() == pytest.approx(expected.tolist(), abs=0.05)  # 1e4 in fp32 is known to 1e-3, five tokens


def test_logits_of_other_rows_are_refused():
    logits, ids, mask, first = _case()
    with pytest.raises(TypeCheckError):
        completion_logps(logits[:2, first:-1], ids, mask, first)
