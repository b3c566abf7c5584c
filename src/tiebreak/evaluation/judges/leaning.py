"""Which of two answers wins, by vectors alone: the fitted numbers of the data's own judge.

Owns the order of its three questions: whether an answer is like any completion of the data, whether it is sound, and
how far it lies in the direction of what was chosen. Does not know where vectors come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tiebreak.evaluation.judges.judge import FIRST, SECOND, TIE, Preference
from tiebreak.evaluation.judges.linear import Floats, Span, better_direction
from tiebreak.evaluation.judges.vectors import NUM_NUMBERS
from tiebreak.evaluation.repetition import is_looping

FARTHEST, LEAST_SOUND, LEAST = 0.99, 0.02, 0.01
"""Quantiles of completions beyond which an answer is like none of them, or not sound."""
_STATE = slice(None, -NUM_NUMBERS)


@dataclass(frozen=True)
class Shown:
    """States that the judge is taught with: of a pair, and of what was made of one of its completions by damage."""

    prompt_id: str
    chosen: Floats
    rejected: Floats
    sound: Floats
    """Of the completion that was damaged."""
    damaged: Floats
    """[damaged, hidden]."""


@dataclass(frozen=True)
class Probe:
    """All that is kept of a fit: a few vectors of the size of a hidden state, and numbers."""

    span: Span
    scale: Floats
    better: Floats
    """Of two sound answers, the better one lies further in this direction of standardised states."""
    sound: Floats
    """A sound answer lies further in this one than a damaged one."""
    least: Floats
    """The numbers of completions, at their lower end. At the upper end lie a model's own likeliest answers, too."""
    farthest: float
    least_sound: float

    @staticmethod
    def of(shown: Sequence[Shown], heldout: Floats) -> Probe:
        """Return what is fitted on training pairs; `heldout` are whole vectors, [completions, size], that set edges."""
        pairs = np.array([[one.chosen, one.rejected] for one in shown])
        states, tested = pairs.reshape(-1, pairs.shape[-1]), heldout[:, _STATE]
        scale = states.std(0) + 1e-9
        span = Span.of(states / scale)
        liked, prompts = pairs[:, 0] - pairs[:, 1], [one.prompt_id for one in shown]
        gaps = np.concatenate([one.sound - one.damaged for one in shown])
        damaged_of = [one.prompt_id for one in shown for _ in one.damaged]
        sound = better_direction(gaps / scale, damaged_of)
        # Taught both at once: by labels alone, what is far from all completions is better or worse at random.
        better = better_direction(np.concatenate([liked, gaps]) / scale, [*prompts, *damaged_of])
        least = np.quantile(heldout[:, -NUM_NUMBERS:], LEAST, axis=0)
        farthest = float(np.quantile(span.distances(tested / scale), FARTHEST))
        least_sound = float(np.quantile(tested / scale @ sound, LEAST_SOUND))
        return Probe(span, scale, better, sound, least, farthest, least_sound)

    def faults(self, vectors: Floats) -> list[str]:
        """Return for each vector why its answer may not win; '' where it may."""
        states = vectors[:, _STATE] / self.scale
        unlikely = (vectors[:, -NUM_NUMBERS:] < self.least).any(1)
        far = unlikely | (self.span.distances(states) > self.farthest)
        unsound = states @ self.sound < self.least_sound
        sides = zip(far, unsound, strict=True)
        return ["is unlike the data's" if strange else "is not sound" if bad else "" for strange, bad in sides]

    def leanings(self, vectors: Floats) -> Floats:
        """Return how far each vector lies in the direction of what was chosen."""
        found: Floats = vectors[:, _STATE] / self.scale @ self.better
        return found

    def seen(self, vectors: Floats, texts: Sequence[str]) -> list[Seen]:
        """Return what is made of answers; one that loops may not win, wherever it lies."""
        sides = zip(self.faults(vectors), self.leanings(vectors), texts, strict=True)
        return [
            Seen("goes round in circles" if is_looping(text) else fault, float(lean)) for fault, lean, text in sides
        ]


@dataclass(frozen=True)
class Seen:
    """One answer."""

    fault: str
    """Why it may not win; '' where it may."""
    leaning: float | None
    """How far it lies in the direction of what was chosen; None where it could not be looked at."""

    def against(self, other: Seen) -> Preference:
        """Return the preference between two answers, this one being the first."""
        if self.leaning is None or other.leaning is None:
            return Preference(None, says=self.fault if self.leaning is None else other.fault)
        sides = (("the first", self), ("the second", other))
        if says := "; ".join(f"{side} {one.fault}" for side, one in sides if one.fault):
            return Preference(TIE if self.fault and other.fault else SECOND if self.fault else FIRST, says=says)
        apart = self.leaning - other.leaning
        return Preference(FIRST if apart > 0 else SECOND if apart < 0 else TIE, says=f"{apart:+.2f}")
