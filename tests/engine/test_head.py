from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from jaxtyping import TypeCheckError
from torch.utils._python_dispatch import TorchDispatchMode

import oracles
from tiebreak.engine import head as under_test
from tiebreak.engine.head import Head, divergences, plain_beside, plain_token_logps, token_logps, token_logps_beside
from tiebreak.errors import ModelError
from tiebreak.maths.distributions import log_collision

ROWS, TIME, VOCABULARY = 3, 7, 5
PROMPT, LENGTH = [2, 4, 2], [7, 5, 3]
NUM_TOKENS = [length - prompt for prompt, length in zip(PROMPT, LENGTH, strict=True)]


# ------------------------------------------------------------------------------------------------------ the plain form


def _case(first: int = 1):
    torch.manual_seed(0)
    logits = 3 * torch.randn(ROWS, TIME, VOCABULARY, dtype=torch.float32)
    ids = torch.randint(VOCABULARY, (ROWS, TIME))
    position = torch.arange(TIME)
    mask = torch.stack([(position >= p) & (position < n) for p, n in zip(PROMPT, LENGTH, strict=True)])
    return logits, ids, mask[:, first + 1 :].flatten().nonzero().squeeze(1), first


def test_scored_tokens_come_row_after_row_and_sum_to_the_loop_over_tokens():
    logits, ids, scored, first = _case()
    found = plain_token_logps(logits[:, first:-1], ids, scored, first).split(NUM_TOKENS)
    for row in range(ROWS):
        length = LENGTH[row]
        expected = oracles.sequence_logp(
            logits[row, :length].double().tolist(), ids[row, :length].tolist(), PROMPT[row]
        )
        assert found[row].sum().item() == pytest.approx(expected[0], rel=1e-6)
        assert found[row].numel() == expected[1]


def test_the_gradient_is_one_hot_minus_softmax_at_scored_positions_and_zero_elsewhere():
    logits, ids, scored, first = _case()
    kept = logits[:, first:-1].clone().requires_grad_()
    plain_token_logps(kept, ids, scored, first).sum().backward()
    softmax = kept.detach().double().softmax(-1)
    for row in range(ROWS):
        for position in range(first, TIME - 1):
            expected = [0.0] * VOCABULARY
            if PROMPT[row] <= position + 1 < LENGTH[row]:
                target = ids[row, position + 1].item()
                expected = [float(k == target) - softmax[row, position - first, k].item() for k in range(VOCABULARY)]
            assert kept.grad[row, position - first].tolist() == pytest.approx(expected, abs=1e-6)


def test_padding_may_hold_anything():
    logits, ids, scored, first = _case()
    clean = plain_token_logps(logits[:, first:-1], ids, scored, first)
    dirty = logits.clone()
    dirty[2, LENGTH[2] :] = float("-inf")
    dirty[1, LENGTH[1] :] = float("nan")
    assert torch.equal(plain_token_logps(dirty[:, first:-1], ids, scored, first), clean)


def test_a_narrow_model_gets_its_softmax_in_fp32():
    logits, ids, scored, first = _case()
    narrow = logits.bfloat16()
    found = plain_token_logps(narrow[:, first:-1], ids, scored, first)
    assert found.dtype == torch.float32
    assert torch.equal(found, plain_token_logps(narrow.float()[:, first:-1], ids, scored, first))


def test_large_scores_do_not_overflow():
    logits, ids, scored, first = _case()
    found = plain_token_logps(logits[:, first:-1] + 1e4, ids, scored, first)
    expected = plain_token_logps(logits[:, first:-1], ids, scored, first)
    assert found.tolist() == pytest.approx(expected.tolist(), abs=0.01)  # 1e4 in fp32 is known to 1e-3


def test_logits_of_other_rows_are_refused():
    logits, ids, scored, first = _case()
    with pytest.raises(TypeCheckError):
        plain_token_logps(logits[:2, first:-1], ids, scored, first)


# ------------------------------------------------------------------------------------ from hidden states, in one pass

SCORED, HIDDEN, WORDS = 11, 6, 17
HEADS = {
    "plain": {},
    "scale": {"scale": 0.25},
    "softcap": {"softcap": 2.0},
    "scale and softcap": {"scale": 1.5, "softcap": 3.0},
}


@pytest.fixture(params=[256, 4, 1], ids=lambda chunk: f"chunks of {chunk}")
def chunk(request, monkeypatch):
    monkeypatch.setattr(under_test, "CHUNK", request.param)
    return request.param


