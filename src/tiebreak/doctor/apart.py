"""What is looked for in completions on their own, good or bad: both labels, enough of each, and what gives them away.

Owns what a contradiction and a copy are among them, and when their labels are uneven. Pure: facts in, findings and
numbers out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiebreak.doctor.facts import ThumbFacts
from tiebreak.doctor.findings import Hit, on_rows, shortcut_hits
from tiebreak.doctor.intake import thumb_facts_of
from tiebreak.doctor.labels import graph
from tiebreak.doctor.labels.shortcut import find_shortcuts_apart
from tiebreak.doctor.looks import Kind
from tiebreak.doctor.measurements import held_out, lacking, shared
from tiebreak.doctor.rules import Severity
from tiebreak.doctor.texts import near
from tiebreak.doctor.texts.features import NAMES
from tiebreak.records import FACTS

Ints = NDArray[np.int64]

EVEN = (1.0, 4 / 3)
"""Where n_D λ_D : n_U λ_U is to lie: Ethayarajh et al. 2024, Eq. 8, with the range that the text gives."""
UNEVEN = 4 / 3
"""How many times as much one label may weigh as the other before that is told: nobody's labels are quite as many."""
RARE = 0.1
"""Share of the other label below which there is too little to learn the rarer one from, whatever it weighs."""


