"""How long training takes: the estimate before it, how far off that was, and a machine too busy to keep it.

Owns these sentences. Looks at the clock and the load of the machine alone; nothing that is learned depends on it.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Sequence

import torch

from tiebreak.data.workers import num_cores
from tiebreak.engine.memory import is_out_of_memory
from tiebreak.engine.model import Model
from tiebreak.engine.ranks import Ranks
from tiebreak.progress import Progress
from tiebreak.records import Example, num_unique_tokens
from tiebreak.reporting.numbers import duration
from tiebreak.training.budget import Budget
from tiebreak.training.order import Step

WORTH_TELLING = 10.0
"""Seconds of training from which on an estimate is of use."""
SLOW, LEAST_STEPS = 3.0, 5
"""How many times slower than the median a step that was held up is, token by token; and the steps of a median."""


class Pace:
    """What was expected of a training, and what its steps took; speaks once of each."""

    def __init__(self, policy: Model, progress: Progress) -> None:
        self._policy, self._progress = policy, progress
        self._expected: float | None = None
        self._began = time.perf_counter()
        self._seconds_per_token: list[float] = []
        self._said_busy = policy.device.type != "cpu"

    def estimate(self, first: Sequence[Step], budget: Budget, num_steps: int) -> None:
        """Say how long `num_steps` more steps will take: some first ones are like all, and one micro-batch is timed.

        Several processes take each as many, and share the tokens of a step.
        """
        if not num_steps:
            return
        self._heed_load()
        ranks, own = self._policy.ranks, [*first[0].examples]
        group = self._policy.scorer.micro_batches(own, budget.tokens)[0]
        seconds = ranks.run(_seconds_of, self._policy.key, [*group])
        if seconds is not None:
            seconds /= ranks.size
            tokens = statistics.fmean(step.num_unique_tokens for step in first)
            self._expected = num_steps * tokens * seconds / sum(map(num_unique_tokens, group))
            if self._expected >= WORTH_TELLING:
                self._progress.say(f"training: {num_steps:,} steps, about {duration(self._expected)}")
        self._began = time.perf_counter()

    def took(self, step: Step, seconds: float) -> None:
        """Take note of a step; say so where it was held up."""
        each = seconds / max(1, step.num_unique_tokens)
        known = self._seconds_per_token
        if len(known) >= LEAST_STEPS and each > SLOW * statistics.median(known):
            self._heed_load(f"step {step.index + 1} took {each / statistics.median(known):.1f} times as long as others")
        known.append(each)

    def ended(self) -> None:
        """Say how long it took, where a time was told before."""
        took, expected = time.perf_counter() - self._began, self._expected
        if expected is None or expected < WORTH_TELLING:
            return
        apart = took / expected - 1
        told = (
            "as estimated"
            if abs(apart) < 0.005
            else f"{abs(apart):.0%} {'more' if apart > 0 else 'less'} than estimated"
        )
        self._progress.say(f"training took {duration(took)}, {told}")

    def _heed_load(self, seen: str = "") -> None:
        load, cores = os.getloadavg()[0], num_cores()
        if self._said_busy or not (seen or load > cores + 0.5):
            return
        self._said_busy = True
        self._progress.warn(
            f"{seen or 'the machine is busy'} (load {load:.1f} on {cores} cores): threads wait for each other then; "
            "what else runs here, OMP_WAIT_POLICY=passive (set before torch is loaded), or OMP_NUM_THREADS below the "
            "number of cores, decides how long this takes"
        )


def _seconds_of(ranks: Ranks, key: str, group: Sequence[Example]) -> float | None:
    """Return the seconds of a micro-batch forth and back; None where memory does not suffice. Nothing of it is kept."""
    policy: Model = ranks.kept[key]
    cuda = policy.device.type == "cuda"
    try:
        with torch.random.fork_rng(devices=[policy.device] if cuda else []):
            began = time.perf_counter()
            policy.score(group).summed().sums.sum().backward()  # type: ignore[no-untyped-call]
            if cuda:
                torch.cuda.synchronize(policy.device)
            return time.perf_counter() - began
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error) or policy.in_shares:  # the others wait within the passes
            raise
        return None
    finally:
        for _, parameter in policy.trainable:
            parameter.grad = None
