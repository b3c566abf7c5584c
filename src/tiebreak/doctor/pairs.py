"""What is looked for in pairs alone: judgements that turn on each other, agreement, label noise, and their numbers.

Pure: facts in, findings and numbers out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiebreak.doctor.facts import Facts
from tiebreak.doctor.findings import Hit, agreement_hits, noise_hits, pair_hits, shortcut_hits
from tiebreak.doctor.intake import facts_of
from tiebreak.doctor.labels import graph
from tiebreak.doctor.labels.agreement import Alpha, Ratings, cohen, fleiss, krippendorff, rating_table
from tiebreak.doctor.labels.annotators import Annotators, annotator_reliability
from tiebreak.doctor.labels.crossfit import subsample
from tiebreak.doctor.labels.margins import fit_margins, side_by_side
from tiebreak.doctor.labels.noise import (
    MIN_CLUSTERS,
    MIN_PAIRS,
    LabelNoise,
    from_repeats,
    from_scores,
    from_votes,
    label_noise,
)
from tiebreak.doctor.labels.shortcut import find_shortcuts
from tiebreak.doctor.looks import Kind
from tiebreak.doctor.measurements import in_bins, lacking, shared
from tiebreak.doctor.report import rounded
from tiebreak.doctor.texts.features import NAMES
from tiebreak.doctor.texts.vocabulary import word_differences
from tiebreak.records import FACTS

Ints = NDArray[np.int64]

NUM_SAMPLED = 4_000
"""Pairs whose words the label-noise estimate reads."""


class Pairs:
    """A `Look` at pairs."""

    def __init__(self, facts: Facts, share: float, named: str | None) -> None:
        self._facts, self._split = facts, (share, named)
        self.sampled = subsample(facts.prompt_key, NUM_SAMPLED) if facts.num_rows else np.zeros(0, dtype=np.int64)
        self._shortcut = find_shortcuts(facts.features, NAMES, facts.clusters, length=NAMES.index("log_length"))
        self._ratings: Ratings | None = None
        self._alpha: Alpha | None = None
        self._annotators: Annotators | None = None
        if len(facts.vote_item):
            self._ratings = rating_table(facts.vote_item, facts.vote_annotator, facts.vote_value)
            if len(self._ratings.items) > self._ratings.num_items:
                self._alpha = krippendorff(self._ratings)
                self._annotators = annotator_reliability(self._ratings) if len(self._ratings.names) else None
        self._noise: LabelNoise | None = None

    def hits(self) -> Iterator[Hit]:
        """Yield what single pairs, and pairs beside each other, do wrong, and what annotators and surface say."""
        yield from pair_hits(self._facts)
        yield from shortcut_hits(self._shortcut, self._facts.unit)
        yield from agreement_hits(self._alpha, self._annotators, self._facts.annotator_names)

    def hits_of(self, texts: Sequence[tuple[str, ...]]) -> Iterator[Hit]:
        """Yield what the words of the sampled pairs say of flipped labels."""
        self._noise = noise_of(self._facts, self.sampled, [(chosen, rejected) for chosen, rejected in texts])
        yield from noise_hits(self._noise, self.sampled, self._facts.num_rows)

    def counts(self) -> dict[str, Any]:
        """Return the number of pairs that stand there once more."""
        facts = self._facts
        return {"num_duplicates": len(graph.duplicates(facts.prompt_key, facts.chosen_key, facts.rejected_key))}

    def measurements(self) -> dict[str, Any]:
        """Return lengths, shortcuts, agreement, label noise, and what is stated."""
        facts = self._facts
        words = {side: getattr(facts, f"{side}_words") for side in ("prompt", *facts.sides)}
        found = shared(facts, words, *self._split)
        longer = facts.chosen_characters > facts.rejected_characters
        missing = {name: np.isnan(getattr(facts, name)) for name in FACTS}
        missing |= {"margin_above_zero": ~(facts.margin > 0), "weight_of_one": facts.weight != 1}
        return found | {
            "histograms": found["histograms"] | _histograms(facts),
            "chosen_longer_share": round(float(longer.mean()), 4) if facts.num_rows else 0.0,
            "shortcut": self._shortcut.as_dict(),
            "agreement": self._agreement(),
            "label_noise": self._noise.as_dict() if self._noise else None,
            "stated": lacking(facts, missing),
        }

    def _agreement(self) -> dict[str, Any] | None:
        ratings, names = self._ratings, self._facts.annotator_names
        if ratings is None:
            return None
        by_item = ratings.counts()
        return {
            "num_annotators": len(ratings.names),
            "num_items": ratings.num_items,
            "num_votes": len(ratings.items),
            "num_tie_votes": int(by_item[:, np.isclose(ratings.values, 0.5)].sum()),
            "unanimous_share": round(float((by_item.max(axis=1) == by_item.sum(axis=1)).mean()), 4),
            **(self._alpha.as_dict() if self._alpha else dict.fromkeys(("krippendorff_alpha", "low", "high"))),
            "fleiss_kappa": rounded(fleiss(ratings)),
            "cohen_kappa": cohen(ratings).as_rows(names) if len(ratings.names) else [],
            "annotators": self._annotators.as_rows(names) if self._annotators is not None else [],
        }


PAIRS = Kind(Facts, facts_of, Pairs)


def noise_of(facts: Facts, rows: Ints, texts: Sequence[tuple[str, str]]) -> LabelNoise:
    """Estimate the share of flipped labels; `rows` are the pairs whose completions `texts` are (chosen, rejected)."""
    clusters, margins = facts.clusters[rows], None
    if len(rows) >= MIN_PAIRS and len(np.unique(clusters)) >= MIN_CLUSTERS:
        margins = fit_margins(side_by_side(facts.features[rows], word_differences(texts)), clusters)
    wins, losses = facts.votes
    # Without a vote the same pair again is a copy, and no second judgement.
    judged = np.flatnonzero(wins + losses)
    votes = from_votes(wins, losses)
    return label_noise(
        len(rows),
        margins=margins,
        repeats=from_repeats(*(key[judged] for key in (facts.prompt_key, facts.chosen_key, facts.rejected_key))),
        votes=None if votes is None else (votes[0], votes[1][rows]),
        scores=from_scores(facts.chosen_score.astype(np.float64), facts.rejected_score.astype(np.float64)),
    )


def _histograms(facts: Facts) -> dict[str, Any]:
    ratio = np.log2((facts.chosen_words + 1) / (facts.rejected_words + 1))
    halves = np.linspace(-4, 4, 33)
    margins = facts.margin[~np.isnan(facts.margin)]
    margin = None
    if len(margins):
        steps = _margin_edges(float(margins.min()), float(margins.max()))
        margin = {
            "edges": steps.tolist(),
            "counts": in_bins(margins, steps),
            "mean": float(margins.mean(dtype=np.float64)),
        }
    return {
        "length_difference": {"edges": halves.tolist(), "counts": in_bins(np.clip(ratio, -4, 4), halves)},
        "margin": margin,
    }


def _margin_edges(low: float, high: float) -> NDArray[np.float64]:
    """Return edges at multiples of a power of two, so that the coarser of any two data's are edges of both.

    The last lies above the greatest margin: each bin holds its lower edge alone.
    """
    # Margins that are all but equal, as 32-bit scores with one step, have no room for 30 bins between them.
    room = 1e-3 * max(1.0, abs(low), abs(high)) if high - low <= 1e-6 * max(abs(low), abs(high)) else 0.0
    step = 2.0 ** math.ceil(math.log2((high - low + 2 * room) / 30))
    first, last = math.floor((low - room) / step), math.floor((high + room) / step) + 1
    return np.arange(first, last + 1, dtype=np.float64) * step