class Completions:
    """A `Look` at completions on their own."""

    sampled = np.zeros(0, dtype=np.int64)

    def __init__(self, facts: ThumbFacts, share: float, named: str | None, *, wants_both: bool = True) -> None:
        """`wants_both`: whether good completions and bad ones are learned from, and not the good ones alone."""
        self._wants_both = wants_both
        self._facts, self._split = facts, (share, named)
        self._held_out = held_out(facts, share, named)
        self._shortcut = find_shortcuts_apart(
            facts.features, facts.liked, NAMES, facts.clusters, length=NAMES.index("log_length")
        )
        same = (facts.prompt_key, facts.completion_key)
        self._again = graph.duplicates(*same, facts.liked.astype(np.uint64))
        self._against, self._num_texts = _both_ways(*same, facts.liked)

    def hits(self) -> Iterator[Hit]:
        """Yield what single completions, all of them beside each other, and their labels do wrong."""
        facts = self._facts
        detail = f"{self._num_texts} {'texts, each' if self._num_texts > 1 else 'text,'} both liked and disliked"
        yield from on_rows("contradiction", self._against, facts, detail=detail)
        yield from on_rows("duplicate", self._again, facts)
        yield from on_rows("near_duplicate", self._alike(), facts)
        yield from self._labels() if self._wants_both else ()
        yield from shortcut_hits(self._shortcut, facts.unit)

    def hits_of(self, _: Sequence[tuple[str, ...]]) -> Iterator[Hit]:
        """Yield nothing: no word is read again."""
        yield from ()

    def counts(self) -> dict[str, Any]:
        """Return how many completions are liked, how many are not, and how many stand there once more."""
        num_liked = int(self._facts.liked.sum())
        return {
            "num_liked": num_liked,
            "num_disliked": self._facts.num_rows - num_liked,
            "num_duplicates": len(self._again),
        }

    def measurements(self) -> dict[str, Any]:
        """Return lengths, shortcuts, what labels weigh, and what is stated: of what pairs state, nothing."""
        facts = self._facts
        words = {"prompt": facts.prompt_words}
        words |= {"liked": facts.completion_words[facts.liked], "disliked": facts.completion_words[~facts.liked]}
        missing = dict.fromkeys((*FACTS, "margin_above_zero"), np.ones(facts.num_rows, np.bool_))
        missing |= {"liked": np.zeros(facts.num_rows, np.bool_), "weight_of_one": facts.weight != 1}
        return shared(facts, words, *self._split) | {
            "labels": self._weighed(),
            "shortcut": self._shortcut.as_dict(),
            "stated": lacking(facts, missing),
        }

    def _alike(self) -> Ints:
        """Return completions that are nearly the same as an earlier one with the same label; copies are not told."""
        cluster = near.clusters(self._facts.signatures)
        _, firsts, inverse = np.unique(2 * cluster + self._facts.liked, return_index=True, return_inverse=True)
        later = np.flatnonzero(firsts[inverse] != np.arange(len(cluster)))
        return np.setdiff1d(later, np.concatenate([self._again, self._against]))

    def _labels(self) -> Iterator[Hit]:
        """Yield a finding where one label is missing, on a side of the split or altogether, or is rare."""
        facts, share = self._facts, self._split[0]
        sides = {"": np.ones(facts.num_rows, np.bool_), "held out": self._held_out, "to train on": ~self._held_out}
        for name, rows in sides.items():
            if (count := int(rows.sum())) and len(np.unique(facts.liked[rows])) == 1:
                word = "liked" if facts.liked[rows][0] else "disliked"
                remedy = "" if self._split[1] or not name else f"; another data.heldout_share than {share:g} may help"
                detail = f"all {count} {name} are {word}{remedy}" if name else f"all are {word}"
                yield Hit("one_label", count, facts.unit, facts.num_rows, detail=detail)
                return
        weighed = self._weighed()
        if not any(weight != 1 for weight in weighed["weights"].values()):
            return
        severity: Severity = "warning" if min(weighed["ratio"], 1 / weighed["ratio"]) < RARE else "info"
        setting, weight = next((name, value) for name, value in weighed["weights"].items() if value != 1)
        both = f"{weighed['num_liked']} liked to {weighed['num_disliked']} disliked to train on"
        detail = f"{both}: loss.{setting} {weight:g} brings what they weigh into 1 … 4/3"
        numbers = weighed["num_liked"], weighed["num_disliked"]
        yield Hit("uneven_labels", min(numbers), facts.unit, sum(numbers), detail=detail, severity=severity)

    def _weighed(self) -> dict[str, Any]:
        """Return how many completions of each label are trained on, what they weigh, and weights that make them even.

        What is raised is the weight of the rarer label, to the middle of EVEN, in two digits.
        """
        facts, rows = self._facts, ~self._held_out
        good, bad = rows & facts.liked, rows & ~facts.liked
        weights = facts.weight.astype(np.float64)
        masses = float(weights[good].sum()), float(weights[bad].sum())
        found: dict[str, Any] = {"num_liked": int(good.sum()), "num_disliked": int(bad.sum())}
        if min(masses) <= 0:
            return found | {"ratio": None, "weights": {}}
        ratio, middle = masses[0] / masses[1], math.sqrt(EVEN[0] * EVEN[1])
        raised = {"desirable_weight": 1.0, "undesirable_weight": 1.0}
        if not 1 / UNEVEN <= ratio <= UNEVEN:
            raised["desirable_weight" if ratio < 1 else "undesirable_weight"] = float(
                f"{middle / ratio if ratio < 1 else ratio / middle:.2g}"
            )
        return found | {"ratio": round(ratio, 6), "weights": raised}


COMPLETIONS = Kind(ThumbFacts, thumb_facts_of, Completions)
DEMONSTRATIONS = Kind(ThumbFacts, thumb_facts_of, partial(Completions, wants_both=False))


def _both_ways(
    prompt: NDArray[np.uint64], completion: NDArray[np.uint64], liked: NDArray[np.bool_]
) -> tuple[Ints, int]:
    """Return every row whose completion of its prompt is liked in one row and disliked in another, and how many texts
    that are; rows ascending.
    """
    order = np.lexsort((completion, prompt))
    new = np.ones(len(order), np.bool_)
    new[1:] = (prompt[order][1:] != prompt[order][:-1]) | (completion[order][1:] != completion[order][:-1])
    text = np.cumsum(new) - 1
    num_liked, num_rows = np.bincount(text, weights=liked[order]), np.bincount(text)
    both = (num_liked > 0) & (num_liked < num_rows)
    return np.sort(order[both[text]]), int(both.sum())
