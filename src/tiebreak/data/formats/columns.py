"""Rows whose columns have other names: which column is which, as the user says it or as it was guessed.

Owns the names that a mapping may use and which of them together make a pair. It knows no shape of its own: a mapped
row becomes one in our own names, and the form for that reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from tiebreak.data.formats.annotations import annotated, origin_of
from tiebreak.data.formats.form import Format, Pairing, Reading, Row, RowError
from tiebreak.data.formats.pairs import TRL
from tiebreak.data.formats.pieces import keys_of, prompt_messages, text_of, with_system
from tiebreak.data.formats.rankings import RANKING
from tiebreak.data.formats.ratings import RATINGS
from tiebreak.data.formats.thumbs import THUMBS
from tiebreak.data.formats.votes import VOTES
from tiebreak.errors import nearest

PROMPT_KEYS = ("prompt", "input", "system", "tools")
SIDE_KEYS = (
    "chosen_score", "rejected_score", "margin", "weight", "soft_label", "annotator", "group", "split", "dataset",
    "licence",
)  # fmt: skip


@dataclass(frozen=True)
class Combination:
    """Our names that together hold a judgement, and the form that reads them under these names."""

    keys: tuple[str, ...]
    form: Format


COMBINATIONS = (
    Combination(("chosen", "rejected"), TRL),
    Combination(("completions", "scores"), RATINGS),
    Combination(("completions", "ranking"), RANKING),
    Combination(("completion_a", "completion_b", "votes"), VOTES),
    Combination(("completion_a", "completion_b", "winner"), VOTES),
    Combination(("completion_a", "completion_b", "a_is_better"), VOTES),
    Combination(("completion", "label"), THUMBS),
)
KEYS = tuple(
    dict.fromkeys((*PROMPT_KEYS, *(key for combination in COMBINATIONS for key in combination.keys), *SIDE_KEYS))
)


def columns_form(mapping: Mapping[str, str]) -> Format:
    """Return the form that reads rows by a mapping of our names (`KEYS`) to columns.

    A dot reaches into an object or, with a number, into a list (`meta.score`, `answers.0`); a column of the very name
    comes first. Raises ValueError where a name is unknown or the names make no pair.
    """
    for key, column in mapping.items():
        if key not in KEYS:
            raise ValueError(f"columns: '{key}' is not known; choose from {', '.join(KEYS)}.{nearest(key, KEYS)}")
        if not column:
            raise ValueError(f"columns: '{key}' is the name of a column, found nothing")
    combination = next((item for item in COMBINATIONS if set(item.keys) <= mapping.keys()), None)
    if combination is None:
        raise ValueError(f"columns: {_what_is_missing(mapping)}")
    over = [key for key in mapping if key not in (*PROMPT_KEYS, *SIDE_KEYS, *combination.keys)]
    if over:
        raise ValueError(f"columns: '{over[0]}' has no place beside {' and '.join(map(repr, combination.keys))}")
    if "prompt" not in mapping and combination.form is not TRL:
        raise ValueError("columns: 'prompt' is missing")
    named = ", ".join(f"{key}={column}" for key, column in mapping.items())
    example = "{" + ", ".join(f'"{column}": …' for column in mapping.values()) + "}"
    read = partial(_read_mapped, tuple(mapping.items()), combination)
    return Format("columns", f"columns: {named}", example, _is_row, read)


def _what_is_missing(mapping: Mapping[str, str]) -> str:
    """Name what the nearest combination still needs."""
    begun = [item for item in COMBINATIONS if mapping.keys() & set(item.keys)]
    if not begun:
        ways = "; ".join(" + ".join(item.keys) for item in COMBINATIONS)
        return f"no pair in {', '.join(mapping) or 'an empty mapping'}; one of these is needed: {ways}"
    best = max(begun, key=lambda item: len(mapping.keys() & set(item.keys)))
    stated = [key for key in best.keys if key in mapping]
    others = {key for item in begun for key in item.keys if set(stated) <= set(item.keys)} - mapping.keys()
    missing = [key for key in KEYS if key in others]
    return f"{' and '.join(map(repr, stated))} need {' or '.join(map(repr, missing))} to make a pair"


def _is_row(row: Row) -> bool:
    return isinstance(row, Mapping)


def _read_mapped(items: tuple[tuple[str, str], ...], combination: Combination, row: Row, pairing: Pairing) -> Reading:
    found = {key: _value(row, column) for key, column in items}
    for key, column in items:
        if found[key] is _ABSENT and key not in SIDE_KEYS and key not in PROMPT_KEYS[1:]:
            raise RowError("wrong_format", f"no column '{column}' for '{key}'; keys {keys_of(row)}")
    known = {key: value for key, value in found.items() if value is not _ABSENT}
    reading = combination.form.read(_canonical(known), pairing)
    pairs = tuple(annotated(pair, known) for pair in reading.pairs)
    thumbs = tuple(replace(thumb, origin=origin_of(known)) for thumb in reading.thumbs)
    return Reading(pairs, thumbs, reading.num_ties)


class _Absent:
    """What a row has where it does not have a column; null is a value."""


_ABSENT = _Absent()


def _value(row: Any, path: str) -> Any:
    """Return what stands under a column name, or under its parts between dots."""
    if isinstance(row, Mapping) and path in row:
        return row[path]
    first, dot, rest = path.partition(".")
    if isinstance(row, Mapping) and first in row:
        inner = row[first]
    elif isinstance(row, list) and first.isdecimal() and len(first) < 10 and int(first) < len(row):
        inner = row[int(first)]
    else:
        return _ABSENT
    return _value(inner, rest) if dot else inner


def _canonical(known: Row) -> dict[str, Any]:
    """Return the row in our own names: the whole prompt as messages, and verdicts in words that say one thing only."""
    row = {key: value for key, value in known.items() if key not in (*SIDE_KEYS, "input", "system", "a_is_better")}
    prompt, extra = known.get("prompt"), known.get("input")
    if prompt is not None:
        if extra is not None and extra != "":
            prompt = f"{text_of(prompt, 'prompt')}\n{text_of(extra, 'input')}"
        messages = with_system(known.get("system"), prompt_messages(prompt))
        row["prompt"] = [message.as_dict() for message in messages]
    elif "system" in known:
        row["system"] = known["system"]
    if "a_is_better" in known:
        told = known["a_is_better"]
        said = told.strip().casefold() if isinstance(told, str) else told
        if not isinstance(said, str | int | float) or said not in _WINNERS:
            raise RowError("wrong_type", "'a_is_better' is true or false, 1 or 0")
        row["winner"] = _WINNERS[said]
    if isinstance(known.get("label"), int | float) and known["label"] in (0, 1):
        row["label"] = bool(known["label"])
    return row


_WINNERS: dict[str | float, str] = {0: "b", 1: "a", "0": "b", "1": "a", "false": "b", "true": "a"}
