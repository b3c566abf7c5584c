"""Rows whose columns have other names: which column is which, as the user says it or as it was guessed.

Owns the names that a mapping may use, which of them together make a pair, and how a column is pointed at. It knows no
shape of its own: a mapped row becomes one in our own names, and the form for that reads it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from tiebreak.data.formats.annotations import annotated, number, origin_of, weight_of
from tiebreak.data.formats.candidates import are_turned, counts_from, names_of_sides
from tiebreak.data.formats.cells import keys_of, shown, text_of
from tiebreak.data.formats.doubts import as_said, refuse_words
from tiebreak.data.formats.form import Ambiguous, Format, Pairing, Reading, Row, RowError, as_options
from tiebreak.data.formats.messages import SYSTEM_ROLES
from tiebreak.data.formats.pairs import TRL
from tiebreak.data.formats.pieces import history_of, prompt_messages, with_system
from tiebreak.data.formats.rankings import RANKING
from tiebreak.data.formats.ratings import RATED, RATINGS
from tiebreak.data.formats.strengths import HELPSTEER
from tiebreak.data.formats.tallies import JUDGES, refuse_objects, refuse_worse
from tiebreak.data.formats.thumbs import THUMBS, refuse_scale
from tiebreak.data.formats.verdicts import replaced, side_of, word_of
from tiebreak.data.formats.votes import VOTES, told_votes
from tiebreak.errors import nearest
from tiebreak.records import Message

PROMPT_KEYS = ("prompt", "input", "system", "tools", "history", "prefix")
SIDE_KEYS = (
    "chosen_score", "rejected_score", "margin", "weight", "soft_label", "chosen_win_rate", "rejected_win_rate",
    "annotator", "group", "split", "dataset", "licence",
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
    Combination(("completions", "order"), RANKING),
    Combination(("completion_a", "completion_b", "votes"), VOTES),
    Combination(("completion_a", "completion_b", "winner"), VOTES),
    Combination(("completion_a", "completion_b", "a_is_better"), VOTES),
    Combination(("completion_a", "completion_b", "strength"), HELPSTEER),
    Combination(("completion_a", "completion_b", "score_a", "score_b"), RATINGS),
    Combination(("completion", "label"), THUMBS),
    Combination(("completion", "score"), RATED),
)
KEYS = tuple(
    dict.fromkeys((*PROMPT_KEYS, *(key for combination in COMBINATIONS for key in combination.keys), *SIDE_KEYS))
)
# What the words of a verdict's column stand for, told as `winner.first=WORD`; `|` stands between several words.
MEANINGS = {
    "winner": {"first": "a", "second": "b", "tie": "tie"},
    "votes": {"first": "a", "second": "b", "tie": "tie"},
    "a_is_better": {"yes": "true", "no": "false"},
    "label": {"yes": "true", "no": "false"},
}
CONSTANT = "="
"""Begins a value that is no column: the text after it, for every row."""


def columns_form(mapping: Mapping[str, str]) -> Format:
    """Return the form that reads rows by a mapping of our names (`KEYS`) to columns.

    A dot reaches into an object or, with a number, into a list (`meta.score`, `answers.0`), a star takes every item of
    a list (`answers.*.text`); a column of the very name comes first. `=text` is a constant. `winner.first=0` says what
    a word in the column of `winner` stands for (`MEANINGS`). Raises ValueError where a name is unknown or the names
    make no pair.
    """
    known = (*KEYS, *(f"{key}.{meaning}" for key, meanings in MEANINGS.items() for meaning in meanings))
    for key, column in mapping.items():
        if key not in known:
            raise ValueError(f"columns: '{key}' is not known; choose from {', '.join(KEYS)}.{nearest(key, known)}")
        if not column:
            raise ValueError(f"columns: '{key}' is the name of a column, found nothing")
        whole = key.partition(".")[0]
        if whole not in mapping:
            raise ValueError(
                f"columns: '{key}' says what a word in the column of '{whole}' means, and no column is named"
            )
    named = {key: column for key, column in mapping.items() if key in KEYS}
    combination = next((item for item in COMBINATIONS if set(item.keys) <= named.keys()), None)
    if combination is None:
        raise ValueError(f"columns: {_what_is_missing(named)}")
    over = [key for key in named if key not in (*PROMPT_KEYS, *SIDE_KEYS, *combination.keys)]
    if over:
        raise ValueError(f"columns: '{over[0]}' has no place beside {' and '.join(map(repr, combination.keys))}")
    if "prompt" not in named:
        if combination.form is not TRL:
            raise ValueError("columns: 'prompt' is missing")
        if lost := [key for key in ("input", "history") if key in named]:
            raise ValueError(f"columns: '{lost[0]}' stands beside a 'prompt', and none is named")
    mapped = Mapped(tuple(named.items()), _words_of(mapping), combination)
    title = ", ".join(f"{key}={column}" for key, column in mapping.items())
    example = "{" + ", ".join(f'"{column}": …' for column in named.values() if column[:1] != CONSTANT) + "}"
    settle, why = partial(_settled, mapped), partial(_why, mapped)
    read, items = partial(_read_mapped, mapped), tuple(mapping.items())
    return Format("columns", f"columns: {title}", example, _is_row, read, settle, why, mapping=items)


@dataclass(frozen=True)
class Mapped:
    """A mapping that makes pairs: which column is what, and what the words of verdicts stand for."""

    items: tuple[tuple[str, str], ...]
    words: Mapping[str, Mapping[str, str]]
    """Of a verdict's key, our word for each of the user's."""
    combination: Combination

    @property
    def verdict(self) -> str | None:
        """The key of the verdict, where the combination has one whose words may differ."""
        return next((key for key in self.combination.keys if key in MEANINGS), None)


def _words_of(mapping: Mapping[str, str]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for key, meanings in MEANINGS.items():
        for meaning, ours in meanings.items():
            for word in mapping.get(f"{key}.{meaning}", "").split("|"):
                if not word:
                    continue
                if word_of(word) in found.setdefault(key, {}):
                    raise ValueError(f"columns: '{word}' is said twice of '{key}'")
                found[key][word_of(word)] = ours
    return found


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


def _read_mapped(mapped: Mapped, row: Row, pairing: Pairing) -> Reading:
    found = {key: _value(row, column) for key, column in mapped.items}
    for key, column in mapped.items:
        if found[key] is _ABSENT and key not in SIDE_KEYS and key not in PROMPT_KEYS[1:]:
            raise RowError("wrong_format", f"no column '{column}' for '{key}'; keys {keys_of(row)}")
    known = {key: value for key, value in found.items() if value is not _ABSENT}
    reading = mapped.combination.form.read(_canonical(mapped, known, row), pairing)
    begun = text_of(known["prefix"], "prefix") if known.get("prefix") else ""

    def whole(said: Message) -> Message:
        return replace(said, content=begun + said.content) if begun else said

    return Reading(
        tuple(
            replace(annotated(pair, known), chosen=whole(pair.chosen), rejected=whole(pair.rejected))
            for pair in reading.pairs
        ),
        tuple(
            replace(one, completion=whole(one.completion), origin=origin_of(known), weight=weight_of(known))
            for one in reading.thumbs
        ),
        tuple(replace(one, completion=whole(one.completion), origin=origin_of(known)) for one in reading.rated),
        reading.num_ties,
    )


class _Absent:
    """What a row has where it does not have a column; null is a value."""


_ABSENT = _Absent()


def _value(row: Any, path: str) -> Any:
    """Return what stands under a column name, or under its parts between dots; a constant as it is."""
    if isinstance(row, Mapping) and path in row:
        return row[path]
    if path[:1] == CONSTANT:
        return path[1:]
    if isinstance(row, str) and row[:1] in ("{", "["):  # JSON text that a table holds in one cell
        try:
            row = json.loads(row)
        except (ValueError, RecursionError):
            return _ABSENT
    first, dot, rest = path.partition(".")
    if first == "*" and isinstance(row, list):
        inner = [_value(item, rest) if dot else item for item in row]
        return [None if item is _ABSENT else item for item in inner]
    if isinstance(row, Mapping) and first in row:
        inner = row[first]
    elif isinstance(row, list) and first.isdecimal() and len(first) < 10 and int(first) < len(row):
        inner = row[int(first)]
    else:
        return _ABSENT
    return _value(inner, rest) if dot else inner


def _canonical(mapped: Mapped, known: Row, row: Row) -> dict[str, Any]:
    """Return the row in our own names: the whole prompt as messages, and verdicts in words that say one thing only."""
    own = (*SIDE_KEYS, "input", "system", "history", "prefix", "a_is_better", "score_a", "score_b", "strength")
    made = {key: value for key, value in known.items() if key not in own}
    prompt, extra = known.get("prompt"), known.get("input")
    if prompt is not None:
        messages = prompt_messages(prompt)
        told = sum(message.role in SYSTEM_ROLES for message in messages[:1])
        messages = [*messages[:told], *history_of(known.get("history")), *messages[told:]]
        if extra is not None and not (isinstance(extra, str) and not extra.strip()):
            if messages[-1].role != "user":
                raise RowError(
                    "wrong_type", "'input' goes on below a message of the user, and the prompt ends otherwise"
                )
            below = f"{messages[-1].content}\n{text_of(extra, 'input')}"
            messages[-1] = replace(messages[-1], content=below)
        made["prompt"] = [message.as_dict() for message in with_system(known.get("system"), messages)]
    elif "system" in known:
        made["system"] = known["system"]
    if "strength" in known:
        made["preference_strength"] = known["strength"]
    if "order" in known:
        made["ranking"] = _ranks_of(made.pop("order"))
    if "score_a" in known:
        made["completions"] = [made.pop("completion_a"), made.pop("completion_b")]
        made["scores"] = [known["score_a"], known["score_b"]]
    key = mapped.verdict
    if key is not None and key in known:
        made |= _verdict(mapped, key, known[key], row)
    return made


def _ranks_of(order: Any) -> list[int]:
    """Return the rank of each completion, of places in the list, the best first; they count from 0 or from 1."""
    places = [int(place) for place in order if word_of(place).isdecimal()] if isinstance(order, list) else []
    first = min(places, default=0)
    if not places or sorted(places) != list(range(first, first + len(places))) or first > 1:
        raise RowError("wrong_type", f"'order' is the place of each completion, the best first; found {shown(order)}")
    return [places.index(place + first) for place in range(len(places))]


def _verdict(mapped: Mapped, key: str, value: Any, row: Row) -> dict[str, Any]:
    """Return a verdict under the key and in the words of the form that reads it.

    What the user says of a word comes first, then the names of the columns and of the models that they are of.
    """
    stated = mapped.words.get(key, {})
    said = replaced(value, stated, JUDGES)
    told = [vote for vote, *_ in told_votes({"votes": said}, "votes")]
    if stated and (unknown := [word for word in told if word not in stated.values()]):
        raise RowError("wrong_type", f"'{key}' is one of {', '.join(map(repr, stated))}; found {shown(unknown[0])}")
    if key in ("winner", "votes"):
        return {key: said if stated else replaced(said, names_of_sides(row, _sides(mapped)), JUDGES)}
    is_yes = _YES_NO.get(word_of(said))
    if key == "a_is_better" and is_yes is None:
        raise RowError(
            "wrong_type", f"'{key}' is true or false, 1 or 0; found {shown(said)} ({key}.yes=WORD says others)"
        )
    if key == "a_is_better":
        return {"winner": "a" if is_yes else "b"}
    return {"label": said if is_yes is None else is_yes}


_YES_NO = {"0": False, "1": True, "false": False, "true": True}


def _sides(mapped: Mapped) -> tuple[str, str]:
    columns = dict(mapped.items)
    return columns["completion_a"], columns["completion_b"]


def _settled(mapped: Mapped, form: Format, rows: Sequence[Row]) -> Format:
    """Refuse columns that no row has, and numbers of which nobody said what they mean."""
    for ours, theirs in mapped.items:
        if rows and theirs[:1] != CONSTANT and all(_value(row, theirs) is _ABSENT for row in rows):
            raise Ambiguous(f"no column '{theirs}' for '{ours}' in the first {len(rows)} rows; keys {keys_of(rows[0])}")
    key = mapped.verdict
    columns = dict(mapped.items)
    others = {name: column for name, column in columns.items() if name != key}
    if key == "label" and not mapped.words.get(key):
        labels = [value for row in rows if (value := _value(row, columns[key])) is not _ABSENT]
        refuse_scale(columns[key], labels, others)
    if key not in ("winner", "votes"):
        return form
    told = [(_value(row, columns[key]), names_of_sides(row, _sides(mapped))) for row in rows]
    refuse_objects(columns[key], others, told, voted=key == "votes")
    if mapped.words.get(key):
        return form
    verdicts = [(vote, words) for value, words in told for vote, *_ in told_votes({"votes": value}, "votes")]
    one, two = _sides(mapped)
    bare = [vote for vote, words in verdicts if side_of(vote) in ("first", "second") and word_of(vote) not in words]
    if bare and are_turned((one, two)):
        ahead = as_options(columns | {"completion_a": two, "completion_b": one})
        raise Ambiguous(
            f"'{columns[key]}' holds words such as {shown(bare[0])}, which may be for a column by its name, or "
            f"for '{one}', which is named as the first. For columns by their names: {ahead}; for the order in which "
            f"they are named: {as_said(columns, verdicts)}"
        )
    refuse_worse(columns[key], columns, verdicts)
    refuse_words(columns[key], others, verdicts, counts_from((one, two)))
    return form


def _why(mapped: Mapped, row: Row) -> str:
    key = mapped.verdict or mapped.combination.keys[-1]
    column = dict(mapped.items).get(key, "")
    told = _value(row, column)
    if mapped.combination.form is TRL:
        return f"chosen is the column {dict(mapped.items)['chosen']}"
    if mapped.combination.form is HELPSTEER:
        return f"{column} {shown(told)}: below zero the first is better" if number(told) is not None else ""
    return f"{column} {shown(told)} ({key})"
