"""The numbers behind the findings: lengths, shortcuts, agreement, label noise, spread over prompts.

Owns what is measured and how it is told in the report. Pure: facts in, numbers out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiebreak.doctor.facts import Facts
from tiebreak.doctor.labels import graph
from tiebreak.doctor.labels.agreement import Alpha, Ratings, cohen, fleiss, krippendorff, rating_table
from tiebreak.doctor.labels.annotators import Annotators, annotator_reliability
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
from tiebreak.doctor.labels.shortcut import Shortcut, TooFew, find_shortcuts
from tiebreak.doctor.report import rounded, spread
from tiebreak.doctor.texts.features import NAMES
from tiebreak.doctor.texts.vocabulary import word_differences
from tiebreak.records import FACTS

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Measured:
    """What findings and report both need."""

    shortcut: Shortcut | TooFew
    ratings: Ratings | None
    alpha: Alpha | None
    annotators: Annotators | None
    licences: Mapping[str, int]


def measure(facts: Facts) -> Measured:
    """Measure shortcuts, agreement and licences of all pairs."""
    shortcut = find_shortcuts(facts.features, NAMES, clusters_of(facts), length=NAMES.index("log_length"))
    ratings = None
    if len(facts.vote_item):
        ratings = rating_table(facts.vote_item, facts.vote_annotator, facts.vote_value)
    several = ratings is not None and len(ratings.items) > ratings.num_items
    return Measured(
        shortcut,
        ratings,
        krippendorff(ratings) if ratings is not None and several else None,
        annotator_reliability(ratings) if ratings is not None and several and len(ratings.names) else None,
        _named_counts(facts.licence, facts.licence_names),
    )


def noise_of(facts: Facts, rows: Ints, texts: Sequence[tuple[str, str]]) -> LabelNoise:
    """Estimate the share of flipped labels; `rows` are the pairs whose completions `texts` are (chosen, rejected)."""
    clusters, margins = clusters_of(facts)[rows], None
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


def clusters_of(facts: Facts) -> NDArray[np.uint64]:
    """Return what may not be on both sides of a split: the group where one is stated, else the prompt."""
    groups = facts.group.astype(np.int64).astype(np.uint64)
    return np.where(facts.group >= 0, groups, facts.prompt_key)


def _named_counts(codes: NDArray[Any], names: Sequence[str]) -> dict[str, int]:
    counted = Counter(codes[codes >= 0].tolist())
    return {names[code]: count for code, count in counted.most_common()}


# --------------------------------------------------------------------------------------------------------- for reports


def counts(facts: Facts, lost: Mapping[int, str]) -> dict[str, Any]:
    """Return the counts that head the report: records = used + dropped.

    `lost` are the pairs that a model cannot take, with the reason; a record all of whose pairs are lost is dropped.
    """
    dropped = Counter(facts.num_dropped)
    if lost:
        starts, usable = facts.record_starts, np.ones(facts.num_pairs, np.bool_)
        usable[list(lost)] = False
        dropped.update(lost[row] for row in starts[~np.logical_or.reduceat(usable, starts)].tolist())
    num_dropped = dropped.total()
    duplicates = graph.duplicates(facts.prompt_key, facts.chosen_key, facts.rejected_key)
    return {
        "num_records": facts.num_records,
        "num_used_records": facts.num_records - num_dropped,
        "num_dropped": num_dropped,
        "num_pairs": facts.num_pairs,
        "num_prompts": len(np.unique(facts.prompt_key)),
        "num_groups": len(np.unique(facts.group[facts.group >= 0])),
        "num_ties": facts.num_ties,
        "num_duplicates": len(duplicates),
        "dropped_by_reason": dict(dropped),
    }


def measurements(
    facts: Facts, measured: Measured, noise: LabelNoise, share: float, named: str | None
) -> dict[str, Any]:
    """Return everything else that the report holds; `named` is the split that is held out in place of a `share`."""
    prompts = graph.clusters(facts.prompt_key)
    given = _named_counts(facts.split, facts.split_names)
    held = given.get(named, 0) if named else int((facts.split_position < share).sum())
    longer = facts.chosen_characters > facts.rejected_characters
    return {
        "words": {side: spread(getattr(facts, f"{side}_words")) for side in ("prompt", "chosen", "rejected")},
        "histograms": _histograms(facts, prompts),
        "chosen_longer_share": round(float(longer.mean()), 4) if facts.num_pairs else 0.0,
        "shortcut": measured.shortcut.as_dict(),
        "agreement": _agreement(measured, facts.annotator_names),
        "label_noise": noise.as_dict(),
        "prompts": prompts.as_dict(),
        "licences": dict(measured.licences),
        "split": {
            "heldout_share": None if named else share,
            "num_train_pairs": facts.num_pairs - held,
            "num_heldout_pairs": held,
        },
        "given_splits": given,
        "stated": _stated(facts),
    }


def _stated(facts: Facts) -> dict[str, Any]:
    """Return of each thing that an objective may need how many pairs lack it, and where the first of them stands."""
    lacking = {name: np.isnan(getattr(facts, name)) for name in FACTS}
    lacking["margin_above_zero"] = ~(facts.margin > 0)
    lacking["weight_of_one"] = facts.weight != 1
    found = {}
    for name, is_lacking in lacking.items():
        rows = np.flatnonzero(is_lacking)
        first = f"{facts.file_names[facts.file[rows[0]]]}:{facts.line[rows[0]]}" if len(rows) else None
        found[name] = {"num_lacking": len(rows), "first": first}
    return found


def _histograms(facts: Facts, prompts: graph.Clusters) -> dict[str, Any]:
    sides = {side: getattr(facts, f"{side}_words") for side in ("prompt", "chosen", "rejected")}
    longest = max((int(values.max(initial=1)) for values in sides.values()), default=1)
    words = np.unique(np.concatenate([[0], np.geomspace(1, longest + 1, 24).astype(np.int64)]))
    ratio = np.log2((facts.chosen_words + 1) / (facts.rejected_words + 1))
    halves = np.linspace(-4, 4, 33)
    margins = facts.margin[~np.isnan(facts.margin)]
    margin = None
    if len(margins):
        low, high = float(margins.min()), float(margins.max())
        # Margins that are all but equal, as 32-bit scores with one step, have no room for 30 bins between them.
        room = 1e-3 * max(1.0, abs(low), abs(high)) if high - low <= 1e-6 * max(abs(low), abs(high)) else 0.0
        steps = np.linspace(low - room, high + room, 31)
        margin = {"edges": steps.tolist(), "counts": _counted(margins, steps)}
    numbers = np.array([1, 2, 3, 4, 6, 11, 21, 51, max(52, prompts.largest + 1)])
    sizes, nums = np.array(prompts.histogram, dtype=np.int64).reshape(-1, 2).T
    return {
        "words": {"edges": words.tolist()} | {side: _counted(values, words) for side, values in sides.items()},
        "length_difference": {"edges": halves.tolist(), "counts": _counted(np.clip(ratio, -4, 4), halves)},
        "margin": margin,
        "pairs_per_prompt": {"edges": numbers.tolist(), "counts": _counted(sizes, numbers, nums)},
    }


def _counted(values: NDArray[Any], edges: NDArray[Any], weights: NDArray[np.int64] | None = None) -> list[int]:
    found: list[int] = np.histogram(values, edges, weights=weights)[0].astype(np.int64).tolist()
    return found


def _agreement(measured: Measured, names: Sequence[str]) -> dict[str, Any] | None:
    ratings, alpha, people = measured.ratings, measured.alpha, measured.annotators
    if ratings is None:
        return None
    by_item = ratings.counts()
    return {
        "num_annotators": len(ratings.names),
        "num_items": ratings.num_items,
        "num_votes": len(ratings.items),
        "num_tie_votes": int(by_item[:, np.isclose(ratings.values, 0.5)].sum()),
        "unanimous_share": round(float((by_item.max(axis=1) == by_item.sum(axis=1)).mean()), 4),
        **(alpha.as_dict() if alpha else dict.fromkeys(("krippendorff_alpha", "low", "high"))),
        "fleiss_kappa": rounded(fleiss(ratings)),
        "cohen_kappa": cohen(ratings).as_rows(names) if len(ratings.names) else [],
        "annotators": people.as_rows(names) if people is not None else [],
    }
