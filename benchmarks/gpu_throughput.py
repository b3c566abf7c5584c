"""How many preference pairs a GPU trains on in a second with tiebreak's packed scorer.

Models have the shape of a known one and random bf16 weights, LoRA of rank 16 on all linear layers (its weights fp32,
as peft keeps them), no gradient checkpointing. A step is that of `tiebreak.training.loop.learn` written down again,
since that module needs packages which a lent machine may lack: scores in micro-batches under a token budget, DPO loss,
clipping, AdamW, and the same points where the host waits for a value.

Budget: the first step is cut into small micro-batches and its memory is measured; the budget is then what fits into
`ROOM` of the device, at most a whole step, and is halved where memory runs out after all.

Rates are over all timed steps, and of the median one. Unique tokens: prompt + chosen + rejected, the prompt once.
`first_run` asks the live reference in each step, `cached_reference` has its values from before the clock starts (cost:
`reference_pass_pairs_per_second`). MFU: operations by reckoning.py (body and head, what the mathematics needs, no
attention scores, nothing computed twice) in a second, over the rate of one large bf16 matrix product measured in the
same process, and over NVIDIA's nominal 989 TFLOP/s (dense, H100 SXM and H200).
"""

from __future__ import annotations

import functools
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from gpu_models import (
    BETA,
    BF16,
    LENGTHS,
    SHAPES,
    Case,
    Found,
    Setting,
    adapted,
    drawn_lengths,
    pairs_of,
    shaped,
    trained_weights,
)
from machine import peak_rss_bytes
from reckoning import operations, work_of
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from tiebreak.engine.scorer import PackedScorer
from tiebreak.maths.packing import num_packed
from tiebreak.records import TokenizedPair, num_unique_tokens

PAIRS_PER_STEP = 64
MOST_STEPS = 6
ROOM = 0.85
PROBE_TOKENS = 4096
LARGEST_BUDGET = 65536
NOMINAL_TFLOPS = 989.0
Pairs = Sequence[TokenizedPair]
Reference = Callable[[Pairs], Tensor]
"""From pairs to the reference's log π(chosen) − log π(rejected)."""


def cases(part: str, setting: Setting) -> dict[str, Case]:
    """Return each shape with each data, the large model first."""
    assert part == "throughput"
    return {f"{shape}/{data}": partial(_ours, shape, data, setting) for shape in SHAPES for data in LENGTHS}


# -------------------------------------------------------------------------------------------------------- the yardstick


@functools.cache
def matmul_tflops(setting: Setting) -> float:
    """Return the rate of a large bf16 matrix product of random numbers, mean over half a second or so."""
    size, times = (128, 3) if setting.tiny else (8192, 30)
    left, right = (torch.randn(size, size, device=setting.device, dtype=BF16) for _ in range(2))
    product = left @ right
    for _ in range(3):
        torch.mm(left, right, out=product)
    setting.wait()
    began = time.perf_counter()
    for _ in range(times):
        torch.mm(left, right, out=product)
    setting.wait()
    return 2 * size**3 * times / (time.perf_counter() - began) / 1e12


def nominal_tflops(setting: Setting) -> tuple[float | None, str | None]:
    """Return the vendor's dense bf16 rate, or None and why."""
    if setting.device.type != "cuda":
        return None, "not a CUDA device"
    name = torch.cuda.get_device_name(setting.device)
    known = any(chip in name for chip in ("H100", "H200")) and not any(kind in name for kind in ("PCIe", "NVL"))
    return (NOMINAL_TFLOPS, None) if known else (None, f"no nominal rate is known here for {name}")


# ------------------------------------------------------------------------------------------------------------- tiebreak


@dataclass(frozen=True)
class Subject:
    """A model with its adapter, how it is scored, and the sizes that operations are counted from."""

    model: Any
    scorer: PackedScorer
    shape: dict[str, int]


@functools.lru_cache(maxsize=1)
def _subject(shape: str, setting: Setting) -> Subject:
    base = shaped(shape, setting)
    sizes = counted(base)
    model = adapted(base, setting).train()
    return Subject(model, PackedScorer(model, device=setting.device, dtype=BF16), sizes)


