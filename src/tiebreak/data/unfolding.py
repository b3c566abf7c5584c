"""Lists and objects that are written as text in a column: which columns are unfolded, and what a cell becomes.

Owns this rule, the same for every container: text stays text, be it JSON or not, but in columns whose cells are all
messages (or the answers of annotators), and in those that forms read as lists or objects. It knows no container.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from tiebreak.data.containers.delimited import is_name_of_text
from tiebreak.data.containers.json_lines import value_of
from tiebreak.data.formats import Row, RowError
from tiebreak.data.formats.guesses import CHOSEN_REJECTED
from tiebreak.data.formats.labelstudio import LISTS
from tiebreak.data.formats.messages import is_message
from tiebreak.data.formats.proportions import NEARLY_ALL
from tiebreak.data.formats.rankings import RANKS
from tiebreak.data.formats.ratings import COMPLETIONS, SCORES
from tiebreak.data.formats.thumbs import DIALOGUE
from tiebreak.data.formats.votes import VERDICTS
from tiebreak.data.literals import json_of
from tiebreak.errors import DataError
from tiebreak.records import Source

_SIDES = frozenset(name for pair in CHOSEN_REJECTED for name in pair)
_STRUCTURED = frozenset(
    (*COMPLETIONS, *SCORES, *RANKS, *DIALOGUE, *LISTS, "conversation_a", "conversation_b", "conversation_history",
     "rejected_messages", "history", "tools", "functions", "annotators", "labels", "alternatives", "feedback",
     "fields", "data", "result", "suggestions", "predictions", "info", "summaries", "replies", "origin", "input_output",
     *(name for name in VERDICTS if name not in _SIDES and not is_name_of_text(name))),
)  # fmt: skip
"""Columns that a form reads as lists or objects, and none as an answer."""
_ENDINGS = (".responses", ".responses.users", ".responses.status", ".suggestion")
"""How Argilla names the lists of a question."""
_OURS = frozenset(("completions", "scores", "ranking", "votes", "history", "tools"))
"""Names of a mapping whose columns are lists."""

_BEGINS = ("[", "{", "(", "array(", "np.array(", "numpy.array(")
_ENDS = ("]", "}", ")")
_PRINTED = re.compile(r"(?:(?:np\.|numpy\.)?array\()?\[?\s*\{\s*['\"](?:role|content|from|value)['\"]\s*:")
"""How messages begin, in JSON and as Python or NumPy print them."""
_STATUS = re.compile(r"(?:\w*\.)?(?:submitted|discarded|draft|pending)", re.IGNORECASE)


def columns_read_as_lists(mapping: Mapping[str, str]) -> frozenset[str]:
    """Return the columns that a mapping of the user's reads as lists or reaches into with a dot."""
    words = ((ours, column) for ours, column in mapping.items() if column[:1] != "=" and "." not in ours)
    return frozenset(
        name for ours, column in words for name in (column.partition(".")[0], column) if ours in _OURS or "." in column
    )


def columns_to_unfold(rows: Sequence[Row], file: str, named: Collection[str] | None = None) -> tuple[str, ...]:
    """Return the columns of text that hold lists or objects, as some rows of a file show them together.

    `named` are the columns that are known to, where a mapping says it; else their names do. Raises DataError where a
    column begins like messages and no cell can be read.
    """
    found = []
    for name in dict.fromkeys(name for row in rows for name, value in row.items() if isinstance(value, str)):
        cells = [row[name] for row in rows if row.get(name) is not None]
        texts = [cell for cell in cells if isinstance(cell, str) and cell.strip()]
        values = [_value(cell) for cell in texts]
        known = [value for value in values if value is not None]
        begun = [text for text, value in zip(texts, values, strict=True) if value is None and _PRINTED.match(text)]
        if begun and len(begun) == len(texts):
            raise DataError(
                f"{file}: the column {name!a:.60} holds messages as a program prints them, which cannot be read "
                "back surely; export the data anew, in pandas: to_json('pairs.jsonl', orient='records', lines=True)"
            )
        # A cell that is cut off costs its own row.
        is_whole = bool(known) and len(known) + len(begun) >= NEARLY_ALL * len(texts)
        is_named = name in named if named is not None else _is_structured(name)
        others = [cell for cell in cells if not isinstance(cell, str)]
        telling = [value for value in known if _tells_itself(value, name)]
        num_telling = len(telling) + len(begun)
        are_messages = any(telling) and num_telling >= NEARLY_ALL * len(texts)
        num_telling += sum(_tells_itself(value, name) for value in others)
        if (is_whole and is_named) or (are_messages and num_telling >= NEARLY_ALL * len([*texts, *others])):
            found.append(name)
    return tuple(found)


def unfolded(row: Row, columns: Sequence[str]) -> Row:
    """Return a row with what columns hold as text; raises RowError where a cell is cut off, or is no messages."""
    if not columns:
        return row
    made = dict(row)
    for name in columns:
        text = made.get(name)
        if not isinstance(text, str) or not text.strip():
            continue
        value = _value(text)
        if value is not None:
            made[name] = value
        elif _PRINTED.match(text):
            raise RowError("bad_row", f"'{name}' is damaged or cut off: {text!a:.60}")
        elif not _is_structured(name):
            raise RowError(
                "wrong_type", f"'{name}' holds lists or objects written as text in other rows, found other text"
            )
    return made


def readable(rows: Iterable[tuple[Source, Row]], columns: Sequence[str]) -> Iterator[tuple[Source, Row]]:
    """Yield rows as `unfolded` has them, without those that have a cell that is cut off."""
    for source, row in rows:
        with suppress(RowError):
            yield source, unfolded(row, columns)


def _is_structured(name: str) -> bool:
    return name.casefold() in _STRUCTURED or name.endswith(_ENDINGS)


def _value(text: str) -> Any:
    """Return a list or object that is written as JSON, or as Python or NumPy print it; None where it is neither."""
    text = text.strip()
    if text.startswith(_BEGINS) and text.endswith(_ENDS):
        for told in (text, json_of(text)):
            with suppress(RowError):
                if told is not None and isinstance(value := value_of(told), list | dict):
                    return value
    return None


def _tells_itself(value: Any, name: str) -> bool:
    """Whether a value says that it is no text of an answer: messages, none at all, or what an annotator said."""
    items = value if isinstance(value, list) else [value]
    return all(map(_are_messages, items)) or (not is_name_of_text(name) and all(map(_is_answer, items)))


def _are_messages(item: Any) -> bool:
    """Whether a value is a message, or an object that lists some."""
    listed = item.get("messages") if isinstance(item, Mapping) else None
    return is_message(item) or (isinstance(listed, list) and all(map(_are_messages, listed)))


def _is_answer(item: Any) -> bool:
    """Whether an object is what an annotator answered: a side selected, or a value and how far it is submitted."""
    if not isinstance(item, Mapping):
        return False
    status = item.get("status")
    stated = status if isinstance(status, list) else [status]
    is_stated = "value" in item and all(isinstance(one, str) and _STATUS.fullmatch(one) for one in stated)
    return is_stated or item.get("selected") in ("left", "right")
