"""Numbers of a scale on single answers are no thumbs; zero says no, or nothing, by what stands in the other rows."""

from __future__ import annotations

import json

import pytest

from asked import answers
from tiebreak.data.formats import Pairing
from tiebreak.data.whole import read_pairs
from tiebreak.errors import DataError

APART = Pairing("none")


@pytest.fixture
def saved(tmp_path):
    def save(rows):
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return save


def rated(*labels, column="label", **more):
    return [{"prompt": f"Of {n // 2}?", "completion": f"said {n}", column: one, **more} for n, one in enumerate(labels)]


def liked(path, **how):
    return [one.liked for one in read_pairs(path, pairing=APART, **how).unpaired]


@pytest.mark.parametrize("written", [int, str, float])
@pytest.mark.parametrize("column", ["label", "feedback"])
def test_a_scale_is_asked_about_and_both_answers_read_it(saved, written, column):
    path = saved(rated(*map(written, [5, 1, 4, 2, 1, 5, 3, 3]), column=column, system="Be brief."))
    with pytest.raises(DataError, match="from 1 to 5: a scale") as asked:
        read_pairs(path, pairing=APART)
    by_score, by_label = answers(asked.value)
    assert by_score["system"] == "system"
    pairs = read_pairs(path, columns=by_score).pairs
    assert [(one.chosen.content, one.rejected.content) for one in pairs] == [
        ("said 0", "said 1"), ("said 2", "said 3"), ("said 5", "said 4"),
    ]  # fmt: skip
    assert liked(path, columns=by_label) == [True, False, True, False, False, True]
    assert read_pairs(path, pairing=APART, columns=by_label).reasons == {"wrong_type": 2}


def test_a_scale_that_is_mostly_one_is_a_scale(saved):
    with pytest.raises(DataError, match="a scale"):
        read_pairs(saved(rated(*[1] * 24, 5)), pairing=APART)


def test_a_mapped_scale_is_asked_about_until_it_says_what_its_numbers_mean(saved):
    path, mapping = saved(rated(1, 2, 1, 2, column="mark")), {"prompt": "prompt", "completion": "completion"}
    with pytest.raises(DataError, match="from 1 to 2: a scale"):
        read_pairs(path, pairing=APART, columns=mapping | {"label": "mark"})
    stated = mapping | {"label": "mark", "label.yes": "1", "label.no": "2"}
    assert liked(path, columns=stated) == [True, False] * 2


def test_one_slip_in_many_rows_is_refused_on_its_own(saved):
    found = read_pairs(saved(rated(*[1, 0] * 100, 7)), pairing=APART)
    assert (len(found.unpaired), found.reasons) == (200, {"wrong_type": 1})


def test_zero_says_no_beside_one_and_nothing_beside_a_sign(saved):
    assert liked(saved(rated(1, 0, 0, 1))) == [True, False, False, True]
    found = read_pairs(saved(rated(1, 0, -1, 1)), pairing=APART)
    assert [one.liked for one in found.unpaired] == [True, False, True]
    assert found.reasons == {"tie": 1}


def logs(*numbers, **more):
    turns = [[{"role": "user", "content": f"a {n}"}, {"role": "assistant", "content": f"b {n}", "rating": one, **more}]
             for n, one in enumerate(numbers)]  # fmt: skip
    return [{"messages": turn} for turn in turns]


def test_zero_in_a_log_says_no_beside_one_and_nothing_beside_a_sign(saved):
    assert liked(saved(logs(1, 0, 0, 1))) == [True, False, False, True]
    found = read_pairs(saved(logs(1, 0, -1, 1)), pairing=APART)
    assert [one.liked for one in found.unpaired] == [True, False, True]
    assert found.reasons == {"no_completion": 1}


def test_stars_in_a_log_are_no_thumbs(saved):
    with pytest.raises(DataError, match="from 1 to 5: a scale"):
        read_pairs(saved(logs(*[1] * 20, 5)), pairing=APART)
    assert liked(saved(logs(3, 5, feedback="down"))) == [False, False]


def test_labelled_dialogues_are_asked_about_too(saved):
    turns = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}]
    with pytest.raises(DataError, match="write true or false"):
        read_pairs(saved([{"messages": turns, "label": one} for one in (1, 5, 2)]), pairing=APART)
