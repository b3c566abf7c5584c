"""Which kernel attends over packed rows fastest, and whether `varlen_attn` means what we need it to mean.

Kernels, on the same row of segments [P | C | R], 32 query heads, 8 key heads, head size 128, bf16:

    varlen           torch.nn.attention.varlen.varlen_attn; queries [P C] and [R], keys [P C] and [P R] gathered anew
    varlen_repeated  the same with keys and values repeated to 32 heads
    engine           what `tiebreak.engine.attention` does today, whatever that is
    sdpa             one scaled_dot_product_attention for each run of queries, [R] with a mask
    flex             FlexAttention, compiled, on the row as it stands, with a block mask

Times are the median of single calls between CUDA events, queries to output and back to the gradients of query, key and
value; gathering keys is inside, masks and block masks are made before, as a row's layers share them. Values and
gradients are compared with attention written out in fp32 from the same bf16 inputs; a difference is relative to the
largest entry. `first_call_seconds` holds compilation, and for a second length of row recompilation.

Alignment: with fewer queries than keys, a causal mask may be aligned at the top left or at the bottom right. Here it is
measured which one `varlen_attn` has: against both, with and without a window, with fewer key heads, with runs of no
query (a completion of one token). Nothing in the timings relies on it before.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from gpu_kernels import KERNELS, Kernel, Row, exact, varlen
from gpu_models import BF16, Case, Found, Setting, drawn_lengths
from torch import Tensor

from tiebreak.maths.packing import Segment

QUERY_HEADS, KEY_HEADS, HEAD = 32, 8, 128
ROWS = (4096, 16384)
TINY_ROWS = (64, 128)
BOUND = 2e-2
"""Most difference to fp32 from bf16 inputs, relative to the largest entry: bf16 keeps 8 bits."""
LIKELY_WRONG = 5 * BOUND
"""A mask aligned at the wrong corner is at least this far off."""
ROUNDS = 15


@dataclass(frozen=True)
class Inputs:
    """Query [row, query heads, head], key and value [row, key heads, head], and a gradient of the output."""

    query: Tensor
    key: Tensor
    value: Tensor
    gradient: Tensor

    def in_fp32(self) -> Inputs:
        """Return the same numbers in fp32."""
        sides = (x.detach().float().requires_grad_() for x in (self.query, self.key, self.value))
        return Inputs(*sides, self.gradient.float())


def cases(part: str, setting: Setting) -> dict[str, Case]:
    """Return the checks of alignment, then each kernel on each row; the one that compiles comes last."""
    assert part == "attention"
    found: dict[str, Case] = {
        "alignment": partial(_alignment, None, KEY_HEADS, setting),
        "alignment_as_many_heads": partial(_alignment, None, QUERY_HEADS, setting),
        "alignment_window_of_8": partial(_alignment, 8, KEY_HEADS, setting),
    }
    for kernel in KERNELS:
        for size in TINY_ROWS if setting.tiny else ROWS:
            for data in ("ultrafeedback", "hh"):
                found[f"{kernel}/{data}/{size}"] = partial(_timed, kernel, data, size, setting)
    return found


def row_of(data: str, size: int, setting: Setting) -> Row:
    """Return a row of at most `size` tokens, filled with pairs of that data's lengths."""
    segments: list[Segment] = []
    left = size
    for prompt, chosen, rejected in drawn_lengths(data, size // 8, setting, seed=1):
        segment = Segment(prompt, (chosen - 1, rejected - 1))
        if segment.num_tokens <= left:
            segments.append(segment)
            left -= segment.num_tokens
    return Row(tuple(segments))


def inputs_of(row: Row, key_heads: int, setting: Setting) -> Inputs:
    """Return random bf16 inputs; all but the gradient require one."""
    torch.manual_seed(2)
    heads, size = (4, 8) if setting.tiny else (QUERY_HEADS, HEAD)
    key_heads = max(1, key_heads * heads // QUERY_HEADS)
    drawn = [torch.randn(row.num_tokens, n, size, device=setting.device, dtype=BF16) for n in (heads, *[key_heads] * 2)]
    return Inputs(*(x.requires_grad_() for x in drawn), torch.randn_like(drawn[0]).detach())


def answers(kernel: Kernel, inputs: Inputs) -> tuple[Tensor, ...]:
    """Return output and the gradients of query, key and value."""
    out = kernel(inputs.query, inputs.key, inputs.value)
    slopes = torch.autograd.grad(out, (inputs.query, inputs.key, inputs.value), inputs.gradient.to(out.dtype))
    return (out.detach(), *slopes)


def differences(found: tuple[Tensor, ...], wanted: tuple[Tensor, ...]) -> Found:
    """Return the largest difference of output and gradients, relative to the largest entry; NaN stays NaN."""
    names = ("output", "query_gradient", "key_gradient", "value_gradient")
    return {
        f"{name}_max_relative_difference": float((one.float() - other.float()).abs().max() / other.float().abs().max())
        for name, one, other in zip(names, found, wanted, strict=True)
    }


def _alignment(window: int | None, key_heads: int, setting: Setting, _: float) -> Found:
    row = Row((Segment(37, (21, 33)), Segment(5, (1, 0)), Segment(64, (0, 70)), Segment(1, (130, 3))))
    inputs = inputs_of(row, key_heads, setting)
    found = answers(varlen(row, setting.device, window), inputs)
    right = differences(found, answers(exact(row, window), inputs.in_fp32()))
    left = differences(found, answers(exact(row, window, top_left=True), inputs.in_fp32()))
    off = left["output_max_relative_difference"]
    return {
        "bottom_right": right,
        "top_left": left,
        "bounds": {"right_at_most": BOUND, "other_at_least": LIKELY_WRONG},
        "has_runs_of_no_query": True,
        "passed": all(value <= BOUND for value in right.values()) and off >= LIKELY_WRONG,
    }


def _timed(name: str, data: str, size: int, setting: Setting, seconds: float) -> Found:
    until = time.perf_counter() + seconds
    row = row_of(data, size, setting)
    inputs = inputs_of(row, KEY_HEADS, setting)
    began = time.perf_counter()
    kernel = KERNELS[name](row, setting.device)
    setting.wait()
    prepared = time.perf_counter()
    found = answers(kernel, inputs)
    setting.wait()
    first = time.perf_counter()
    apart = differences(found, answers(exact(row), inputs.in_fp32()))
    setting.forget_peak()
    forward = milliseconds(partial(_forward, kernel, inputs), setting, until)
    both = milliseconds(partial(answers, kernel, inputs), setting, until)
    peak = setting.peak()
    return {
        "num_tokens": row.num_tokens,
        "num_segments": len(row.segments),
        "forward_ms": forward,
        "forward_backward_ms": both,
        **peak,
        "layout_and_mask_ms": 1e3 * (prepared - began),
        "first_call_seconds": first - prepared,
        **apart,
        "bound": BOUND,
        "passed": all(value <= BOUND for value in apart.values()),
    }


def _forward(kernel: Kernel, inputs: Inputs) -> None:
    # With a graph, as in training; without one, FlexAttention would be compiled again.
    kernel(inputs.query, inputs.key, inputs.value)


def milliseconds(work: Callable[[], Any], setting: Setting, until: float) -> float:
    """Return the median time of a few calls, after two that are not counted."""
    times: list[float] = []
    for index in range(2 + (3 if setting.tiny else ROUNDS)):
        taken = _one(work, setting)
        if index >= 2:
            times.append(taken)
        if len(times) >= 3 and time.perf_counter() > until:
            break
    return statistics.median(times)


def _one(work: Callable[[], Any], setting: Setting) -> float:
    if setting.device.type != "cuda":
        began = time.perf_counter()
        work()
        return 1e3 * (time.perf_counter() - began)
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    setting.wait()
    begin.record()
    work()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end))
