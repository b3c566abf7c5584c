"""Completions that a row names instead of holding them: by a column, a side, a key, a place in a list, a model.

Owns what such a name is, and that a file whose chosen and rejected are names is read by what they name. A name that
is not surely told is asked about.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any

from tiebreak.data.formats.candidates import (
    MODELS,
    STEMS,
    TEXTS,
    completion,
    completions_of,
    names_of_sides,
    sides_of,
)
from tiebreak.data.formats.cells import shown
from tiebreak.data.formats.dialogues import CONVERSATIONS
from tiebreak.data.formats.form import Ambiguous, Format, Pairing, Reading, Row, RowError, as_options
from tiebreak.data.formats.guesses import PROMPTS, proposed_columns
from tiebreak.data.formats.naming import prompt_named
from tiebreak.data.formats.proportions import NEARLY_ALL
from tiebreak.data.formats.ratings import COMPLETIONS
from tiebreak.data.formats.verdicts import counter_of, is_number, place_named, replaced, side_of, word_of
from tiebreak.records import Message, Pair

Place = tuple[str, Any]
"""Where a completion stands in a row, and what stands there."""
_LISTS = frozenset((*COMPLETIONS, *(f"{stem}s" for stem in STEMS), "replies", "summaries", "items", "samples"))
"""Columns whose lists and objects hold completions, and not what is said of them."""
_IDS = ("id", "name", "label", "key", "model", "generator")


def completions_named(row: Row, names: tuple[Any, Any], first: int | None) -> tuple[Place, Place] | None:
    """Return the two completions of a row that two words name, None where they name none, or one and the same.

    `first` is the number with which places in lists begin, None where that is not known.
    """
    for named in _namings(dict(row), first):
        one, other = map(named, names)
        if one is not None and other is not None and one[0] != other[0]:
            return None if _are_asked(row, (one[1], other[1])) else (one, other)
    return None


def _are_asked(row: Row, texts: tuple[Any, Any]) -> bool:
    """Whether the prompt tells both texts, as it does the options of a test: there their letters are the answers."""
    asked = "\n".join(str(value) for name, value in dict(row).items() if name in (*PROMPTS, *CONVERSATIONS))
    return all(isinstance(text, str) and text in asked for text in texts)


def taken(row: Row, named: tuple[Place, Place]) -> tuple[Message, Message]:
    """Return two completions of a row, which notes that their columns are read."""
    for where, _ in named:
        row.get(where if where in row else where.partition(".")[0])
    (one, first), (other, second) = named
    return completion(first, one), completion(second, other)


def first_place(told: Sequence[tuple[Row, tuple[Any, Any]]]) -> int | None:
    """Return the number with which places in lists begin, by the numbers that rows name; None where it is not known."""
    seen = set()
    for row, names in told:
        lengths = [len(value) for name, value in row.items() if name.casefold() in _LISTS and isinstance(value, list)]
        numbers = [int(word_of(name)) for name in names if is_number(name) and word_of(name).isdecimal()]
        seen |= {0 for number in numbers if number == 0} | {1 for number in numbers if number in lengths}
    return seen.pop() if len(seen) == 1 else None


def _namings(row: Row, first: int | None) -> Iterator[Callable[[Any], Place | None]]:
    """Yield the ways in which a row's completions are named, the surest first."""
    yield partial(_column, row)
    sides, columns = sides_of(row), completions_of(row)
    if sides is not None and len(columns) == 2:
        yield partial(_side, row, sides, names_of_sides(row, sides))
    elif columns:
        yield partial(_among, columns, [(name, row[name]) for name in columns], None)
    for name, value in row.items():
        if name.casefold() in _LISTS and (places := _places_in(name, value)):
            labels = list(value) if isinstance(value, Mapping) else [_own_name(item) for item in value]
            yield partial(_among, labels, places, first)


def _column(row: Row, name: Any) -> Place | None:
    is_named = isinstance(name, str) and name not in ("chosen", "rejected") and name in row
    return (name, row[name]) if is_named and isinstance(row[name], str | list | Mapping) else None


def _side(row: Row, sides: tuple[str, str], words: Mapping[str, str], name: Any) -> Place | None:
    """Return the side that a word names; a text that is one of the two is no name."""
    if not isinstance(name, str | int) or isinstance(name, bool) or name in (row[sides[0]], row[sides[1]]):
        return None
    side = side_of(replaced(name, words))
    return None if side in (None, "tie") else (sides[side == "second"], row[sides[side == "second"]])


def _among(labels: Sequence[str], places: Sequence[Place], first: int | None, name: Any) -> Place | None:
    """Return the completion that a word names among several, by its label or its place; a text of one is no name."""
    if not isinstance(name, str | int) or isinstance(name, bool) or any(name == text for _, text in places):
        return None
    found = place_named(name, labels, first)
    return None if found is None else places[found]