@pytest.fixture(params=["kept", "one kept", "computed again"])
def memory(request, chunk, monkeypatch):
    """How many chunks a trained head may keep for its backward pass."""
    affordable = {"kept": 2**28, "one kept": 4 * WORDS * chunk, "computed again": 0}[request.param]
    monkeypatch.setattr(under_test, "KEPT_BYTES", affordable)


def _inputs(*, trained, bias=True, dtype=torch.float32, **settings):
    """Hidden states, targets, a head, and a gradient that differs from token to token."""
    draw = torch.Generator().manual_seed(0)
    random = lambda *shape: torch.randn(*shape, generator=draw)  # noqa: E731
    hidden = (2 * random(SCORED, HIDDEN)).to(dtype).requires_grad_()
    weight, offset = random(WORDS, HIDDEN), random(WORDS)
    head = Head(weight.requires_grad_(trained), offset.requires_grad_(trained) if bias else None, **settings)
    return hidden, torch.randint(WORDS, (SCORED,), generator=draw), head, random(SCORED)


def _plain_softmax(hidden, targets, head):
    """The formula in float64, differentiated by autograd."""
    logits = head.scale * (hidden @ head.weight.T + (0 if head.bias is None else head.bias))
    logits = logits if head.softcap is None else head.softcap * torch.tanh(logits / head.softcap)
    return torch.log_softmax(logits, -1)[torch.arange(len(targets)), targets]


def _expected(hidden, targets, head, gradient):
    wide = [None if x is None else x.detach().double().requires_grad_() for x in (hidden, head.weight, head.bias)]
    values = _plain_softmax(wide[0], targets, replace(head, weight=wide[1], bias=wide[2]))
    values.backward(gradient.double())
    return values.detach(), *(None if x is None else x.grad for x in wide)


def _assert_near(found, wanted, share=2e-6):
    assert (found.double() - wanted).abs().max() <= share * wanted.abs().max()


@pytest.mark.parametrize("settings", HEADS.values(), ids=HEADS)
@pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])
def test_a_frozen_head_gives_the_values_and_hidden_gradients_of_a_float64_softmax(settings, bias, chunk):
    hidden, targets, head, gradient = _inputs(trained=False, bias=bias, **settings)
    found = token_logps(hidden, targets, head)
    found.backward(gradient)
    values, by_hidden, _, _ = _expected(hidden, targets, head, gradient)
    _assert_near(found.detach(), values)
    _assert_near(hidden.grad, by_hidden)
    assert head.weight.grad is None


@pytest.mark.parametrize("settings", HEADS.values(), ids=HEADS)
@pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])
def test_a_trained_head_gives_the_values_and_all_gradients_of_a_float64_softmax(settings, bias, memory):
    hidden, targets, head, gradient = _inputs(trained=True, bias=bias, **settings)
    found = token_logps(hidden, targets, head)
    found.backward(gradient)
    values, by_hidden, by_weight, by_bias = _expected(hidden, targets, head, gradient)
    _assert_near(found.detach(), values)
    _assert_near(hidden.grad, by_hidden)
    _assert_near(head.weight.grad, by_weight)
    if bias:
        _assert_near(head.bias.grad, by_bias)


@pytest.mark.parametrize("trained", ["weight", "bias"])
def test_a_head_of_which_only_one_part_is_trained_gets_that_part_s_gradient(trained):
    hidden, targets, head, gradient = _inputs(trained=True)
    {"weight": head.bias, "bias": head.weight}[trained].requires_grad_(False)
    token_logps(hidden, targets, head).backward(gradient)
    _, _, by_weight, by_bias = _expected(hidden, targets, head, gradient)
    _assert_near(getattr(head, trained).grad, {"weight": by_weight, "bias": by_bias}[trained])


def test_frozen_and_trained_heads_say_the_same_to_the_bit(chunk):
    found = []
    for trained in (False, True):
        hidden, targets, head, gradient = _inputs(trained=trained, softcap=3.0, scale=0.5)
        found.append(token_logps(hidden, targets, head))
        found[-1].backward(gradient)
    assert torch.equal(*found)


@pytest.mark.parametrize("trained", [False, True], ids=["frozen", "trained"])
def test_without_gradients_the_values_are_the_same_and_have_no_history(trained):
    hidden, targets, head, _ = _inputs(trained=trained, softcap=3.0)
    with torch.no_grad():
        found = token_logps(hidden, targets, head)
    assert not found.requires_grad
    assert torch.equal(found, token_logps(hidden, targets, head))


def test_hidden_states_and_head_stay_as_they_are(chunk):
    hidden, targets, head, gradient = _inputs(trained=True, softcap=3.0, scale=0.5)
    before = [x.detach().clone() for x in (hidden, head.weight, head.bias, targets)]
    token_logps(hidden, targets, head).backward(gradient)
    assert all(
        torch.equal(one, two) for one, two in zip(before, (hidden, head.weight, head.bias, targets), strict=True)
    )


