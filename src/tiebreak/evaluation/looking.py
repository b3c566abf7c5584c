"""Looks: at evenly spaced steps the policy answers a few held-out prompts, so that what becomes of it is seen early.

Owns when there is a look, and that looks cost no more than their share of the time of training: one that might is left
out and counted. What a look takes is tried first: one pass over one prompt, which is less than a step; a token of an
answer to it, to all prompts, and four times as many, and so on, each only where there is time for as much as the last
lets expect. A token of a long answer is no dearer than one of a short one.
No look changes the policy or a random stream that training draws from. Probes, which more may hang on, have no bound.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from tiebreak import files
from tiebreak.config import SAMPLED, SignalsConfig
from tiebreak.engine.answers.answerer import Sampling
from tiebreak.engine.memory import is_out_of_memory, release_cached
from tiebreak.engine.model import Model
from tiebreak.engine.reference.kinds import Reference
from tiebreak.engine.scorer import Cut
from tiebreak.evaluation.allowance import Allowance
from tiebreak.evaluation.heldout import probe_steps
from tiebreak.evaluation.sampled import BEFORE, Said, heard_by, passed_over, said_by
from tiebreak.evaluation.samples import choose_prompts
from tiebreak.evaluation.watching import Seen
from tiebreak.fingerprint import derive_seed
from tiebreak.folders import by_step
from tiebreak.maths.kl import Floats
from tiebreak.maths.objectives import Objective
from tiebreak.records import Judgement
from tiebreak.runs import Run

_GROWTH = 4
"""How many times the tokens of one try the next one has."""
_BEFORE = f"{SAMPLED}{BEFORE}"
_PASSES = 12
"""Of an answer of one token: it is written and scored twice, and how it may be written is tried (`engine.answers`)."""


class Looks:
    """Watches what the policy says to held-out prompts, and keeps it in the run."""

    def __init__(
        self,
        run: Run,
        policy: Model,
        reference: Reference,
        pairs: Sequence[Judgement],
        settings: SignalsConfig,
        *,
        total: int,
        seed: int,
        cut: Cut,
        allowance: Allowance | None = None,
    ) -> None:
        """`reference` is the policy's start; `seed` is the run's, `total` the number of its steps."""
        self._run = run
        self._policy = policy
        self._reference = reference if settings.kl == "on" or not reference.model_is_dear else None
        self._judged = choose_prompts(pairs, settings.prompts)
        self._settings = settings
        self._sampling = Sampling(settings.max_new_tokens, settings.temperature, 1, derive_seed(seed, "looks"))
        self._cut = cut
        self._steps = probe_steps(total, settings.looks) if settings.looks and self._judged else set()
        self._allowance = allowance or Allowance(settings.most_share)
        self._last: int | None = None
        self._begun_at, self._knows_start = 0, False
        sizes = [_GROWTH**power for power in range(20) if not power or _GROWTH**power < settings.max_new_tokens]
        self._tries = [(1, 0), (1, 1), *((len(self._judged), size) for size in sizes)]
        self._took, self._a_token = (0.0, 0), math.inf
        """Seconds and longest answer of the last time that all prompts were answered, and seconds by token."""
        self.num_taken = self.num_left_out = 0

    def due(self, step: int) -> bool:
        """Say whether to look after that many steps; those after it, of an attempt that got further, are forgotten."""
        if self._last is None or step <= self._last:
            looks = by_step(self._run.looks_folder, 6, ".jsonl")
            self._run.remove(*(path for of, path in looks if of >= step))
            self._begun_at = step
            self._knows_start = any(f"{_BEFORE}num_tokens" in row for row in self._run.metrics)
        self._last = step
        self._allowance.begin()
        return step in self._steps

    def look(self, step: int, objective: Objective) -> Seen:
        """Return what is counted on the policy's answers; nothing where they might take too long, or memory is full."""
        before, row = self._allowance.spent, None
        try:
            row = self._looked(step) if self._affords(step) else None
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            release_cached(self._policy.device)
        if row is None:
            self.num_left_out += 1
            return Seen({})
        self.num_taken += 1
        return Seen(row | {f"{SAMPLED}seconds": self._allowance.spent - before})

    def hear(self, row: Mapping[str, float]) -> None:
        """Take no notice."""

    def told(self) -> str | None:
        """Return what looks took, in a sentence; None where there was none to take."""
        if not self.num_taken + self.num_left_out:
            return None
        spent, others = self._allowance.spent, max(self._allowance.others, 1e-9)
        told = (
            f"{self.num_taken} looks at what the policy says took {spent:.1f} s, {spent / others:.1%} of the training"
        )
        if self.num_left_out and self._settings.most_share is not None:
            return f"{told}; {self.num_left_out} might have taken more than signals.most_share and were left out"
        return told + f"; {self.num_left_out} did not fit in memory" * bool(self.num_left_out)

    def _affords(self, step: int) -> bool:
        """Say whether a whole look stays within the bound, whatever the length of its answers; try, where it must."""
        most, allowance = self._settings.max_new_tokens, self._allowance
        if self._settings.most_share is None:
            return True
        while self._tries:
            num_prompts, num_tokens = self._tries[0]
            a_step = allowance.others / max(1, step - self._begun_at)
            if not allowance.affords(self._expected(num_prompts, num_tokens) if self._took[1] else a_step):
                return False
            self._tries.pop(0)
            self._answered(num_prompts, num_tokens) if num_tokens else self._passed()
        return allowance.affords(self._expected(len(self._judged), most))

    def _expected(self, num_prompts: int, num_tokens: int) -> float:
        """Return the most seconds that answers up to so many tokens take; those that ended earlier might not have."""
        seconds, longest = self._took
        return (seconds + max(0, num_tokens - longest) * self._a_token) * num_prompts / len(self._judged)

    def _passed(self) -> None:
        """Take a single pass over one prompt, and notice of how long it took."""
        before = self._allowance.spent
        with self._allowance.spending():
            passed_over(self._policy, self._judged[0], self._sampling, self._cut)
        self._notice((self._allowance.spent - before) * _PASSES * len(self._judged), 1)

    def _answered(self, num_prompts: int, num_tokens: int) -> tuple[Said, list[Floats] | None]:
        """Return what the policy says, and what its start says of that; take notice of how long it took."""
        before, sampling = self._allowance.spent, replace(self._sampling, max_new_tokens=num_tokens)
        with self._allowance.spending():
            said = said_by(self._policy, self._judged[:num_prompts], sampling, self._cut)
            heard = None
            if self._reference is not None and self._settings.knows_kl:
                with self._reference.model() as start:
                    heard = heard_by(start, said, self._cut)
        longest = max(1, *(len(one.ids) for one in said.answers))
        self._notice((self._allowance.spent - before) * len(self._judged) / num_prompts, longest)
        return said, heard

    def _notice(self, seconds: float, longest: int) -> None:
        self._took, self._a_token = (seconds, longest), min(self._a_token, seconds / longest)

    def _looked(self, step: int) -> dict[str, float]:
        """Take the look, keep its answers, and return what is recorded of them."""
        most = self._settings.max_new_tokens
        said, heard = self._answered(len(self._judged), most)
        with self._allowance.spending():
            row = said.counted(heard)
        asked = None if self._knows_start else self._reference
        if asked and self._allowance.affords(self._expected(len(self._judged), most)):
            with self._allowance.spending(), asked.model() as start:
                row |= said_by(start, self._judged, self._sampling, self._cut).counted(of=_BEFORE)
            self._knows_start = True
        with self._allowance.spending():
            self._run.looks_folder.mkdir(exist_ok=True)
            file = self._run.looks_folder / _name(step)
            self._run.keep({file: files.as_jsonl(said.rows(self._judged, heard))})
        return row


def _name(step: int) -> str:
    return f"step-{step:06}.jsonl"
