"""Packed and plain scoring on CUDA, forward and backward: shapes, dtypes, devices, and what the host waits for."""

from __future__ import annotations

import peft
import pytest
import torch

from fake_card import CARD, moved
from families import PACKABLE, build
from slow_varlen import check
from tiebreak.engine import attention
from tiebreak.engine.attention import PackedLayout
from tiebreak.engine.scorer import PackedScorer, PlainScorer
from tiebreak.maths.packing import pack
from tiny import PAD, token_pairs

PAIRS = token_pairs(4, num_prompts=2)
NUM_TOKENS = sum(len(completion) for pair in PAIRS for completion in pair.completions)
FP32, BF16 = torch.float32, torch.bfloat16
# Weights, arithmetic: full fine-tuning in either, and a frozen base below an adapter of fp32.
PRECISIONS = {"fp32": (FP32, FP32), "autocast": (FP32, BF16), "narrow": (BF16, BF16)}
EXPERTS = {kind for kind in PACKABLE if kind in ("qwen3_moe", "mixtral", "gpt_oss", "deepseek_v3", "phimoe")}
WRITTEN_OUT = {"gemma2", "gpt_oss"}


def _network(kind, weights):
    network = build(kind, **PACKABLE[kind]).to(weights)
    if kind in EXPERTS and weights == FP32:
        # The fake form of `grouped_mm` takes bf16 alone, where the kernel takes fp32 as well.
        network.set_experts_implementation("batched_mm")
    return network


def _adapted(kind, weights):
    config = peft.LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    return peft.get_peft_model(_network(kind, weights), config)


def _scorer(layout, network, dtype):
    if layout == "packed":
        return PackedScorer(network, device=CARD, dtype=dtype)
    return PlainScorer(network, pad_id=PAD, device=CARD, dtype=dtype)


def _through(network, scorer):
    values = scorer.tokens(PAIRS).values
    assert (values.shape, values.dtype, values.device) == ((NUM_TOKENS,), FP32, CARD)
    values.sum().backward()
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert (parameter.grad.dtype, parameter.grad.device) == (parameter.dtype, CARD), name


@pytest.mark.parametrize(
    ("kind", "precision", "layout"),
    [
        *((kind, "autocast", "plain") for kind in PACKABLE),
        *((kind, "fp32", "packed") for kind in ("llama", "gemma2", "qwen3_moe", "gpt2")),
        *((kind, "narrow", "plain") for kind in ("llama", "gemma2", "qwen3_moe", "gpt2")),
    ],
)
def test_every_family_scores_and_passes_a_gradient_back(kind, precision, layout, request):
    weights, dtype = PRECISIONS[precision]
    network = _network(kind, weights)
    waits = request.getfixturevalue("waits")
    _through(moved(network), _scorer(layout, network, dtype))
    # Routers may count; attention, layout and head wait for nothing.
    assert kind in EXPERTS or waits.at == []


@pytest.mark.parametrize("layout", ["packed", "plain"])
@pytest.mark.parametrize("weights", [FP32, BF16])
@pytest.mark.parametrize("kind", ["llama", "gemma2", "phi3"])
def test_so_does_an_adapter(kind, weights, layout, request):
    network = _adapted(kind, weights)
    assert {p.dtype for p in network.parameters() if p.requires_grad} == {FP32}
    waits = request.getfixturevalue("waits")
    _through(moved(network), _scorer(layout, network, BF16 if weights == BF16 else FP32))
    assert waits.at == []


@pytest.mark.parametrize("precision", ["autocast", "narrow"])
@pytest.mark.parametrize("kind", PACKABLE)
def test_one_kernel_gets_what_it_asks_for_wherever_scores_are_plain(kind, precision, request, monkeypatch):
    weights, dtype = PRECISIONS[precision]
    network, calls = _network(kind, weights), []
    waits = request.getfixturevalue("waits")
    moved(network)
    torchs = attention._kernel_for(torch.empty(1, 1, 1, 8, dtype=BF16, device=CARD), torch.empty(1, 1, 1, 8))
    assert torchs is not None

    def kernel(*rows, scale=None, window_size=(-1, -1), enable_gqa=False):
        check(*rows, enable_gqa=enable_gqa)
        assert rows[0].dtype == BF16
        calls.append(window_size)
        return torchs(*rows, scale=scale, window_size=window_size, enable_gqa=enable_gqa)

    monkeypatch.setattr(attention, "_varlen_attn", lambda: kernel)
    _through(network, PackedScorer(network, device=CARD, dtype=dtype))
    assert bool(calls) == (kind not in WRITTEN_OUT)
    # Routers may count; attention, layout and head wait for nothing.
    assert kind in EXPERTS or waits.at == []


@pytest.mark.usefixtures("waits")
def test_wide_queries_keep_torch_s_own_attention():
    wide = torch.empty(1, 2, 4, 8, device=CARD)
    assert attention._kernel_for(wide, wide) is None
    large = torch.empty(1, 2, 4, 264, device=CARD, dtype=BF16)
    assert attention._kernel_for(large, large) is None


@pytest.mark.usefixtures("waits")
def test_where_runs_begin_is_on_the_card_in_the_type_that_the_kernel_reads():
    row = pack(PAIRS).to(CARD)
    starts = PackedLayout(row.segments, set()).starts(CARD)
    assert {(one.dtype, one.device) for one in starts} == {(torch.int32, CARD)}


@pytest.mark.parametrize("layout", ["packed", "plain"])
def test_mean_states_come_from_the_same_pass(layout, request):
    network = build("llama", **PACKABLE["llama"])
    request.getfixturevalue("waits")
    with torch.no_grad():
        logps, means = _scorer(layout, moved(network), BF16).read(PAIRS)
    assert logps.values.device == means.device == CARD
    assert means.shape == (2 * len(PAIRS), 32)