@pytest.mark.parametrize("trained", [False, True], ids=["frozen", "trained"])
def test_bf16_hidden_states_under_fp32_weights_give_fp32_values_and_gradients_of_each_one_s_dtype(trained, chunk):
    hidden, targets, head, gradient = _inputs(trained=trained, dtype=torch.bfloat16)
    found = token_logps(hidden, targets, head)
    found.backward(gradient)
    assert found.dtype == torch.float32
    assert hidden.grad.dtype == torch.bfloat16
    values, by_hidden, by_weight, by_bias = _expected(hidden, targets, head, gradient)
    _assert_near(found.detach(), values, 0.01)
    _assert_near(hidden.grad, by_hidden, 0.02)
    if trained:
        assert head.weight.grad.dtype == torch.float32
        _assert_near(head.weight.grad, by_weight, 0.02)
        _assert_near(head.bias.grad, by_bias, 0.02)


def test_gradients_of_a_thousand_chunks_in_bf16_are_all_in_their_sum(monkeypatch):
    """All of one sign: added up in bfloat16 the sum stands still at 512 times a chunk's."""
    monkeypatch.setattr(under_test, "CHUNK", 1)
    hidden, targets, head, _ = _inputs(trained=True, dtype=torch.bfloat16)
    many = hidden.detach()[:1].repeat(1500, 1).requires_grad_()
    targets, gradient = targets[:1].repeat(1500), torch.ones(1500)
    token_logps(many, targets, head).backward(gradient)
    _, _, by_weight, by_bias = _expected(many, targets, head, gradient)
    _assert_near(head.weight.grad, by_weight, 0.01)
    _assert_near(head.bias.grad, by_bias, 0.01)


@pytest.mark.parametrize("trained", [False, True], ids=["frozen", "trained"])
def test_hidden_states_in_large_scores_do_not_overflow(trained):
    hidden, targets, head, gradient = _inputs(trained=trained, scale=1e4)
    found = token_logps(hidden, targets, head)
    found.backward(gradient)
    _assert_near(found.detach(), _expected(hidden, targets, head, gradient)[0])
    assert hidden.grad.isfinite().all()


class _LargestProduct(TorchDispatchMode):
    """Remembers the rows of the largest matrix that was as wide as the vocabulary."""

    rows = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        if isinstance(found, torch.Tensor) and found.ndim == 2 and found.shape[1] == WORDS:
            self.rows = max(self.rows, found.shape[0])
        return found


@pytest.mark.parametrize("trained", [False, True], ids=["frozen", "trained"])
def test_logits_of_more_than_one_chunk_are_never_held_at_once(trained, monkeypatch):
    monkeypatch.setattr(under_test, "CHUNK", 4)
    hidden, targets, head, gradient = _inputs(trained=trained)
    with _LargestProduct() as seen:
        token_logps(hidden, targets, head).backward(gradient)
    assert 4 <= seen.rows < SCORED


@pytest.mark.parametrize(("kept_chunks", "expected"), [(0, 0), (2, 2), (99, 3)])
def test_a_trained_head_keeps_no_more_chunks_for_its_backward_pass_than_it_may(kept_chunks, expected, monkeypatch):
    monkeypatch.setattr(under_test, "CHUNK", 4)
    monkeypatch.setattr(under_test, "KEPT_BYTES", kept_chunks * 4 * WORDS * 4)
    hidden, targets, head, _ = _inputs(trained=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tuple(tensor.shape)), lambda _: None):
        token_logps(hidden, targets, head)
    assert sum(shape[1:] == (WORDS,) for shape in kept) == expected


def test_targets_of_other_positions_are_refused():
    hidden, targets, head, _ = _inputs(trained=False)
    with pytest.raises(TypeCheckError):
        token_logps(hidden[1:], targets, head)


# -------------------------------------------------------------------------------------- a number of whole distributions


@pytest.mark.parametrize("trained", [False, True])
def test_a_statistic_of_each_distribution_comes_from_the_same_pass_and_changes_nothing(trained, memory):
    hidden, targets, head, gradient = _inputs(trained=trained)
    plain = token_logps(hidden, targets, head)
    found, beside, apart = token_logps_beside(hidden, targets, head, log_collision)
    assert torch.equal(found, plain) and not beside.requires_grad and apart is None
    logits = hidden.detach().double() @ head.weight.detach().double().T + head.bias.detach().double()
    _assert_near(beside.double(), logits.softmax(-1).square().sum(-1).log(), 1e-5)
    found.backward(gradient)
    own = hidden.grad.clone()
    hidden.grad = None
    plain.backward(gradient)
    assert torch.equal(hidden.grad, own)


