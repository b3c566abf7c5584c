"""The training loop. Read this file first.

A step takes its pairs, in micro-batches that fit, asks the reference and the policy what they say about each pair, and
goes down the gradient of the mean loss over the pairs of the step. Owns the reduction: losses are summed over
micro-batches and divided once, by the pairs of the step, so no result depends on how a step was cut.
"""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import torch

from tiebreak.config import Config
from tiebreak.engine.memory import is_out_of_memory, memory_bytes, release_cached
from tiebreak.engine.policy import Policy
from tiebreak.engine.reference import evaluation_mode
from tiebreak.errors import TrainingError
from tiebreak.fingerprint import derive_seed
from tiebreak.maths.losses import Objective, objective
from tiebreak.maths.metrics import PairMetrics, pair_metrics
from tiebreak.progress import Progress
from tiebreak.records import TokenizedPair
from tiebreak.training.optimizer import build_optimizer, rate_factor, set_rate
from tiebreak.training.recorder import Recorder
from tiebreak.training.steps import Step, num_steps, steps

Probe = Callable[[], Mapping[str, float]]
"""Measures the policy on held-out pairs; called between steps."""


@dataclass(frozen=True)
class Outcome:
    """How training ended."""

    num_steps_done: int
    num_steps: int
    seconds: float

    @property
    def interrupted(self) -> bool:
        """Whether somebody stopped it before its last step."""
        return self.num_steps_done < self.num_steps


def train(
    policy: Policy,
    pairs: Sequence[TokenizedPair],
    config: Config,
    *,
    probe: Probe,
    recorder: Recorder,
    progress: Progress,
) -> Outcome:
    """Train `policy` in place on tokenised pairs; Ctrl-C ends it between two steps, with whole weights."""
    loss = objective(config.loss)
    check_start(policy, pairs, loss, config)
    policy.reference.release()
    parameters = [parameter for _, parameter in policy.trainable]
    optimizer = build_optimizer(parameters, config)
    total, began, done = num_steps(len(pairs), config.training), time.perf_counter(), 0
    probe_at = probe_steps(total, config.evaluation.probes)
    policy.model.train()
    with progress.stage("training", total) as advance, _own_randomness(policy, config):
        try:
            for step in steps(pairs, config.training):
                set_rate(optimizer, config.learning_rate * _factor(step, total, config))
                with interrupts_held():
                    before = policy.budget.tokens
                    row = _measured_step(policy, step, loss, optimizer, config)
                    done = step.index + 1
                    recorder.write(row)
                if policy.budget.tokens < before:
                    progress.warn(f"out of memory in step {done}: done again with {policy.budget.tokens} tokens a time")
                if done in probe_at:
                    recorder.write({"step": done, **probe()})
                advance(1, row)
        except KeyboardInterrupt:
            progress.warn(f"interrupted after step {done} of {total}; saving and measuring it, Ctrl-C again ends that")
    policy.model.eval()
    return Outcome(done, total, time.perf_counter() - began)


def learn(
    policy: Policy, step: Step, loss: Objective, optimizer: torch.optim.Optimizer, config: Config
) -> tuple[PairMetrics, float]:
    """Take one optimizer step; return the metrics of its pairs, and the gradient norm before clipping.

    Where memory runs out, micro-batches of half the size carry the same pairs. The device is waited for once.
    """
    while True:
        optimizer.zero_grad(set_to_none=True)
        groups = policy.micro_batches(step.pairs)
        try:
            metrics = [_learn_group(policy, group, step, loss, config) for group in groups]
            break
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        _halve_budget(policy, groups, step)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    norm = torch.nn.utils.clip_grad_norm_(parameters, config.training.max_grad_norm)
    measured = PairMetrics.concatenated(metrics)
    *losses, norm_value = torch.cat([measured.values[:, 0], norm.detach().float().reshape(1)]).tolist()
    _require_finite(losses, list(chain.from_iterable(groups)), step, "loss")
    _require_finite([norm_value] * len(step.pairs), step.pairs, step, "gradient norm")
    optimizer.step()
    return measured, norm_value


def _learn_group(
    policy: Policy, pairs: Sequence[TokenizedPair], step: Step, loss: Objective, config: Config
) -> PairMetrics:
    """Add one micro-batch's share to the gradient of the step."""
    reference = policy.reference.logps(pairs)
    scores = policy.scorer(policy.model, pairs)
    losses = loss(scores, reference)
    (losses.sum() / len(step.pairs)).backward()  # type: ignore[no-untyped-call]
    return pair_metrics(losses, scores, reference, beta=config.loss.beta)


