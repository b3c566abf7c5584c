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

FARTHEST, LEAST_SOUND = 0.99, 0.02
"""Quantiles of held-out completions beyond which an answer is like none of them, or not sound."""
_EDGES = 0.005, 0.995
"""Of the numbers of all completions."""


@dataclass(frozen=True)
class Shown:
    """Vectors that the judge is taught with: a pair, and what was made of one of its completions by damage."""

    prompt_id: str
    chosen: Floats
    rejected: Floats
    sound: Floats
    """Of the completion that was damaged."""
    damaged: Floats
    """[damaged, size]."""


@dataclass(frozen=True)
class Probe:
    """All that is kept of a fit: a few vectors of the size of a hidden state, and numbers."""

    span: Span
    scale: Floats
    better: Floats
    """Of two sound answers, the better one lies further in this direction of standardised states."""
    sound: Floats
    """A sound answer lies further in this one, of standardised states and numbers, than a damaged one."""
    least: Floats
    most: Floats
    """Between which the numbers of completions lie."""
    farthest: float
    least_sound: float

    @staticmethod
    def of(shown: Sequence[Shown], heldout: Floats) -> Probe:
        """Return what is fitted on training pairs; `heldout` are [completions, size], by which edges are set."""
        pairs = np.array([[one.chosen, one.rejected] for one in shown])
        both = pairs.reshape(-1, pairs.shape[-1])
        scale = both.std(0) + 1e-9
        states = slice(None, -NUM_NUMBERS)
        span = Span.of((both / scale)[:, states])
        better = better_direction(((pairs[:, 0] - pairs[:, 1]) / scale)[:, states], [one.prompt_id for one in shown])
        gaps = np.concatenate([(one.sound - one.damaged) / scale for one in shown])
        sound = better_direction(gaps, [one.prompt_id for one in shown for _ in one.damaged])
        least, most = np.quantile(np.concatenate([both, heldout])[:, -NUM_NUMBERS:], _EDGES, axis=0)
        farthest = float(np.quantile(span.distances((heldout / scale)[:, states]), FARTHEST))
        least_sound = float(np.quantile((heldout / scale) @ sound, LEAST_SOUND))
        return Probe(span, scale, better, sound, least, most, farthest, least_sound)

    def standard(self, vectors: Floats) -> Floats:
        """Return [num, size] of variance 1 over the completions that it was fitted on."""
        found: Floats = vectors / self.scale
        return found

    def faults(self, vectors: Floats) -> list[str]:
        """Return for each vector why its answer may not win; '' where it may."""
        numbers = vectors[:, -NUM_NUMBERS:]
        outside = ((numbers < self.least) | (numbers > self.most)).any(1)
        far = outside | (self.span.distances(self.standard(vectors)[:, :-NUM_NUMBERS]) > self.farthest)
        unsound = self.standard(vectors) @ self.sound < self.least_sound
        sides = zip(far, unsound, strict=True)
        return ["is unlike the data's" if strange else "is not sound" if bad else "" for strange, bad in sides]

    def leanings(self, vectors: Floats) -> Floats:
        """Return how far each vector lies in the direction of what was chosen."""
        found: Floats = self.standard(vectors)[:, :-NUM_NUMBERS] @ self.better
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