def test_of_logits_it_is_that_of_the_scored_positions_row_after_row():
    logits, _, scored, first = _case()
    found = plain_beside(logits[:, first:-1].requires_grad_(), scored, log_collision)
    wanted = [
        sum(p * p for p in logits[row, place].double().softmax(-1).tolist())
        for row in range(ROWS)
        for place in range(PROMPT[row] - 1, LENGTH[row] - 1)
    ]
    assert found.double().exp().tolist() == pytest.approx(wanted, rel=1e-6)
    assert not found.requires_grad


# ------------------------------------------------------------------------------- how far distributions are from others


def _others(seed=7):
    draw = torch.Generator().manual_seed(seed)
    logps = torch.randn(SCORED, WORDS, generator=draw).log_softmax(-1)
    return logps, lambda part: logps[part].clone()


@pytest.mark.parametrize("settings", HEADS.values(), ids=HEADS)
@pytest.mark.parametrize("trained", [False, True], ids=["frozen", "trained"])
def test_divergences_have_the_values_and_all_gradients_of_float64_beside_those_of_log_probabilities(
    trained, settings, memory
):
    hidden, targets, head, gradient = _inputs(trained=trained, **settings)
    theirs, others = _others()
    found, _, apart = token_logps_beside(hidden, targets, head, None, others)
    second = gradient.flip(0) + 0.3
    (found * gradient + apart * second).sum().backward()
    wide = [x.detach().double().requires_grad_() for x in (hidden, head.weight, head.bias)]
    logits = head.scale * (wide[0] @ wide[1].T + wide[2])
    logits = logits if head.softcap is None else head.softcap * torch.tanh(logits / head.softcap)
    own, exact = logits.log_softmax(-1), theirs.double()
    kl = (exact.exp() * (exact - own)).sum(-1)
    picked = own[torch.arange(SCORED), targets]
    (picked * gradient.double() + kl * second.double()).sum().backward()
    _assert_near(apart.detach(), kl.detach())
    _assert_near(hidden.grad, wide[0].grad)
    if trained:
        _assert_near(head.weight.grad, wide[1].grad)
        _assert_near(head.bias.grad, wide[2].grad)


def test_the_divergence_and_its_slope_by_logits_are_those_of_the_loop():
    theirs, _ = _others()
    logits = torch.randn(SCORED, WORDS, generator=torch.Generator().manual_seed(3)).requires_grad_()
    found = divergences(theirs, logits.log_softmax(-1))
    found.sum().backward()
    for place in range(SCORED):
        both = theirs[place].double().tolist(), logits[place].detach().double().tolist()
        assert found[place].item() == pytest.approx(oracles.sequential_kl([both[0]], [both[1]], 1, 2), rel=1e-5)
        assert logits.grad[place].tolist() == pytest.approx(oracles.sequential_kl_slope(*both), abs=1e-6)


@pytest.mark.parametrize("trained", [False, True], ids=["frozen", "trained"])
def test_of_its_own_distributions_a_head_is_not_apart_and_nothing_pulls(trained, chunk):
    hidden, targets, head, _ = _inputs(trained=trained)
    own = head.logits(hidden.detach()).log_softmax(-1).detach()
    _, _, apart = token_logps_beside(hidden, targets, head, None, lambda part: own[part].clone())
    assert apart.abs().max() < 1e-6
    apart.sum().backward()
    assert hidden.grad.abs().max() < 1e-5


@pytest.mark.parametrize("trained", [False, True], ids=["frozen", "trained"])
def test_nor_are_they_of_more_than_one_chunk_where_distributions_are_compared(trained, monkeypatch):
    monkeypatch.setattr(under_test, "CHUNK", 4)
    hidden, targets, head, gradient = _inputs(trained=trained)
    theirs, _ = _others()
    with _LargestProduct() as seen:
        found, _, apart = token_logps_beside(hidden, targets, head, None, lambda part: theirs[part].clone())
        (found * gradient + apart).sum().backward()
    assert 4 <= seen.rows < SCORED


def test_what_the_reference_never_writes_adds_nothing():
    theirs = torch.tensor([[0.0, -torch.inf]])
    assert divergences(theirs, torch.tensor([[-1.0, -torch.inf]])).tolist() == [1.0]


def test_distributions_over_other_vocabularies_are_refused_in_one_line():
    with pytest.raises(ModelError, match="the reference has 17 tokens in its vocabulary and the policy 16"):
        divergences(torch.zeros(3, 17), torch.zeros(3, 16))
