"""A reader of a form survives any of its fields being null or of another kind: it reads the row, or says why."""

from __future__ import annotations

import copy
import itertools
import json
import re
from pathlib import Path

import pytest

from tiebreak.data.formats import FORMATS, RowError, detect, read_row
from tiebreak.data.formats.columns import columns_form
from tiebreak.data.survey import survey
from tiebreak.errors import DataError
from tiebreak.records import Source

PAGE = (Path(__file__).parents[3] / "docs" / "data.md").read_text(encoding="utf-8")
EXAMPLES = {
    name: json.loads(row)
    for name, row in re.findall(r"^### `(\w+)` · .+?\n+```json\n(.+?)\n```", PAGE, re.MULTILINE | re.DOTALL)
}
MAPPINGS = {
    "thumbs": ({"prompt": "q", "completion": "c", "label": "l"}, {"q": "Why?", "c": "Because.", "l": 1}),
    "scores": ({"prompt": "q", "completion": "c", "score": "l"}, {"q": "Why?", "c": "Because.", "l": 1}),
    "votes": (
        {"prompt": "q", "completion_a": "a", "completion_b": "b", "votes": "v.*.w", "history": "h", "prefix": "p"},
        {"q": "Why?", "a": "Because.", "b": "No.", "v": [{"w": 1}, {"w": 2}, {"w": 1}], "h": [["Hi", "Ho"]], "p": "x"},
    ),
    "sides": (
        {"prompt": "q", "completion_a": "a", "completion_b": "b", "score_a": "s.a", "score_b": "s.b"},
        {"q": "Why?", "a": "Because.", "b": "No.", "s": {"a": 1, "b": 2}},
    ),
    "pairs": ({"prompt": "q", "chosen": "a", "rejected": "b"}, {"q": "Why?", "a": ["Because."], "b": ["No.", "Nay."]}),
}
ODD = (None, "", [], {}, 0, True, [None], [[]], {"role": None}, float("nan"), "x")


def places(value, path=()):
    """Every place inside a row: keys of objects, items of lists."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield (*path, key)
        yield from places(item, (*path, key))


def changed(row, path, value):
    row = copy.deepcopy(row)
    place = row
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return row


def survives(row, form):
    if form is None:
        return
    try:
        read_row(row, form, Source("rows", 1))
    except RowError as refusal:
        assert refusal.detail


@pytest.mark.parametrize("name", FORMATS)
def test_a_field_of_any_kind_is_read_or_refused_in_words(name):
    row = EXAMPLES[name]
    for path, value in itertools.product(places(row), ODD):
        made = changed(row, path, value)
        survives(made, FORMATS[name])
        survives(made, detect(made))


@pytest.mark.parametrize("name", FORMATS)
def test_any_subset_of_the_columns_may_be_null(name):
    row = EXAMPLES[name]
    for kept in itertools.chain.from_iterable(itertools.combinations(row, size) for size in range(len(row))):
        made = {key: value if key in kept else None for key, value in row.items()}
        survives(made, FORMATS[name])
        survives(made, detect(made))


@pytest.mark.parametrize(("mapping", "row"), MAPPINGS.values(), ids=MAPPINGS)
def test_a_mapped_field_of_any_kind_is_read_or_refused_in_words(mapping, row):
    form = columns_form(mapping)
    survives(row, form)
    for path, value in itertools.product(places(row), ODD):
        survives(changed(row, path, value), form)


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_of_odd_rows_can_be_looked_at(name, tmp_path):
    row = EXAMPLES[name]
    odd = [changed(row, path, value) for path, value in itertools.product(places(row), (None, "", [], {}, 0, "x"))]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in [*odd, row]))
    try:
        found = survey(path, path.name, None, pairing=form_pairing())
    except DataError as question:
        assert "\n" not in str(question)
    else:
        assert found.look.first is not None


def form_pairing():
    from tiebreak.data.formats import Pairing

    return Pairing()
