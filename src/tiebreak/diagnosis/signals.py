"""What a diagnosis is read from: settings, steps, probes, what the doctor found, what was measured at the end.

Pure values; where they come from is known to `reading`. Parts that are not known are empty, and what they would have
shown is not judged.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

import numpy as np

from tiebreak.data.spacing import words_of
from tiebreak.maths.intervals import Share, wilson_share
from tiebreak.maths.paired import standard_error
from tiebreak.reporting.numbers import is_number

Row = Mapping[str, Any]


_LEAST_ALIKE = 10


@dataclass(frozen=True)
class Mean:
    """A mean and its standard error, robust to several items of one prompt."""

    value: float
    error: float
    num: int

    @staticmethod
    def of(values: Sequence[float], prompts: Sequence[str]) -> Mean | None:
        """Return the mean of the values that are numbers; None where too few prompts have one.

        Those are fewer than two, or than ten where all values are the same: their spread says nothing of its error.
        """
        kept = [(value, prompt) for value, prompt in zip(values, prompts, strict=True) if math.isfinite(value)]
        numbers, clusters = [value for value, _ in kept], [prompt for _, prompt in kept]
        if len(set(clusters)) < (2 if len(set(numbers)) > 1 else _LEAST_ALIKE):
            return None
        return Mean(fmean(numbers), standard_error(numbers, clusters), len(kept))

    @property
    def low(self) -> float:
        """Lower end of the 95 % interval."""
        return self.value - 1.96 * self.error

    @property
    def high(self) -> float:
        """Upper end of it."""
        return self.value + 1.96 * self.error

    def __format__(self, form: str) -> str:
        """As a reader takes it: the mean with its interval."""
        return f"{self.value:{form}} ({self.low:{form}} … {self.high:{form}})"


@dataclass(frozen=True)
class Measure:
    """One measure of the end: a value of each item before and after, and the prompt that each belongs to."""

    prompts: Sequence[str]
    before: Sequence[float]
    after: Sequence[float]

    @functools.cached_property
    def at_start(self) -> Mean | None:
        """The mean before training."""
        return Mean.of(self.before, self.prompts)

    @functools.cached_property
    def at_end(self) -> Mean | None:
        """The mean after it."""
        return Mean.of(self.after, self.prompts)

    @functools.cached_property
    def change(self) -> Mean | None:
        """After less before, of the same items."""
        return Mean.of([b - a for a, b in zip(self.before, self.after, strict=True)], self.prompts)

    @functools.cached_property
    def share(self) -> Share | None:
        """The mean after training of what lies in 0..1, with an interval that holds where all are alike."""
        values = np.array(self.after, dtype=np.float64)
        if not len(values) or not np.isfinite(values).all():
            return None
        return wilson_share(values, np.array(self.prompts))


@dataclass(frozen=True)
class Found:
    """What the doctor found of one kind."""

    count: int
    share: float
    detail: str = ""


@dataclass(frozen=True)
class Pull:
    """The value of beta, and both ends of where it is known to work."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Settings:
    """What was asked for, as far as a diagnosis depends on it."""

    objective: str
    learning_rate: float
    usual_rate: float
    """The default of what is trained: an adapter, or all weights."""
    epochs: int
    beta: Pull | None
    """Where a reward is beta times a log-ratio of a whole completion."""
    max_new_tokens: int
    """Most tokens of an answer that is measured."""
    rule: tuple[str, str] | None
    """Name and pattern of the rule that measures answers."""
    keeps_scale: bool = True
    """Whether its losses at two steps are of one scale; where they are not, the share of pairs that is lost is read."""
    starts_at_reference: bool = True
    """Whether the reference is the model that training starts from: nothing is a gain yet before the first step."""
    drops_out: bool = False
    """Whether steps are measured with dropout at work: what they say of a policy is then not what its weights say."""
    learns_bad: bool = True
    """Whether it learns from bad completions, too: not where demonstrations are imitated."""