def counted(model: Any) -> dict[str, int]:
    """Return the matrix entries of the blocks, and both sides of the head, as reckoning.py wants them."""
    head = model.get_output_embeddings()
    body = sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Linear) and m is not head)
    return {"body": body, "vocabulary": head.weight.shape[0], "width": head.weight.shape[1]}


def _ours(shape: str, data: str, setting: Setting, seconds: float) -> Found:
    setting.forget_peak()
    began = time.perf_counter()
    subject, (num, most) = _subject(shape, setting), (4, 2) if setting.tiny else (PAIRS_PER_STEP, MOST_STEPS)
    pairs = pairs_of(drawn_lengths(data, num * (most + 1), setting), subject.shape["vocabulary"])
    steps = [pairs[i : i + num] for i in range(0, len(pairs), num)]
    fused = True if setting.device.type == "cuda" else None  # as tiebreak.training.optimizer has it
    optimizer = torch.optim.AdamW(trained_weights(subject.model), lr=1e-5, fused=fused)
    live = partial(_live, subject)
    budget = chosen_budget(subject, steps[0], optimizer, live, setting)
    built = time.perf_counter()
    budget, first = _rate(subject, steps[1:], optimizer, live, budget, setting, began + 0.55 * seconds)
    known, reference_rate = _remembered(subject, steps[1:], budget, setting)
    cached_until = max(began + seconds, time.perf_counter() + 1)
    budget, cached = _rate(subject, steps[1:], optimizer, known, budget, setting, cached_until)
    lengths = [(len(p.prompt_ids), len(p.chosen_ids), len(p.rejected_ids)) for p in pairs[num:]]
    return {
        "pairs_per_step": num,
        "token_budget": budget,
        "mean_tokens_prompt_chosen_rejected": [statistics.mean(column) for column in zip(*lengths, strict=True)],
        "body_weights": subject.shape["body"],
        "measured_matmul_tflops": matmul_tflops(setting),
        "nominal_dense_bf16_tflops": nominal_tflops(setting)[0],
        "nominal_dense_bf16_tflops_reason": nominal_tflops(setting)[1],
        "first_run": _account(first, subject, steps[1:], num, setting, live=True),
        "cached_reference": _account(cached, subject, steps[1:], num, setting, live=False),
        "reference_pass_pairs_per_second": reference_rate,
        "building_and_probing_seconds": built - began,
    }


def _live(subject: Subject, pairs: Pairs) -> Tensor:
    with torch.no_grad(), subject.model.disable_adapter():
        return subject.scorer.tokens(pairs).summed().paired().gap


def _remembered(subject: Subject, steps: Sequence[Pairs], budget: int, setting: Setting) -> tuple[Reference, float]:
    """Return a reference that knows its values, and how many pairs a second it took to get them."""
    pairs = [pair for step in steps for pair in step]
    began = time.perf_counter()
    known: dict[str, Tensor] = {}
    for batch in subject.scorer.micro_batches(pairs, budget):
        known |= zip((pair.example_id for pair in batch), _live(subject, batch), strict=True)
    setting.wait()
    rate = len(pairs) / (time.perf_counter() - began)
    return lambda asked: torch.stack([known[pair.example_id] for pair in asked]), rate


def learn(subject: Subject, pairs: Pairs, optimizer: torch.optim.Optimizer, reference: Reference, budget: int) -> float:
    """Take one optimizer step, as `tiebreak.training.step.learn` does; return the gradient's norm."""
    optimizer.zero_grad(set_to_none=True)
    found: list[Tensor] = []
    for batch in subject.scorer.micro_batches(pairs, budget):
        gap = reference(batch)
        losses = -logsigmoid(BETA * (subject.scorer.tokens(batch).summed().paired().gap - gap))
        (losses.sum() / len(pairs)).backward()
        found.append(losses.detach())
    norm = nn.utils.clip_grad_norm_(trained_weights(subject.model), 1.0)
    *values, value = torch.cat([*found, norm.detach().float().reshape(1)]).tolist()
    if not all(map(math.isfinite, values)):
        raise FloatingPointError("a loss is not finite")
    optimizer.step()
    return float(value)