def _places_in(column: str, value: Any) -> list[Place]:
    """Return the completions of a list or an object, [] where it holds something else."""
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    places = [(f"{column}.{key}", item) for key, item in items]
    return places if len(places) > 1 and all(_is_completion(item) for _, item in places) else []


def _own_name(item: Any) -> str:
    told = [item[key] for key in _IDS if item.get(key) is not None] if isinstance(item, Mapping) else []
    return str(told[0]) if told else ""


def _is_completion(value: Any) -> bool:
    inner = value[0] if isinstance(value, list) and len(value) == 1 else value
    return isinstance(value, str) or (isinstance(inner, Mapping) and not inner.keys().isdisjoint((*TEXTS, "value")))


# ---------------------------------------------------------------------------------------------- forms that hold texts


def by_name(form: Format, rows: Sequence[Row]) -> Format:
    """Return a form whose chosen and rejected texts are the completions that they name, where nearly all rows do so.

    Raises Ambiguous where they are names, and what they name cannot be known.
    """
    told: list[tuple[Row, tuple[Any, Any]]] = []
    num_texts = 0
    for row in rows:
        with suppress(RowError):
            if not form.matches(row):
                continue
            pairs = form.read(row, Pairing()).pairs
            if pairs and _is_offered(row, pairs[0], frozenset(dict(form.mapping).values())):
                told.append((row, _names_in(pairs[0])))
            else:
                num_texts += 1
        if num_texts > (1 - NEARLY_ALL) * len(rows):
            return form
    if not told or len(told) < NEARLY_ALL * (len(told) + num_texts):
        return form
    first = first_place(told)
    if sum(completions_named(row, names, first) is not None for row, names in told) < NEARLY_ALL * len(told):
        raise Ambiguous(_question(*told[0], len(told), prompt_named(form, [row for row, _ in told])))
    return replace(form, read=partial(_read_by_name, form, first), why=partial(_why_by_name, form, first))


def _names_in(pair: Pair) -> tuple[str, str]:
    return pair.chosen.content, pair.rejected.content


def _is_offered(row: Row, pair: Pair, mapped: frozenset[str]) -> bool:
    """Whether the row itself offers both texts of a pair as names, of completions or of models.

    Columns that are mapped hold what they are mapped as, whatever their names say of models.
    """
    names = _names_in(pair)
    if completions_named(row, names, 0) or completions_named(row, names, 1):
        return True
    objects = (value for name, value in row.items() if isinstance(value, Mapping) and _places_in(name, value))
    models = [row[name] for name in {*chain(*MODELS)} - mapped if isinstance(row.get(name), str)]
    if {word_of(name) for name in names} <= {word_of(word) for word in (*chain.from_iterable(objects), *models)}:
        return True
    start = proposed_columns(row)
    texts = [row.get(start.get(key, "")) for key in ("completion_a", "completion_b")]
    texts = [row[name] for name in completions_of(row)] or texts
    if None in texts or {*names} & {*map(str, texts)}:
        return False
    places = {word_of(name) if (place := counter_of(name)) is None else str(place) for name in names}
    return {*map(side_of, names)} == {"first", "second"} or (
        len(places) == 2 and places <= {*map(str, range(len(texts)))}
    )


def _question(row: Row, names: tuple[Any, Any], num_rows: int, prompt: Mapping[str, str]) -> str:
    """Return what is asked where names are found and not what they name; `prompt` is the mapping of the prompt."""
    own = {name: word_of(value) for name, value in row.items() if all(name not in both for both in MODELS)}
    columns = [next((name for name, word in own.items() if word == word_of(told)), "") for told in names]
    start = proposed_columns(row)
    start = {**prompt, **{ours: start[ours] for ours in ("completion_a", "completion_b") if ours in start}}
    way = f"where its completions have columns of their own: {as_options(start | {'winner': columns[0]})}; else write"
    return (
        f"{' and '.join(repr(name) for name in columns if name)} hold names such as {shown(names[0])} and "
        f"{shown(names[1])} in {num_rows} rows, no texts, and what these name is not sure: "
        f"{way if 'completion_a' in start else 'write'} the texts in their place"
    )


def _read_by_name(form: Format, first: int | None, row: Row, pairing: Pairing) -> Reading:
    reading = form.read(row, pairing)
    return replace(reading, pairs=tuple(_with_texts(pair, row, first) for pair in reading.pairs))


def _with_texts(pair: Pair, row: Row, first: int | None) -> Pair:
    named = completions_named(row, _names_in(pair), first)
    if named is None:
        raise RowError(
            "wrong_type",
            f"{shown(pair.chosen.content)} and {shown(pair.rejected.content)} name no two "
            "completions of the row, as in the rows before",
        )
    chosen, rejected = taken(row, named)
    return replace(pair, chosen=chosen, rejected=rejected)


def _why_by_name(form: Format, first: int | None, row: Row) -> str:
    named = completions_named(row, _names_in(form.read(row, Pairing()).pairs[0]), first)
    return f"chosen names {named[0][0]}" if named else ""