@dataclass(frozen=True)
class Signals:
    """All that is read of one run."""

    status: str | None = None
    error: str | None = None
    at_work: bool = False
    """Whether a process holds the run's folder now."""
    num_steps: int | None = None
    """Of the whole run, where that is known."""
    num_taken: int | None = None
    """Steps that it says it took."""
    artefact_step: int | None = None
    """The step whose weights became the policy, and were measured; None where that is the last one."""
    settings: Settings | None = None
    steps: Sequence[Row] = ()
    probes: Sequence[Row] = ()
    looks: Sequence[Row] = ()
    """What was seen of answers on the way."""
    rollbacks: Sequence[Row] = ()
    """Times that a loss was not finite and training went back."""
    found: Mapping[str, Found] = field(default_factory=dict)
    """What the doctor found, by its code."""
    by_length: Share | None = None
    """How often length alone finds the chosen side."""
    by_surface: Share | None = None
    """How often all superficial features together do."""
    measures: Mapping[str, Measure] = field(default_factory=dict)
    evidence: Sequence[Row] = ()
    """A row for each held-out pair."""
    texts: Sequence[tuple[str, str, str]] = ()
    """Prompt, chosen and rejected of each held-out pair."""
    warnings: Sequence[str] = ()
    unknown: Sequence[str] = ()
    """Parts that cannot be read, each with the reason."""
    unmeasured: Sequence[str] = ()
    """Parts that are not there because the run is not at its end, or was not asked for them."""

    @property
    def last_step(self) -> int:
        """The last step that was taken."""
        return max((int(row["step"]) for row in (*self.steps, *self.probes)), default=0)

    @property
    def probed_scores(self) -> list[float]:
        """What each probe is compared by, less being better: held-out loss, or the share of pairs that are lost where
        losses of two steps are of two scales.
        """
        by_loss = self.settings is None or self.settings.keeps_scale
        if by_loss:
            return [float(row["heldout/loss"]) for row in self.probes]
        return [1 - float(row.get("heldout/rewards/accuracies", 0.0)) for row in self.probes]

    @property
    def lowest_probe(self) -> Row | None:
        """The best probe of those after the start, the first of equal ones; None where there was none."""
        later = [(score, row) for score, row in zip(self.probed_scores, self.probes, strict=True) if row["step"] > 0]
        return min(later, key=lambda one: one[0], default=(0.0, None))[1]

    @property
    def alike(self) -> float | None:
        """Mean share of words, each as often as it stands there, that both sides of a held-out pair have."""
        shares = []
        for _, chosen, rejected in self.texts:
            one, two = Counter(words_of(chosen)), Counter(words_of(rejected))
            if longest := max(one.total(), two.total()):
                shares.append((one & two).total() / longest)
        return sum(shares) / len(shares) if shares else None

    @property
    def measured_earlier(self) -> bool:
        """Whether what was measured at the end is an earlier checkpoint, so that looks alone saw the last steps."""
        return self.artefact_step is not None and self.artefact_step < self.last_step

    @property
    def sees_ends(self) -> bool:
        """Whether answers have room to end where completions do: else one that does not end says nothing."""
        lengths = sorted(float(row["chosen_num_tokens"]) for row in self.evidence)
        most = self.settings.max_new_tokens if self.settings else 0
        return bool(lengths) and lengths[int(0.95 * (len(lengths) - 1))] <= most

    def of_steps(self, key: str, rows: Sequence[Row] | None = None) -> list[float]:
        """Return a number of every step that has it."""
        return [float(row[key]) for row in (self.steps if rows is None else rows) if is_number(row.get(key))]

    def epoch(self, number: int) -> list[Row]:
        """Return the steps of one pass over the data; counted from the end where it is below zero."""
        numbers = sorted({int(row.get("epoch", 1)) for row in self.steps})
        wanted = numbers[number] if -len(numbers) <= number < len(numbers) else None
        return [row for row in self.steps if int(row.get("epoch", 1)) == wanted]
