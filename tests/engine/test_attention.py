from __future__ import annotations

import pytest
import torch

from slow_varlen import varlen_attn
from tiebreak.engine.attention import PackedLayout, packed_attention
from tiebreak.maths.packing import Segment

SEGMENTS = (Segment(5, (3, 4)), Segment(1, (0, 2)), Segment(4, (2, 0, 6)), Segment(3, (0, 0)))
ROW = sum(segment.num_tokens for segment in SEGMENTS)


def _inputs(heads=4, key_heads=2, size=8):
    torch.manual_seed(0)
    return [torch.randn(1, num, ROW, size, requires_grad=True) for num in (heads, key_heads, key_heads)]


def _expected(query, key, value, window):
    """Every query on its own, in float64: softmax over its prompt and what its completion holds so far."""
    query, key, value = (x[0].double() for x in (query, key, value))
    groups, outputs, begin = query.shape[0] // key.shape[0], [], 0
    for segment in SEGMENTS:
        prompt, start = list(range(begin, begin + segment.prompt)), begin + segment.prompt
        spans = [prompt]
        for length in segment.completions:
            spans.append(list(range(start, start + length)))
            start += length
        for number, span in enumerate(spans):
            for index in range(len(span)):
                seen = ((prompt if number else []) + span[: index + 1])[-(window or ROW) :]
                for_key = [key[:, seen].repeat_interleave(groups, 0), value[:, seen].repeat_interleave(groups, 0)]
                scores = torch.einsum("hd,hkd->hk", query[:, span[index]], for_key[0]) * query.shape[-1] ** -0.5
                outputs.append(torch.einsum("hk,hkd->hd", scores.softmax(-1), for_key[1]))
        begin = start
    return torch.stack(outputs).unsqueeze(0)


def _call(inputs, window=None, kernel=None):
    layout = PackedLayout(SEGMENTS, set(), kernel)
    return packed_attention(torch.nn.Module(), *inputs, None, packed_layout=layout, sliding_window=window)[0]


@pytest.fixture(params=[None, varlen_attn], ids=["a call for each run", "one call"])
def kernel(request):
    return request.param


@pytest.mark.parametrize("window", [None, 100, 3])
@pytest.mark.parametrize("key_heads", [2, 4])
def test_every_token_sees_its_prompt_and_its_completion_so_far(window, key_heads, kernel):
    inputs = _inputs(key_heads=key_heads)
    found, expected = _call(inputs, window, kernel), _expected(*inputs, window)
    assert found.shape == (1, ROW, 4, 8)
    assert torch.allclose(found.double(), expected, atol=2e-6)


@pytest.mark.parametrize("window", [None, 3])
def test_gradients_are_those_of_the_written_out_form(window, kernel):
    inputs = _inputs()
    along = torch.randn(1, ROW, 4, 8, generator=torch.Generator().manual_seed(1))
    found = torch.autograd.grad((_call(inputs, window, kernel) * along).sum(), inputs)
    expected = torch.autograd.grad((_expected(*inputs, window) * along).sum(), inputs)
    for one, two in zip(found, expected, strict=True):
        assert torch.allclose(one, two.float(), atol=5e-6)


@pytest.mark.parametrize("given", [{"dropout": 0.1}, {"position_bias": torch.zeros(1)}])
def test_what_packing_cannot_honour_is_refused(given):
    layout = PackedLayout(SEGMENTS, set())
    with pytest.raises(ValueError, match="packed attention knows no"):
        packed_attention(torch.nn.Module(), *_inputs(), None, packed_layout=layout, **given)


def test_the_windows_that_layers_ask_for_are_noted():
    layout = PackedLayout(SEGMENTS, set())
    packed_attention(torch.nn.Module(), *_inputs(), None, packed_layout=layout, sliding_window=3)
    assert layout.windows == {3}
