"""The training loop. Read this file first.

Owns the course of a run: the start check, steps to the last one, probes and checkpoints on the way, signals, and going
back where a loss is not finite. What a step does is told by `step`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from tiebreak import faults
from tiebreak.config import Config
from tiebreak.engine.memory import memory_bytes
from tiebreak.engine.model import Policy
from tiebreak.errors import NotFinite, RunError
from tiebreak.fingerprint import derive_seed
from tiebreak.maths.losses import Objective, objective
from tiebreak.progress import Advance, Progress
from tiebreak.records import TokenizedPair
from tiebreak.training.checkpoint import Checkpoints, State, checkpoint_steps
from tiebreak.training.optimizer import build_optimizer, rate_factor, set_rate
from tiebreak.training.order import Step, num_steps, order_digest, steps
from tiebreak.training.preemption import Stop
from tiebreak.training.recorder import Recorder
from tiebreak.training.start_check import check_start
from tiebreak.training.step import learn

Probe = Callable[[], Mapping[str, float]]
"""Measures the policy on held-out pairs; called between steps."""


MAX_ROLLBACKS = 3


@dataclass(frozen=True)
class Outcome:
    """How much was trained, all attempts of a run together, and the seconds of this one."""

    num_steps: int
    seconds: float
    num_rollbacks: int = 0


def train(
    policy: Policy,
    pairs: Sequence[TokenizedPair],
    config: Config,
    *,
    probe: Probe,
    recorder: Recorder,
    progress: Progress,
    checkpoints: Checkpoints,
    start: Path | None,
    stop: Stop,
) -> Outcome:
    """Train `policy` in place on tokenised pairs, from the verified checkpoint `start` on where there is one.

    A signal ends it after the step that it falls into, with a checkpoint: Preempted is raised.
    """
    total, began = num_steps(len(pairs), config.training), time.perf_counter()
    optimizer = build_optimizer([parameter for _, parameter in policy.trainable], config)
    course = _Course(policy, pairs, config, objective(config.loss), optimizer, total, probe, recorder, checkpoints)
    if start is None:
        _first_look(course)
    policy.reference.release()
    policy.model.train()
    with progress.stage("training", total) as advance, _own_randomness(policy, config):
        state = State(token_budget=policy.budget.tokens) if start is None else course.restored(start)
        if start is not None:
            progress.say(f"resuming after step {state.step} of {total}")
            advance(state.step)
        while state.step < total:
            try:
                state = _run(course, state, stop, advance, progress)
            except NotFinite as error:
                state = _rolled_back(course, state, error, progress)
    policy.model.eval()
    return Outcome(total, time.perf_counter() - began, state.num_rollbacks)


@dataclass(frozen=True)
class _Course:
    """What every step of a run needs."""

    policy: Policy
    pairs: Sequence[TokenizedPair]
    config: Config
    loss: Objective
    optimizer: torch.optim.Optimizer
    total: int
    probe: Probe
    recorder: Recorder
    checkpoints: Checkpoints

    def restored(self, path: Path) -> State:
        """Go back to a checkpoint, with the rows of metrics that were written by then."""
        state = self.checkpoints.restore(path, self.policy, self.optimizer)
        if state.step > self.total:
            raise RunError(
                f"the newest checkpoint is of step {state.step} and this configuration has {self.total} steps; put "
                "training.epochs, training.pairs_per_step or the data back, or start afresh with --resume never"
            )
        self.policy.budget.tokens = state.token_budget
        self.recorder.rewind(state.metrics_bytes)
        return state

    def save(self, state: State) -> None:
        """Write a checkpoint; what the reference said by now goes to disk first, so that it is not asked anew."""
        self.policy.reference.flush()
        self.recorder.sync()
        self.checkpoints.save(state, self.policy, self.optimizer)


def _first_look(course: _Course) -> None:
    """Prove that policy and reference agree, and measure held-out pairs before anything moves."""
    course.recorder.rewind(0)
    check_start(course.policy, course.pairs, course.loss, course.config)
    if course.config.evaluation.probes:
        course.recorder.write({"step": 0, **course.probe()})


def _run(course: _Course, state: State, stop: Stop, advance: Advance, progress: Progress) -> State:
    """Take steps to the last one, with checkpoints on the way; a signal waits for the end of its step."""
    every = checkpoint_steps(course.total, course.config.training.checkpoint_steps)
    probe_at = probe_steps(course.total, course.config.evaluation.probes)
    for step in steps(course.pairs, course.config.training, state.step):
        with stop.held():
            state, row = _taken(course, step, state, progress)
            if state.step in probe_at:
                course.recorder.write({"step": state.step, **course.probe()})
            state = replace(state, metrics_bytes=course.recorder.num_bytes)
            if state.step % every == 0 or state.step == course.total or stop.asked_by:
                course.save(state)
        advance(1, row)
        stop.check()
    return state


def _taken(course: _Course, step: Step, state: State, progress: Progress) -> tuple[State, dict[str, float]]:
    """Take one step; return where training stands then, and the row of metrics that was recorded."""
    faults.point("step:begin")
    policy, config = course.policy, course.config
    set_rate(course.optimizer, config.learning_rate * state.rate_scale * _factor(step, course.total, config))
    before = policy.budget.tokens
    row = _measured_step(policy, step, course.loss, course.optimizer, config)
    faults.point("step:end")
    course.recorder.write(row)
    if policy.budget.tokens < before:
        number = step.index + 1
        progress.warn(f"out of memory in step {number}: done again with {policy.budget.tokens} tokens a time")
    digest = order_digest(state.order_digest, step)
    return replace(
        state,
        step=step.index + 1,
        epoch=step.epoch + 1,
        pairs_seen=state.pairs_seen + len(step.pairs),
        token_budget=policy.budget.tokens,
        order_digest=digest,
    ), row


def _rolled_back(course: _Course, state: State, error: NotFinite, progress: Progress) -> State:
    """Go back to the last checkpoint with half the rate, where that is wanted and has not been tried too often."""
    path = course.checkpoints.latest() if course.config.training.on_divergence == "rollback" else None
    if path is None or state.num_rollbacks >= MAX_ROLLBACKS:
        raise error
    halved, tried = state.rate_scale / 2, state.num_rollbacks + 1
    found = replace(course.restored(path), rate_scale=halved, num_rollbacks=tried)
    progress.warn(f"{error}; back to step {found.step} with {halved:g} of the rate (rollback {tried})")
    course.recorder.write({"step": found.step, "rollback": tried, "rate_scale": halved})
    return found


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
