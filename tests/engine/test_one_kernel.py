"""The code path of CUDA by value, without CUDA: a slow oracle stands where torch's kernel does.

What the kernel is handed (starts, lengths, windows, grouped heads, scales, sizes of heads) is right where values and
gradients of every family are those of the plain layout.
"""

from __future__ import annotations

import pytest
import torch

from families import DECODER, PACKABLE, Bare, build, plain
from slow_varlen import varlen_attn
from tiebreak.engine.attention import PackedLayout, use_packed_attention
from tiebreak.engine.scorer import BackboneAndHead
from tiebreak.maths.packing import pack
from tiny import token_pairs

# Four prompts: one of three completions, one of which has a single token; one longer than any window; pairs that share.
EXAMPLES = [
    Bare("three", tuple(range(10, 19)), ((20, 21, 22, 2), (23, 2), (2,))),
    Bare("long", tuple(range(30, 47)), ((50, 51, 2), (52, 53, 54, 55, 2))),
    *token_pairs(3, num_prompts=2),
]
WRITTEN_OUT = {"gemma2", "gpt_oss"}
"""Their scores are capped or have a sink, which no kernel knows."""
ODD = {
    # Heads of 12, scaled by their own size and not by that of the 16 that the kernel is given.
    "heads of an odd size": ("llama", DECODER | {"head_dim": 12, "hidden_size": 48}),
    "one head of keys": ("llama", DECODER | {"num_key_value_heads": 1}),
    "a head of keys for each": ("llama", DECODER | {"num_key_value_heads": 4}),
    "a window of one": ("mistral", DECODER | {"sliding_window": 1}),
    "a window longer than all": ("mistral", DECODER | {"sliding_window": 64}),
}
CASES = {kind: (kind, settings) for kind, settings in PACKABLE.items()} | ODD


@pytest.mark.parametrize("case", CASES)
def test_one_call_for_all_runs_gives_the_values_and_gradients_of_the_plain_layout(case):
    kind, settings = CASES[case]
    model, calls = build(kind, **settings), []

    def kernel(*rows, scale=None, window_size=(-1, -1), enable_gqa=False):
        calls.append(window_size)
        return varlen_attn(*rows, scale=scale, window_size=window_size, enable_gqa=enable_gqa)

    wanted = _values_and_gradients(model, plain(model).tokens(EXAMPLES).values)
    use_packed_attention(model)
    row = pack(EXAMPLES)
    values, _, _ = BackboneAndHead(model, torch.float32)(row, PackedLayout(row.segments, set(), kernel))
    found = _values_and_gradients(model, values.index_select(0, row.completion_tokens))
    assert bool(calls) == (kind not in WRITTEN_OUT)
    _assert_same(found, wanted)


def test_windows_are_given_as_the_keys_to_the_left_of_a_query():
    kind, settings = CASES["mistral"]
    model, windows = build(kind, **settings), set()

    def kernel(*rows, scale=None, window_size=(-1, -1), enable_gqa=False):
        windows.add(window_size)
        return varlen_attn(*rows, scale=scale, window_size=window_size, enable_gqa=enable_gqa)

    use_packed_attention(model)
    row = pack(EXAMPLES)
    BackboneAndHead(model, torch.float32)(row, PackedLayout(row.segments, set(), kernel))
    assert windows == {(settings["sliding_window"] - 1, 0)}  # with the query itself they are the window


def test_where_autocast_is_narrow_the_kernel_gets_narrow_heads_of_wide_weights():
    # Rotated queries are as wide as the weights; torch's own attention casts them, the kernel would be passed over.
    model, dtypes = build("llama", **PACKABLE["llama"]), set()

    def kernel(query, key, value, *rest, scale=None, window_size=(-1, -1), enable_gqa=False):
        dtypes.update(x.dtype for x in (query, key, value))
        return varlen_attn(query, key, value, *rest, scale=scale, window_size=window_size, enable_gqa=enable_gqa)

    use_packed_attention(model)
    row = pack(EXAMPLES)
    with torch.no_grad():
        values, _, _ = BackboneAndHead(model, torch.bfloat16)(row, PackedLayout(row.segments, set(), kernel))
        wanted = plain(model, torch.bfloat16).tokens(EXAMPLES).values
    assert dtypes == {torch.bfloat16}
    assert float((values.index_select(0, row.completion_tokens) - wanted).abs().mean() / wanted.abs().mean()) < 2e-2


def _values_and_gradients(model, values):
    """Every token with a weight of its own, so that no two mistakes cancel."""
    model.zero_grad()
    (values * torch.linspace(-1, 1, len(values))).sum().backward()
    return values.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def _assert_same(found, wanted, share=1e-5):
    assert torch.allclose(found[0], wanted[0], rtol=share, atol=share)
    assert found[1].keys() == wanted[1].keys()
    largest = max(gradient.abs().max().item() for gradient in wanted[1].values())
    for name, gradient in wanted[1].items():
        room = share * gradient.abs().max().item() + 1e-7 * largest  # a key's bias has a gradient of rounding alone
        assert (found[1][name] - gradient).abs().max().item() <= room, name
