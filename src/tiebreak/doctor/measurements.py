"""The numbers behind the findings that judgements of any kind have: counts, spread over prompts, lengths, the split.

Owns how these are told in the report; what only pairs have is in `pairs`, what only completions on their own in
`apart`. Pure: facts in, numbers out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiebreak.doctor.facts import Rows
from tiebreak.doctor.labels import graph
from tiebreak.doctor.report import spread

Bools = NDArray[np.bool_]


def licences_of(facts: Rows) -> dict[str, int]:
    """Return how many rows state each licence, most frequent first."""
    return _named_counts(facts.licence, facts.licence_names)


def counts(facts: Rows, lost: Mapping[int, str], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return the counts that head the report: records = used + dropped; `own` are those of this kind alone.

    `lost` are the rows that a model cannot take, with the reason; a record all of whose rows are lost is dropped.
    """
    dropped = Counter(facts.num_dropped)
    if lost:
        starts, usable = facts.record_starts, np.ones(facts.num_rows, np.bool_)
        usable[list(lost)] = False
        dropped.update(lost[row] for row in starts[~np.logical_or.reduceat(usable, starts)].tolist())
    num_dropped = dropped.total()
    return {
        "unit": facts.unit,
        "num_records": facts.num_records,
        "num_used_records": facts.num_records - num_dropped,
        "num_dropped": num_dropped,
        f"num_{facts.unit}": facts.num_rows,
        "num_prompts": len(np.unique(facts.prompt_key)),
        "num_groups": len(np.unique(facts.group[facts.group >= 0])),
        "num_ties": facts.num_ties,
        **own,
        "dropped_by_reason": dict(dropped),
    }


def held_out(facts: Rows, share: float, named: str | None) -> Bools:
    """Say of each row whether it is held out: it is of the split that is `named`, or of a `share` of prompts."""
    if named is None:
        return np.asarray(facts.split_position < share)
    return np.asarray(facts.split == facts.split_names.index(named)) if named in facts.split_names else _none(facts)


def _none(facts: Rows) -> Bools:
    return np.zeros(facts.num_rows, np.bool_)


def shared(facts: Rows, words: Mapping[str, NDArray[Any]], share: float, named: str | None) -> dict[str, Any]:
    """Return what the report holds of judgements of any kind; `words` are the lengths of texts, by whose they are."""
    prompts, num_held = graph.clusters(facts.prompt_key), int(held_out(facts, share, named).sum())
    longest = max((int(values.max(initial=1)) for values in words.values()), default=1)
    edges = _word_edges(longest)
    numbers = np.array([1, 2, 3, 4, 6, 11, 21, 51, max(52, prompts.largest + 1)])
    sizes, nums = np.array(prompts.histogram, dtype=np.int64).reshape(-1, 2).T
    return {
        "words": {name: spread(values) for name, values in words.items()},
        "histograms": {
            "words": {"edges": edges.tolist()} | {name: in_bins(values, edges) for name, values in words.items()},
            f"{facts.unit}_per_prompt": {"edges": numbers.tolist(), "counts": in_bins(sizes, numbers, nums)},
        },
        "prompts": prompts.as_dict(),
        "licences": licences_of(facts),
        "split": {
            "heldout_share": None if named else share,
            f"num_train_{facts.unit}": facts.num_rows - num_held,
            f"num_heldout_{facts.unit}": num_held,
        },
        "given_splits": _named_counts(facts.split, facts.split_names),
    }


def lacking(facts: Rows, found: Mapping[str, Bools]) -> dict[str, Any]:
    """Return of each thing that an objective may need how many rows lack it, and where the first of them stands."""
    rows = {name: np.flatnonzero(is_lacking) for name, is_lacking in found.items()}
    return {
        name: {"num_lacking": len(some), "first": facts.place(some[0]) if len(some) else None}
        for name, some in rows.items()
    }


def in_bins(values: NDArray[Any], edges: NDArray[Any], weights: NDArray[np.int64] | None = None) -> list[int]:
    """Return how many values lie between each two edges."""
    found: list[int] = np.histogram(values, edges, weights=weights)[0].astype(np.int64).tolist()
    return found


def _word_edges(longest: int) -> NDArray[np.int64]:
    """Return edges that are the same for any data, four to a doubling, up to the first beyond the longest text."""
    ladder = 2.0 ** (np.arange(4 * longest.bit_length() + 1) / 4)
    edges = np.unique(np.concatenate([[0], ladder.astype(np.int64)]))
    return edges[: np.searchsorted(edges, longest, side="right") + 1]


def _named_counts(codes: NDArray[Any], names: Sequence[str]) -> dict[str, int]:
    counted = Counter(codes[codes >= 0].tolist())
    return {names[code]: count for code, count in counted.most_common()}
