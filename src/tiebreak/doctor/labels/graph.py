"""Preferences of a prompt as a graph: repeats, contradictions, cycles, and how many prompts the pairs amount to.

Owns what "A over B, B over C, C over A" means. Takes content hashes, a row a pair, and returns indices of rows; knows
no text. Hashes are compared as they are: two completions are the same one when their keys are equal. A pair whose
completions are equal is no preference and is left out of contradictions and cycles.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiebreak.doctor.labels.circles import closing, knots

Keys = NDArray[np.uint64]
Ints = NDArray[np.int64]


def duplicates(prompt: Keys, chosen: Keys, rejected: Keys) -> Ints:
    """Return the pairs that repeat an earlier one (same prompt, chosen, rejected), ascending; the first is kept."""
    order = np.lexsort((rejected, chosen, prompt))
    return np.sort(order[1:][~_starts(prompt[order], chosen[order], rejected[order])[1:]])


@dataclass(frozen=True)
class Contradictions:
    """Pairs whose prompt also holds the opposite pair, row by row and group by group.

    `num_same` and `num_opposite` are how many pairs say what the row says and the reverse, itself included: where
    A > B stands twice and B > A once, the rows of A > B have 2 and 1.
    """

    pairs: Ints
    groups: Ints
    num_same: Ints
    num_opposite: Ints

    @property
    def num_groups(self) -> int:
        """How many couples of completions are contradicted."""
        return int(self.groups[-1]) + 1 if len(self.groups) else 0


def contradictions(prompt: Keys, chosen: Keys, rejected: Keys) -> Contradictions:
    """Return the pairs of every 2-cycle (A > B and B > A on one prompt), groups in the order of their first pair."""
    rows = np.flatnonzero(chosen != rejected)
    low, high = np.minimum(chosen, rejected)[rows], np.maximum(chosen, rejected)[rows]
    order = np.lexsort((rows, high, low, prompt[rows]))
    rows = rows[order]
    couple = np.cumsum(_starts(prompt[rows], low[order], high[order])) - 1
    forward = (chosen[rows] == low[order]).astype(np.int64)
    num_forward = np.bincount(couple, weights=forward).astype(np.int64)[couple]
    num_backward = np.bincount(couple)[couple] - num_forward
    both = (num_forward > 0) & (num_backward > 0)
    same, opposite = (
        np.where(forward, a, b)[both] for a, b in ((num_forward, num_backward), (num_backward, num_forward))
    )
    groups, order = _groups_by_first_pair(couple[both], rows[both])
    return Contradictions(rows[both][order], groups, same[order], opposite[order])


def _starts(*columns: NDArray[Any]) -> NDArray[np.bool_]:
    """Mark the rows of sorted columns that differ from the row before."""
    new = np.zeros(len(columns[0]), dtype=np.bool_)
    new[:1] = True
    for column in columns:
        new[1:] |= column[1:] != column[:-1]
    return new


def _groups_by_first_pair(labels: Ints, pairs: Ints) -> tuple[Ints, Ints]:
    """Number groups by their smallest pair; return (group of each row, order of rows by group and pair)."""
    _, index = np.unique(labels, return_inverse=True)
    first = np.full(int(index.max(initial=-1)) + 1, np.iinfo(np.int64).max)
    np.minimum.at(first, index, pairs)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    order = np.lexsort((pairs, rank[index]))
    return rank[index][order], order


@dataclass(frozen=True)
class Cycles:
    """Few pairs without which no circle of preferences is left, by the knot of circles that they close (`groups`)."""

    pairs: Ints
    groups: Ints
    num_on_circles: int
    """All pairs that lie on a circle, these included."""

    @property
    def num_groups(self) -> int:
        """How many separate knots of preferences there are."""
        return int(self.groups[-1]) + 1 if len(self.groups) else 0


def cycles(prompt: Keys, chosen: Keys, rejected: Keys, strength: NDArray[Any] | None = None) -> Cycles:
    """Return the pairs to leave out so that no circle A > B > C > … > A on one prompt is left: few, and narrow ones.

    Pairs of a contradiction are left to that rule and make no circle here. As few pairs as can be in knots of up to
    MAX_EXACT completions, else nearly so; among as few, those of the least `strength` (at least 0, in any unit). A pair
    that stands several times is left out as a whole.
    """
    rows = np.setdiff1d(np.flatnonzero(chosen != rejected), contradictions(prompt, chosen, rejected).pairs)
    _, index, counts = np.unique(prompt[rows], return_inverse=True, return_counts=True)
    rows = rows[counts[index] >= 3]  # fewer pairs of a prompt make no circle
    source, target, num_nodes = _nodes(prompt[rows], chosen[rows], rejected[rows])
    knot = knots(source, target, num_nodes)
    order = np.flatnonzero(knot >= 0)
    order = order[np.lexsort((target[order], source[order], knot[order]))]
    rows, source, target, knot = rows[order], source[order], target[order], knot[order]
    width = np.ones(len(rows)) if strength is None else strength[rows].astype(np.float64)
    first = _starts(source, target)
    arc = np.cumsum(first) - 1
    weight, widths = np.bincount(arc), np.bincount(arc, weights=width)
    found = np.zeros(len(weight), dtype=np.bool_)
    start, end, of = source[first], target[first], knot[first]
    for members in np.split(np.arange(len(of)), np.flatnonzero(np.diff(of)) + 1) if len(of) else ():
        own = widths[members]
        # Less than one pair, all together.
        cost = weight[members] + 0.5 * own / max(own.sum(), 1e-300)
        found[members] = closing(start[members], end[members], cost)
    groups, order = _groups_by_first_pair(knot[found[arc]], rows[found[arc]])
    return Cycles(rows[found[arc]][order], groups, len(rows))


def _nodes(prompt: Keys, chosen: Keys, rejected: Keys) -> tuple[Ints, Ints, int]:
    """Number the completions of each prompt: a completion on two prompts is two nodes."""
    prompts, completions = np.concatenate([prompt, prompt]), np.concatenate([chosen, rejected])
    order = np.lexsort((completions, prompts))
    node = np.empty(len(order), dtype=np.int64)
    node[order] = np.cumsum(_starts(prompts[order], completions[order])) - 1
    return node[: len(prompt)], node[len(prompt) :], int(node.max(initial=-1)) + 1


@dataclass(frozen=True)
class Clusters:
    """How pairs spread over prompts; `effective` is how many prompts of one pair would weigh as much."""

    num_pairs: int
    num_prompts: int
    effective: float
    largest: int
    histogram: tuple[tuple[int, int], ...]
    """(pairs per prompt, number of such prompts), ascending."""

    def as_dict(self) -> dict[str, Any]:
        """Return how many prompts there are and how evenly pairs lie on them, for JSON."""
        return {"num_prompts": self.num_prompts, "effective": round(self.effective, 1), "largest": self.largest}


def clusters(prompt: Keys) -> Clusters:
    """Count the pairs of each prompt; effective = (sum n)² / sum n² over prompts' numbers of pairs (Kish 1965)."""
    _, counts = np.unique(prompt, return_counts=True)
    totals = counts.astype(np.float64)
    squares = float((totals**2).sum())
    sizes, nums = np.unique(counts, return_counts=True)
    histogram = tuple((int(size), int(num)) for size, num in zip(sizes, nums, strict=True))
    effective = float(totals.sum()) ** 2 / squares if squares else 0.0
    return Clusters(len(prompt), len(counts), effective, int(counts.max(initial=0)), histogram)
