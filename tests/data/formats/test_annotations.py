"""What stands beside a pair in any form: numbers, votes, where it comes from."""

from __future__ import annotations

import math

import pytest

from tiebreak.data.formats import detect, read_row
from tiebreak.data.formats.annotations import number
from tiebreak.records import Origin, Preference, Source, Vote

ROWS = {
    "trl": {"prompt": "Why?", "chosen": "Because.", "rejected": "No."},
    "hh": {"chosen": "\n\nHuman: Why?\n\nAssistant: Because.", "rejected": "\n\nHuman: Why?\n\nAssistant: No."},
    "alpaca": {"instruction": "Why?", "chosen": "Because.", "rejected": "No."},
    "columns": {"document": "Why?", "chosen": "Because.", "rejected": "No."},
}


def read(row):
    (pair,) = read_row(row, detect(row), Source("a", 1)).pairs
    return pair


@pytest.mark.parametrize("name", ROWS)
def test_columns_beside_a_pair_are_honoured_in_every_form(name):
    beside = {"score_chosen": 5, "score_rejected": "3.5", "weight": 0.5, "soft_label": 0.9, "annotator_id": 7}
    pair = read(ROWS[name] | beside | {"license": "MIT", "split": "test", "group": 0, "dataset": " facts "})
    assert pair.preference == Preference(5.0, 3.5, 1.5, 0.5, 0.9, (Vote("chosen", "7"),))
    assert pair.origin == Origin("facts", "MIT", "test", "0")


@pytest.mark.parametrize(
    "beside",
    [
        {"weight": -1, "margin": math.nan, "soft_label": 2},
        {"weight": True, "margin": "large", "score_chosen": ""},
        {"split": ["a"], "group": None, "source": "a document\nof two lines", "dataset": "x" * 201, "license": True},
    ],
)
def test_a_column_that_means_something_else_is_left_out(beside):
    pair = read(ROWS["trl"] | beside)
    assert (pair.preference, pair.origin) == (Preference(), Origin())


def test_one_number_of_the_wrong_kind_does_not_take_the_others_along():
    assert read(ROWS["trl"] | {"weight": -1, "soft_label": 0.9, "margin": 2}).preference == Preference(
        margin=2.0, soft_label=0.9
    )


def test_a_stated_margin_is_kept_beside_scores():
    pair = read(ROWS["trl"] | {"score_chosen": 5, "score_rejected": 3, "margin": 1})
    assert pair.preference.margin == 1
    assert read(ROWS["trl"] | {"score_chosen": 5}).preference == Preference(chosen_score=5.0)
    assert read(ROWS["trl"] | {"score_chosen": 1e308, "score_rejected": -1e308}).preference.margin is None


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (3, 3.0), (-0.5, -0.5), ("4.5", 4.5), (" 1e3 ", 1000.0), (True, None), (None, None), ("", None), ("N/A", None),
        ("1_0", None), ("nan", None), (math.inf, None), (10**400, None), ("9" * 10**6, None), ([1], None),
    ],
)  # fmt: skip
def test_a_number_is_finite_and_may_be_text(value, found):
    assert number(value) == found


@pytest.mark.parametrize("group", [1, 1.0, "1", " 1 "])
def test_a_number_that_names_a_group_is_one_name_however_it_is_written(group):
    assert read(ROWS["trl"] | {"group": group}).origin.group == "1"
