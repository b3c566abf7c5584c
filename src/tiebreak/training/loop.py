"""The training loop. Read this file first.

Owns the course of a run: the start check, steps to the last one, watchers and checkpoints on the way, signals, and
going back where a loss is not finite. What a step does is told by `step`.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from tiebreak import faults
from tiebreak.config import TrainingConfig
from tiebreak.engine.memory import memory_bytes
from tiebreak.engine.model import POLICY, Model
from tiebreak.engine.reference.kinds import Reference
from tiebreak.errors import NotFinite, RunError
from tiebreak.evaluation.watching import Watcher
from tiebreak.fingerprint import derive_seed
from tiebreak.maths.objectives import Objective, Running
from tiebreak.progress import Advance, Progress
from tiebreak.records import Example
from tiebreak.training.budget import Budget
from tiebreak.training.checkpoint import Checkpoints, State, checkpoint_steps
from tiebreak.training.optimizer import rate_factor
from tiebreak.training.order import Step, num_steps, order_digest, steps
from tiebreak.training.pace import Pace
from tiebreak.training.parts import Moments, Part, Streams, Weights
from tiebreak.training.preemption import Stop
from tiebreak.training.recorder import Recorder
from tiebreak.training.start_check import Claims, check_start
from tiebreak.training.taking_part import BUDGET, COMPARED, get_ready, rest, shared, take, told_before

MAX_ROLLBACKS = 3
TEACHES_NOTHING = (
    "step 1: the gradient is exactly 0, so that its pairs teach nothing: are their weights 0, their labels even (soft "
    "labels of 0.5), or is the loss settled from the start (its beta, its margins)?"
)


@dataclass(frozen=True)
class Course:
    """What a run trains, on what and against what, how much at a time, and who looks on."""

    policy: Model
    reference: Reference
    objective: Objective
    examples: Sequence[Example]
    settings: TrainingConfig
    rate: float
    """Peak of the learning rate."""
    budget: Budget
    watchers: Sequence[Watcher]
    recorder: Recorder
    checkpoints: Checkpoints
    asked: Sequence[Example] = ()
    """All that the start will be asked about: the examples, unless steps compare with something else, and those that
    are only measured."""
    is_told: bool = False
    """Whether a run that made the policy was warned already that it does not end answers."""
    parts: Sequence[Part] = ()
    """What a checkpoint holds besides weights, moments and random streams."""
    moments: Mapping[str, Tensor] | None = None
    """What the optimizer starts with, where another run left it something."""
    claims: Claims | None = None
    """What policy and reference are said to be, where they are not one model at the start."""

    @property
    def total(self) -> int:
        """Optimizer steps of the whole run."""
        return num_steps(len(self.examples), self.settings)

    def record(self, row: Mapping[str, float]) -> None:
        """Write a row down, and tell all watchers of it."""
        self.recorder.write(row)
        for watcher in self.watchers:
            watcher.hear(row)


@dataclass(frozen=True)
class Outcome:
    """How much was trained, all attempts of a run together, and the seconds of this one."""

    num_steps: int
    num_steps_done: int
    seconds: float
    num_rollbacks: int = 0
    running: tuple[float, float] = (0.0, 0.0)
    """What the objective remembers of the steps."""
    stopped: str | None = None
    """Why it ended before the last step, where it did."""


def train(course: Course, progress: Progress, *, start: Path | None, stop: Stop) -> Outcome:
    """Train the policy in place, from the verified checkpoint `start` on where there is one.

    A signal ends it after the step that it falls into, with a checkpoint: Preempted is raised.
    """
    began, policy, ranks = time.perf_counter(), course.policy, course.policy.ranks
    ranks.kept.update({POLICY: policy, COMPARED: course.reference, BUDGET: course.budget})
    optimizer = ranks.run(get_ready, course.settings, course.rate).optimizer
    parts = (Weights(policy), Moments(policy, optimizer), Streams(policy.device))
    if start is None:
        course.recorder.rewind(0)
        check_start(
            policy,
            course.reference,
            course.objective.at(0, course.total),
            next(steps(course.examples, course.settings)).examples,
            course.budget.cut,
            progress,
            is_told=course.is_told,
            claims=course.claims,
        )
        if course.moments is not None:
            Moments(policy, optimizer).restore(course.moments)
    else:
        course.checkpoints.restore(start, course.parts)  # before it is asked: what it had said stays what it was
    course.reference.begin(course.asked, course.budget.cut, progress)
    before: dict[str, float] = {}
    if start is None:
        _watch(course, State(), before.update)
    policy.network.train()
    pace = Pace(policy, progress)
    with progress.stage("training", course.total) as advance, _own_randomness(policy, course.settings.seed):
        shown = _Shown(advance)
        if before:
            shown(0, before)
        state = State(token_budget=course.budget.tokens)
        if start is not None:
            state = _restored(course, start, parts)
            progress.say(f"resuming after step {state.step} of {course.total}")
            shown(state.step)
        _foresee(course, pace, state.step)
        while state.step < course.total and state.stopped is None:
            try:
                state = _run(course, (*course.parts, *parts), state, stop, shown, progress, pace)
            except NotFinite as error:
                state = _rolled_back(course, (*course.parts, *parts), state, error, progress, shown)
    policy.network.eval()
    optimizer.zero_grad(set_to_none=True)  # what is measured next may need the room
    pace.ended()
    ranks.run(rest)
    if state.stopped:
        progress.say(f"training ended after step {state.step} of {course.total}: {state.stopped}")
    return Outcome(
        course.total, state.step, time.perf_counter() - began, state.num_rollbacks, state.running, state.stopped
    )


class _Shown:
    """Passes on how many steps are done, and knows it: after a rollback some are taken back."""

    def __init__(self, advance: Advance) -> None:
        self._advance, self.num_steps = advance, 0

    def __call__(self, amount: int = 1, numbers: Mapping[str, float] | None = None) -> None:
        self.num_steps += amount
        self._advance(amount, numbers)


def _run(
    course: Course,
    parts: Sequence[Part],
    state: State,
    stop: Stop,
    advance: Advance,
    progress: Progress,
    pace: Pace,
) -> State:
    """Take steps to the last one, with checkpoints on the way; a signal waits for the end of its step."""
    every = checkpoint_steps(course.total, course.settings.checkpoint_steps)
    for step in steps(course.examples, course.settings, state.step):
        with stop.held():
            state, row = _taken(course, step, state, progress)
            if state.step == 1 and row["grad_norm"] == 0:
                progress.warn(TEACHES_NOTHING)
            if moved := course.reference.moved(state.step):
                course.record({"step": state.step, **moved})
            best, stopped = _watch(course, state, functools.partial(advance, 0))
            written = course.recorder
            state = replace(state, metrics_bytes=written.num_bytes, metrics_sha256=written.sha256, stopped=stopped)
            state = replace(state, best_step=state.step if best else state.best_step)
            asked = stop.asked_by is not None
            if state.step % every == 0 or state.step == course.total or asked or stopped or best:
                course.recorder.sync()
                course.checkpoints.save(state, parts)
        advance(1, row)
        pace.took(step, row["step_seconds"])
        stop.check()
        if stopped:
            break
    return state


def _taken(course: Course, step: Step, state: State, progress: Progress) -> tuple[State, dict[str, float]]:
    """Take one step; return where training stands then, and the row of metrics that was recorded."""
    faults.point("step:begin")
    began, settings, budget, before = time.perf_counter(), course.settings, course.budget, course.budget.tokens
    factor = rate_factor(step.index, course.total, settings.warmup_share, settings.schedule)
    rate = course.rate * state.rate_scale * factor
    objective = course.objective.at(step.index, course.total).remembering(Running(*state.running))
    objective = objective.drawing(derive_seed(settings.seed, "kept pairs", step.index))
    ranks = course.policy.ranks
    told = told_before(ranks, course.reference, objective, step.examples, budget)
    metrics, norm = ranks.run(take, objective, step, rate, budget.tokens, told)
    means, seconds, number = metrics.means(), time.perf_counter() - began, step.index + 1
    row = {
        "step": number,
        "epoch": step.epoch + 1,
        **means,
        **objective.moving,
        "grad_norm": norm,
        "learning_rate": rate,
        "pairs_per_second": len(step.examples) / seconds,
        "unique_tokens_per_second": step.num_unique_tokens / seconds,
        "token_budget": budget.tokens,
        **shared(ranks, step.examples),
        "memory_bytes": memory_bytes(course.policy.device),
        "step_seconds": seconds,
    }
    faults.point("step:end")
    course.record(row)
    if budget.tokens < before:
        progress.warn(f"out of memory in step {number}: done again with {budget.tokens} tokens a time")
    return replace(
        state,
        step=number,
        epoch=step.epoch + 1,
        pairs_seen=state.pairs_seen + len(step.examples),
        token_budget=budget.tokens,
        order_digest=order_digest(state.order_digest, step),
        running=objective.after(metrics),
    ), row


def _foresee(course: Course, pace: Pace, done: int) -> None:
    """Say how long the rest will take, by the first of its steps."""
    first = list(islice(steps(course.examples, course.settings, done), 20))
    if first:
        pace.estimate(first, course.budget, course.total - done)


def _watch(course: Course, state: State, show: Callable[[Mapping[str, float]], None]) -> tuple[bool, str | None]:
    """Let every watcher that is due look, record and show what it saw, one after the other.

    Return whether the policy is the best so far, and why training should end, if it should.
    """
    # Of the step just taken, and what is remembered since.
    objective = course.objective.at(max(state.step - 1, 0), course.total).remembering(Running(*state.running))
    best, stopped = False, None
    for watcher in course.watchers:
        if watcher.due(state.step):
            seen = watcher.look(state.step, objective)
            if seen.row:
                course.record({"step": state.step, **seen.row})
                show(seen.row)
            best, stopped = best or seen.best, stopped or seen.stop
    return best, stopped


def _restored(course: Course, path: Path, parts: Sequence[Part]) -> State:
    """Go back to a checkpoint, with the rows of metrics that were written by then."""
    state = course.checkpoints.restore(path, parts)
    if state.step > course.total:
        raise RunError(
            f"the newest checkpoint is of step {state.step} and this configuration has {course.total} steps; put "
            "training.epochs, training.pairs_per_step or the data back, or start afresh with --resume never"
        )
    course.budget.tokens = state.token_budget
    course.recorder.rewind(state.metrics_bytes, state.metrics_sha256)
    return state


def _rolled_back(
    course: Course, parts: Sequence[Part], state: State, error: NotFinite, progress: Progress, shown: _Shown
) -> State:
    """Go back to the last checkpoint with half the rate, where that is wanted and has not been tried too often."""
    path = course.checkpoints.latest() if course.settings.on_divergence == "rollback" else None
    if path is None or state.num_rollbacks >= MAX_ROLLBACKS:
        raise error
    halved, tried = state.rate_scale / 2, state.num_rollbacks + 1
    found = replace(_restored(course, path, parts), rate_scale=halved, num_rollbacks=tried)
    progress.warn(f"{error}; back to step {found.step} with {halved:g} of the rate (rollback {tried})")
    course.record({"step": found.step, "rollback": tried, "rate_scale": halved})
    shown(found.step - shown.num_steps)
    return found


@contextlib.contextmanager
def _own_randomness(policy: Model, seed: int) -> Iterator[None]:
    """Seed dropout from the configuration and leave the caller's random stream as it was."""
    with torch.random.fork_rng(devices=[policy.device] if policy.device.type == "cuda" else []):
        torch.manual_seed(derive_seed(seed, "dropout"))
        yield
