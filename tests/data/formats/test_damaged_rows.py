"""Whatever a row holds, in whatever form: pairs, thumbs or a reason in one line, never another error."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bounds import hang_after
from tiebreak.data.formats import FORMATS, Pairing, RowError, detect, read_row
from tiebreak.data.formats.writing import WRITERS
from tiebreak.records import Source

PAGE = (Path(__file__).parents[3] / "docs" / "data.md").read_text(encoding="utf-8")
EXAMPLES = [json.loads(line) for line in re.findall(r"```json\n(.+?)\n```", PAGE)]
KEYS = sorted(set(re.findall(r"\"(\w+)\":", PAGE)))
HERE = Source("rows.jsonl", 1)
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.just(10**400), st.floats(), st.text(st.characters(), max_size=4),
    st.sampled_from(["user", "assistant", "tool", "function_call", "tie", "a", "\n\nHuman: a\n\nAssistant: b", "{}"]),
)  # fmt: skip
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3)
)
PAIRINGS = st.builds(Pairing, st.sampled_from(["best_worst", "best_second", "best_random", "all"]), st.floats(0, 3))


@st.composite
def damaged_rows(draw):
    """A row of one form, some of its values replaced, removed or joined by others."""
    row = copy.deepcopy(draw(st.sampled_from(EXAMPLES)))
    for _ in range(draw(st.integers(1, 3))):
        place = row
        while isinstance(inner := _inner(draw, place), dict | list) and inner and draw(st.booleans()):
            place = inner
        if isinstance(place, dict):
            key = draw(st.sampled_from(sorted(place) or KEYS) | st.sampled_from(KEYS))
            place.pop(key, None)
            if draw(st.integers(0, 4)):
                place[key] = draw(VALUES)
        elif place:
            place[draw(st.integers(0, len(place) - 1))] = draw(VALUES)
    return row


def _inner(draw, place):
    if isinstance(place, dict):
        return place[draw(st.sampled_from(sorted(place)))] if place else None
    return place[draw(st.integers(0, len(place) - 1))]


def outcome(row, form, pairing):
    try:
        return read_row(row, form, HERE, pairing)
    except RowError as refusal:
        assert re.fullmatch("[a-z_]+", refusal.reason)
        assert refusal.detail
        assert not re.search(r"[\n\r]", refusal.detail)
        assert len(refusal.detail) < 400
        return None


@settings(max_examples=500, deadline=None)
@given(damaged_rows(), PAIRINGS)
def test_a_damaged_row_is_read_or_refused_with_a_reason(row, pairing):
    form = detect(row)
    reading = outcome(row, form, pairing) if form else None
    for pair in reading.pairs if reading else ():
        (again,) = read_row(pair.as_dict(), FORMATS["openai"], HERE).pairs
        assert (again.pair_id, again.preference, again.origin) == (pair.pair_id, pair.preference, pair.origin)
        json.dumps(WRITERS["tiebreak"].write(pair), allow_nan=False).encode()


@settings(max_examples=200, deadline=None)
@given(damaged_rows(), st.sampled_from(sorted(FORMATS)))
def test_a_row_is_refused_in_the_same_way_by_a_form_that_the_user_forces(row, name):
    outcome(row, FORMATS[name], Pairing())


@settings(max_examples=200, deadline=None)
@given(
    damaged_rows(),
    st.sampled_from([("chosen", "rejected"), ("completions", "scores"), ("completion", "label")]),
    st.lists(st.sampled_from([*KEYS, "messages.0", "input.messages.0.content", "x"]), min_size=3, max_size=3),
)
def test_a_mapping_of_any_columns_reads_or_refuses(row, keys, columns):
    form = detect(row, dict(zip(("prompt", *keys), columns, strict=True)))
    outcome(row, form, Pairing())


@pytest.mark.parametrize(
    "text", ["\n\nHuman:" * 110_000, "[" * 1_000_000, "a" * 1_000_000, "```" * 330_000, " " * 10**6]
)
def test_a_megabyte_of_anything_takes_a_moment(text):
    for row in (
        {"prompt": text, "chosen": text, "rejected": "b"},
        {"chosen": "\n\nHuman: a" + text, "rejected": "\n\nHuman: a" + text + "c"},
        {"conversations": [{"from": "function_call", "value": text}], "chosen": text, "rejected": "b", "tools": text},
        {"prompt": "a", "response_a": text, "response_b": "b", "winner": text},
        {"instruction": text, "input": text, "output": [text, "b"], "weight": text, "group": text},
    ):
        with hang_after():
            form = detect(row)
            if form:
                outcome(row, form, Pairing())
