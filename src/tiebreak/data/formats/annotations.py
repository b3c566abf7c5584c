"""Columns that stand beside a pair in any form: scores, strength, weight, soft label, annotator, split, group, source.

Owns their names. A column of the wrong type is left out: it may mean something else in that file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from tiebreak.data.formats.cells import kind_of, value_in
from tiebreak.data.formats.form import Row, RowError
from tiebreak.data.formats.proportions import NEARLY_ALL
from tiebreak.records import Origin, Pair, Preference, Vote

NUMBERS: dict[str, tuple[str, ...]] = {
    "chosen_score": (
        "chosen_score", "score_chosen", "chosen_rating", "chosen-rating", "rating_chosen", "chosen_avg_rating",
    ),
    "rejected_score": (
        "rejected_score", "score_rejected", "rejected_rating", "rejected-rating", "rating_rejected",
        "rejected_avg_rating",
    ),
    "margin": ("margin", "score_margin", "preference_margin"),
    "weight": ("weight", "sample_weight", "pair_weight"),
    "soft_label": ("soft_label", "preference_probability", "p_chosen"),
    "chosen_win_rate": ("chosen_win_rate", "win_rate_chosen"),
    "rejected_win_rate": ("rejected_win_rate", "win_rate_rejected"),
}  # fmt: skip
TEXTS: dict[str, tuple[str, ...]] = {
    "dataset": ("dataset", "source_dataset", "dataset_name", "source"),
    "licence": ("licence", "license"),
    "split": ("split",),
    "group": ("group", "group_id", "cluster", "cluster_id"),
}
ANNOTATORS = ("annotator", "annotator_id", "rater", "rater_id", "worker_id")
PREFERENCE_FIELDS = frozenset(field.name for field in fields(Preference))
ORIGIN_FIELDS = frozenset(field.name for field in fields(Origin))
LONGEST_NAME = 200
_JUDGEMENTS = frozenset((*ANNOTATORS, *(column for columns in NUMBERS.values() for column in columns)))
_ORIGINS = frozenset(column for columns in TEXTS.values() for column in columns)


def annotated(pair: Pair, row: Row) -> Pair:
    """Return the pair with what the row says beside it; what the form itself has read stays."""
    columns = row.keys()
    if not columns.isdisjoint(_ORIGINS):
        pair = replace(pair, origin=_origin(pair.origin, row))
    if columns.isdisjoint(_JUDGEMENTS):
        return pair
    known = pair.preference
    found = {name: number(value_in(row, names)) for name, names in NUMBERS.items() if _is_default(known, name)}
    stated: dict[str, Any] = {name: value for name, value in found.items() if value is not None}
    if stated.get("weight", 1.0) < 0:
        del stated["weight"]
    for share in ("soft_label", "chosen_win_rate", "rejected_win_rate"):
        if not 0 <= stated.get(share, 0.5) <= 1:
            del stated[share]
    if "margin" not in stated and known.margin is None and stated.keys() & {"chosen_score", "rejected_score"}:
        scores = replace(known, **stated)
        if scores.chosen_score is not None and scores.rejected_score is not None:
            margin = scores.chosen_score - scores.rejected_score
            if math.isfinite(margin):
                stated["margin"] = margin
    annotator = _text(value_in(row, ANNOTATORS))
    if annotator is not None and not known.votes:
        stated["votes"] = (Vote("chosen", annotator),)
    return replace(pair, preference=replace(known, **stated))


def columns_beside(row: Row) -> set[str]:
    """Return the columns beside the judgement that hold what their name says."""
    numbers = (name for names in NUMBERS.values() for name in names if number(row.get(name)) is not None)
    texts = (name for names in (*TEXTS.values(), ANNOTATORS) for name in names if _text(row.get(name)) is not None)
    return {*numbers, *texts}


def names_that_are_texts(rows: Sequence[Row]) -> frozenset[str]:
    """Return the columns of an origin that hold texts: another one in nearly every row, each of several words."""
    found = set()
    for name in _ORIGINS:
        told = [value for row in rows if isinstance(value := row.get(name), str)]
        are_texts = sum(len(value.split()) >= _WORDS for value in told) >= NEARLY_ALL * len(told)
        if len(told) >= _ENOUGH and len(set(told)) >= NEARLY_ALL * len(told) and are_texts:
            found.add(name)
    return frozenset(found)


_ENOUGH, _WORDS = 8, 3
"""Rows from which it is told, words of a text."""


def origin_of(row: Row) -> Origin:
    """Return where the row says that it comes from."""
    return _origin(Origin(), row)


def weight_of(row: Row) -> float:
    """Return the weight that the row states beside a completion on its own, 1 where it states none."""
    found = number(value_in(row, NUMBERS["weight"]))
    return 1.0 if found is None or found < 0 else found


def number(value: Any) -> float | None:
    """Return a finite number, told as one or as text (as in CSV), or None; true and false are no numbers."""
    if isinstance(value, str) and (len(value) > 40 or "_" in value):  # Python itself would read 1_000
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def stated_preference(value: Row) -> Preference:
    """Return the preference that `Preference.as_dict` wrote, or raise RowError."""
    found = {name: item for name, item in value.items() if item is not None}
    votes = found.pop("votes", [])
    if not isinstance(votes, list) or not all(isinstance(vote, Mapping) for vote in votes):
        raise RowError("wrong_type", f"'preference.votes' is a list of objects, found {kind_of(votes)}")
    for name, item in found.items():
        if isinstance(item, bool) or not isinstance(item, int | float):
            raise RowError("wrong_type", f"'preference.{name}' is a number, found {kind_of(item)}")
    cast = []
    for vote in votes:
        choice, annotator = vote.get("choice"), vote.get("annotator", "")
        if choice not in ("chosen", "rejected", "tie") or not isinstance(annotator, str):
            raise RowError("wrong_type", "a vote has a choice (chosen, rejected, tie) and an annotator, which is text")
        cast.append(Vote(choice, annotator))
    try:
        return Preference(**found, votes=tuple(cast))
    except (ValueError, OverflowError) as error:
        raise RowError("wrong_type", f"'preference': {error}") from None


def stated_origin(value: Row) -> Origin:
    """Return the origin that `Origin.as_dict` wrote, or raise RowError."""
    found = {name: item for name, item in value.items() if item is not None}
    for name, item in found.items():
        if not isinstance(item, str):
            raise RowError("wrong_type", f"'origin.{name}' is text, found {kind_of(item)}")
    return Origin(**found)


def _origin(known: Origin, row: Row) -> Origin:
    found = {name: _text(value_in(row, columns)) for name, columns in TEXTS.items() if _is_default(known, name)}
    stated = {name: value for name, value in found.items() if value is not None}
    return replace(known, **stated) if stated else known


def _is_default(known: Preference | Origin, name: str) -> bool:
    return bool(getattr(known, name) == (1.0 if name == "weight" else None))


def _text(value: Any) -> str | None:
    """Return a name: a number, or one short line of text (a longer one is a document, not a name).

    A whole number stays one where a gap in its column has made it 3.0, as pandas does.
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    text = str(value).strip()
    return text if 0 < len(text) <= LONGEST_NAME and "\n" not in text else None