def _halve_budget(policy: Policy, groups: Sequence[Sequence[TokenizedPair]], step: Step) -> None:
    largest = max(policy.scorer.num_tokens(group) for group in groups)
    if all(len(group) == 1 for group in groups):
        raise TrainingError(
            f"step {step.index + 1}: out of memory with one pair at a time (up to {largest} tokens); lower "
            "data.max_length or set training.gradient_checkpointing=true; nothing of this step was learned"
        )
    policy.budget.tokens = min(policy.budget.tokens, largest) // 2
    release_cached(policy.device)


def check_start(policy: Policy, pairs: Sequence[TokenizedPair], loss: Objective, config: Config) -> None:
    """Stop unless policy and reference agree before the first step: loss ln 2, margin 0.

    The tolerance is the rounding of a summed log-probability: two forward passes of the same weights in the same
    layout agree bit for bit on a CPU; an adapter's detour through zero and bf16 kernels cost a little.
    """
    first = next(steps(pairs, config.training)).pairs
    shown = policy.micro_batches(first)[0]
    with evaluation_mode(policy.model), torch.no_grad():
        reference, scores = policy.reference.live.tokens(shown).summed(), policy.scorer(policy.model, shown)
    gap = float((scores.gap - reference.gap).abs().max())
    mean_loss = float(loss(scores, reference).mean())
    nats = float(torch.stack([scores.chosen, scores.rejected]).abs().max())
    precision = 1e-6 if policy.dtype == torch.float32 else 4e-3
    tolerance = precision * max(1.0, nats)
    if gap > tolerance or not abs(mean_loss - math.log(2)) <= 1e-6 + config.loss.beta * tolerance:
        raise TrainingError(
            f"before the first step the loss is {mean_loss:.6f} instead of ln 2 = 0.693147 and the largest log-ratio "
            f"gap {gap:.3g} nats instead of 0: policy and reference differ (reference: {policy.reference.identity}); "
            "check model.name and the adapter it carries, nothing was trained"
        )


def probe_steps(total: int, probes: int) -> set[int]:
    """Return the steps after which held-out pairs are scored: evenly spaced, the last step among them."""
    return {round(total * (index + 1) / probes) for index in range(probes)} - {0}


def _measured_step(
    policy: Policy, step: Step, loss: Objective, optimizer: torch.optim.Optimizer, config: Config
) -> dict[str, float]:
    began = time.perf_counter()
    metrics, norm = learn(policy, step, loss, optimizer, config)
    means = metrics.means()
    seconds = time.perf_counter() - began
    return {
        "step": step.index + 1,
        "epoch": step.epoch + 1,
        **means,
        "grad_norm": norm,
        "learning_rate": optimizer.param_groups[0]["lr"],
        "pairs_per_second": len(step.pairs) / seconds,
        "unique_tokens_per_second": step.num_unique_tokens / seconds,
        "token_budget": policy.budget.tokens,
        "memory_bytes": memory_bytes(policy.device),
        "step_seconds": seconds,
    }


def _factor(step: Step, total: int, config: Config) -> float:
    return rate_factor(step.index, total, config.training.warmup_share, config.training.schedule)


@contextlib.contextmanager
def _own_randomness(policy: Policy, config: Config) -> Iterator[None]:
    """Seed dropout from the configuration and leave the caller's random stream as it was."""
    with torch.random.fork_rng(devices=[policy.device] if policy.device.type == "cuda" else []):
        torch.manual_seed(derive_seed(config.training.seed, "dropout"))
        yield


@contextlib.contextmanager
def interrupts_held() -> Iterator[None]:
    """Hold Ctrl-C back to the end of the block: an update cut in the middle would leave half of the weights moved."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals reach the main thread alone
        return
    held: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: held.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if held:
        signal.raise_signal(signal.SIGINT)


def _require_finite(values: Sequence[float], pairs: Sequence[TokenizedPair], step: Step, what: str) -> None:
    """Stop before the optimizer moves anything, and name the pairs."""
    bad = [pair for pair, value in zip(pairs, values, strict=True) if not math.isfinite(value)]
    if not bad:
        return
    named = ", ".join(pair.pair_id[:12] for pair in bad[:4]) + ("…" if len(bad) > 4 else "")
    raise TrainingError(
        f"step {step.index + 1}: the {what} is not finite for {len(bad)} pairs ({named}); the optimizer did not take "
        "this step and nothing was saved; lower training.learning_rate, or look these pairs up in the data"
    )
