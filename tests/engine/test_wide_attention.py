"""Attention that is given bfloat16 computes in fp32 on a CPU where that is faster, and is no farther from the truth."""

from __future__ import annotations

import pytest
import torch

from families import BOTH, DECODER, HEADS_OF_8, PACKABLE, build, chosen_scorer, plain
from tiebreak.engine import attention
from tiebreak.engine.attention import PackedLayout
from tiebreak.engine.scorer import PackedScorer
from tiebreak.maths.packing import pack
from tiny import token_pairs

CPU = torch.device("cpu")
PAIRS = token_pairs(5, num_prompts=3)


@pytest.fixture
def calls(monkeypatch):
    """For each call of torch's own attention: the dtype that it computes in."""
    seen, kept = [], attention.scaled_dot_product_attention

    def attend(query, *rest, **more):
        narrow = torch.is_autocast_enabled("cpu")
        seen.append(torch.get_autocast_dtype("cpu") if narrow else query.dtype)
        return kept(query, *rest, **more)

    monkeypatch.setattr(attention, "scaled_dot_product_attention", attend)
    return seen


def _wide(monkeypatch, answer):
    monkeypatch.setattr(attention, "known", lambda _: answer)


@pytest.fixture
def nobody_asks(monkeypatch):
    for name in ("is_faster", "known"):
        monkeypatch.setattr(attention, name, lambda *_: pytest.fail("nobody needs to know"))


def _learned(model, dtype):
    model.zero_grad()
    values = PackedScorer(model, device=CPU, dtype=dtype).tokens(PAIRS).values
    values.sum().backward()
    return torch.cat([values.detach().float(), *(p.grad.flatten().float() for p in model.parameters())])


def _far(found, wanted):
    return float((found - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["llama", "mistral", "gpt2", "qwen2", "qwen3"])
def test_it_is_no_farther_from_the_exact_values_and_gradients(monkeypatch, calls, kind, weights):
    model = build(kind, **PACKABLE[kind]).to(weights)
    exact = build(kind, **PACKABLE[kind])
    exact.load_state_dict({name: one.float() for name, one in model.state_dict().items()})
    exact.zero_grad()
    values = plain(exact).tokens(PAIRS).values
    values.sum().backward()
    wanted = torch.cat([values.detach(), *(p.grad.flatten() for p in exact.parameters())])
    apart = {}
    for answer in (False, True):
        _wide(monkeypatch, answer)
        calls.clear()
        apart[answer] = _far(_learned(model, torch.bfloat16), wanted)
        assert calls
        assert (set(calls) == {torch.float32}) is answer
    # Rounding falls this way or that, by 10.4 % on a processor with AMX; a fault would cost several times as much.
    assert apart[True] <= 1.25 * apart[False] < 0.1


@pytest.mark.usefixtures("nobody_asks")
def test_in_fp32_nothing_is_asked(calls):
    _learned(build("llama", **DECODER), torch.float32)
    assert set(calls) == {torch.float32}


@pytest.mark.usefixtures("nobody_asks")
def test_capped_scores_keep_their_own_form():
    _learned(build("gemma2", **PACKABLE["gemma2"]), torch.bfloat16)


@pytest.mark.usefixtures("nobody_asks")
def test_a_learned_sink_keeps_its_own_form(calls):
    row = pack(PAIRS)
    heads = [torch.randn(1, 4, row.input_ids.numel(), 8).bfloat16() for _ in range(3)]
    layout = PackedLayout(row.segments, set())
    found, _ = attention.packed_attention(None, *heads, None, packed_layout=layout, s_aux=torch.zeros(4))
    assert found.isfinite().all()
    assert calls == []


@pytest.fixture
def questions(monkeypatch):
    """What is asked, and what is looked up."""
    asked, known = [], []
    monkeypatch.setattr(attention, "is_faster", lambda question, *_: bool(asked.append(question)))
    monkeypatch.setattr(attention, "known", lambda question: bool(known.append(question)))
    return asked, known


OF_TWO_SIZES = HEADS_OF_8 | BOTH | {"global_head_dim": 16, "hidden_size_per_layer_input": 0}
HEADS = {
    "llama": (DECODER, 1),
    "gpt2": (PACKABLE["gpt2"], 1),
    "qwen3": (PACKABLE["qwen3"], 1),
    "gemma2": (PACKABLE["gemma2"], 0),
    "deepseek_v3": (PACKABLE["deepseek_v3"], 1),
    "gemma4_text": (OF_TWO_SIZES, 2),
}


@pytest.mark.parametrize("kind", HEADS)
def test_what_is_looked_up_was_asked_while_the_model_was_loaded(questions, kind):
    config, num = HEADS[kind]
    asked, known = questions
    model = build(kind, **config)
    choice = chosen_scorer(model, torch.bfloat16)
    assert choice.refusal is None
    _learned(model, torch.bfloat16)
    assert len(set(asked)) == num
    assert set(known) == set(asked)


def test_it_is_asked_at_no_other_time(questions):
    asked, _ = questions
    _learned(build("llama", **DECODER), torch.bfloat16)
    assert asked == []
    chosen_scorer(build("llama", **DECODER), torch.float32)
    assert asked == []


def test_what_comes_out_is_as_narrow_as_what_went_in(monkeypatch):
    _wide(monkeypatch, True)
    row = pack(PAIRS)
    heads = [torch.randn(1, num, row.input_ids.numel(), 8).bfloat16() for num in (4, 2, 2)]
    found, _ = attention.packed_attention(None, *heads, None, packed_layout=PackedLayout(row.segments, set()))
    assert found.dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        wide = [one.float() for one in heads]  # rotated queries of fp32 weights
        again, _ = attention.packed_attention(None, *wide, None, packed_layout=PackedLayout(row.segments, set()))
    assert torch.equal(found, again)


def test_both_ways_that_are_measured_give_a_gradient_of_what_was_given():
    one, usual = (torch.cat([found.flatten() for found in way()]).float() for way in attention._widths(16))
    assert one.norm() > 1
    assert _far(usual, one) < 0.02