def chosen_budget(
    subject: Subject, step: Pairs, optimizer: torch.optim.Optimizer, live: Reference, setting: Setting
) -> int:
    """Return the tokens of a micro-batch that fit, judged by a step in small ones; everything is warm afterwards."""
    matmul_tflops(setting)
    whole = sum(map(num_unique_tokens, step))
    if setting.device.type != "cuda":
        learn(subject, step, optimizer, live, 64)
        return whole
    learn(subject, step[:2], optimizer, live, PROBE_TOKENS)  # the optimizer's memory comes into being
    setting.forget_peak()
    resting = torch.cuda.memory_allocated(setting.device)
    learn(subject, step, optimizer, live, PROBE_TOKENS)
    largest = max(num_packed(batch) for batch in subject.scorer.micro_batches(step, PROBE_TOKENS))
    per_token = (setting.peak()["peak_bytes"] - resting) / largest
    total = torch.cuda.get_device_properties(setting.device).total_memory
    fits = int((ROOM * total - resting) / per_token)
    # Equal shares, with room for one pair that does not fit: no small rest at the end.
    even = whole // math.ceil(whole / fits) + max(map(num_unique_tokens, step))
    return max(PROBE_TOKENS, min(fits, even, LARGEST_BUDGET))


@dataclass(frozen=True)
class Timing:
    """Seconds of each step, and the most memory that any took."""

    seconds: list[float]
    peak: Found


def _rate(
    subject: Subject,
    steps: Sequence[Pairs],
    optimizer: torch.optim.Optimizer,
    reference: Reference,
    budget: int,
    setting: Setting,
    until: float,
) -> tuple[int, Timing]:
    """Return the budget that fitted and the time of each step; the first one warms up new sizes and is not counted."""
    while True:
        try:
            return budget, _timed(partial(_step, subject, optimizer, reference, budget), steps, setting, until)
        except torch.OutOfMemoryError:
            optimizer.zero_grad(set_to_none=True)
            budget //= 2
            if budget < 512:
                raise
        setting.forget_peak()  # outside of the handler, which still holds the tensors of the failed step


def _step(subject: Subject, optimizer: Any, reference: Reference, budget: int, pairs: Pairs) -> float:
    return learn(subject, pairs, optimizer, reference, budget)


def _timed(step: Callable[[Pairs], Any], steps: Sequence[Pairs], setting: Setting, until: float) -> Timing:
    step(steps[0])
    setting.wait()
    setting.forget_peak()
    seconds: list[float] = []
    for pairs in steps:
        began = time.perf_counter()
        step(pairs)
        setting.wait()
        seconds.append(time.perf_counter() - began)
        if time.perf_counter() > until:
            break
    return Timing(seconds, setting.peak())


def _account(
    timing: Timing, subject: Subject, steps: Sequence[Pairs], num: int, setting: Setting, *, live: bool
) -> Found:
    """Return rates, memory and MFU of the steps that were timed."""
    done = [pair for pairs in steps[: len(timing.seconds)] for pair in pairs]
    rows = [{"prompt_ids": p.prompt_ids, "chosen_ids": p.chosen_ids, "rejected_ids": p.rejected_ids} for p in done]
    total = sum(timing.seconds)
    tflops = operations(rows, num, subject.shape, lora=True, live=live) / total / 1e12
    nominal, reason = nominal_tflops(setting)
    return {
        **rates(timing, done, num),
        "body_tokens_per_second": work_of(rows, num)[0] / total,
        "achieved_tflops": tflops,
        "mfu_share_of_measured_matmul": tflops / matmul_tflops(setting),
        "mfu_share_of_nominal": tflops / nominal if nominal else None,
        "mfu_share_of_nominal_reason": reason,
    }


def rates(timing: Timing, done: Pairs, num: int) -> Found:
    """Return what can be said of any contestant: pairs/s, unique tokens/s, memory."""
    total = sum(timing.seconds)
    return {
        "pairs_per_second": len(done) / total,
        "pairs_per_second_of_median_step": num / statistics.median(timing.seconds),
        "unique_tokens_per_second": sum(map(num_unique_tokens, done)) / total,
        "step_seconds": timing.seconds,
        **timing.peak,
        "peak_rss_bytes": peak_rss_bytes(),
    }
