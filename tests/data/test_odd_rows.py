"""One odd row among many that admit two readings: they are asked about all the same, and each answer reads them."""

from __future__ import annotations

import json

import pytest

from asked import answers
from tiebreak.data.whole import read_pairs
from tiebreak.errors import DataError
from tiebreak.files import write_jsonl

GOOD, BAD, BETWEEN = "The good one.", "The bad one.", "One between."
NUM, ODD = 40, 7


@pytest.fixture
def saved(tmp_path):
    """Write rows that `make` gives for a number, and what `odd` says instead in one of them."""

    def save(make, odd, at=ODD):
        path = tmp_path / "rows.jsonl"
        write_jsonl(path, ({"prompt": f"Is it {n}?", **make(n), **(odd if n == at else {})} for n in range(NUM)))
        return path

    return save


def sides(turned, names=("response_a", "response_b")):
    return dict(zip(names, (BAD, GOOD) if turned else (GOOD, BAD), strict=True))


def two(verdict, names=("response_a", "response_b")):
    return lambda n: sides(n % 3 == 1, names) | verdict(n % 3 == 1)


def ranks(first):
    """The better side has the lower number."""
    return lambda turned: {"preference": {"response_a": first + turned, "response_b": first + (not turned)}}


def places(first):
    """The last is the best, then the first."""
    texts = {"completions": [BETWEEN, BAD, GOOD]}
    return lambda _: texts | {"ranking": [place + first for place in (2, 0, 1)]}


ODD_ROWS = {
    "ranks with a tie": (two(ranks(1)), {"preference": {"response_a": 1, "response_b": 1}}, "ranks", 1),
    "ranks with nothing": (two(ranks(1)), {"preference": {"response_a": 1, "response_b": None}}, "ranks", 1),
    "ranks of one side": (two(ranks(1)), {"preference": {"response_a": 1}}, "ranks", 1),
    "ranks from zero with a tie": (two(ranks(0)), {"preference": {"response_a": 0, "response_b": 0}}, "ranks", 1),
    "ranks with a word": (two(ranks(1)), {"preference": {"response_a": 1, "response_b": "?"}}, "ranks", 1),
    "ranks with other keys": (two(ranks(1)), {"preference": {"comment": "both are bad"}}, "ranks", 1),
    "places with a tie": (places(0), {"ranking": [2, 2, 1]}, "places", 1),
    "places that end early": (places(0), {"ranking": [2, 0]}, "places", 1),
    "places that end with nothing": (places(0), {"ranking": [2, 0, None]}, "places", 1),
    "places from one with a gap": (places(1), {"ranking": [3, 1, 5]}, "places", 1),
    "places from one that end early": (places(1), {"ranking": [3, 1]}, "places", 1),
    "places with a word": (places(0), {"ranking": ["?", 0, 1]}, "places", 1),
    "aspects without one": (
        two(lambda t: {"preference": {"helpful": "ab"[t], "style": "ba"[t], "length": "ba"[t]}}),
        {"preference": {"helpful": "a", "style": "b"}}, "several questions", 0,
    ),
    "aspects beside a verdict": (
        two(lambda t: {"preference": {"helpful": "ab"[t], "style": "ba"[t], "length": "ba"[t]}}),
        {"preference": {"winner": "a"}}, "several questions", 0,
    ),
    "counts beside three votes": (two(lambda t: {"votes": [1, 2] if t else [2, 1]}), {"votes": [1, 2, 2]}, "counts", 0),
    "places beside a weighted preference": (two(lambda t: {"winner": int(t)}), {"winner": 1.5}, "as places", 0),
}  # fmt: skip


@pytest.mark.parametrize(("make", "odd", "words", "right"), ODD_ROWS.values(), ids=ODD_ROWS)
def test_they_are_asked_about_and_the_right_answer_reads_them(saved, make, odd, words, right):
    path = saved(make, odd)
    with pytest.raises(DataError, match=words) as asked:
        read_pairs(path)
    found = [
        pair for pair in read_pairs(path, columns=answers(asked.value)[right]).pairs if pair.source.line != ODD + 1
    ]
    assert [pair.chosen.content for pair in found] == [GOOD] * (NUM - 1)


def test_a_tie_of_ranks_is_none_for_the_first(saved):
    make, odd, _, right = ODD_ROWS["ranks with a tie"]
    path = saved(make, odd)
    with pytest.raises(DataError) as asked:
        read_pairs(path)
    found = read_pairs(path, columns=answers(asked.value)[right])
    assert (len(found.pairs), found.reasons) == (NUM - 1, {"tie": 1})


STRENGTH = two(lambda _: {"preference_strength": 2})
ASKED = {
    "one strength below zero": (STRENGTH, {"preference_strength": -1}, "above zero in 39 of the first 40 rows"),
    "scores that the first row lacks": (
        two(lambda t: {"winner": "ba"[t], "score_a": 2 - t, "score_b": 1 + t}), {"score_a": None}, "in 39 of 39 rows",
    ),
    "a first row of annotators": (
        two(lambda t: {"preference": int(t)}), {"preference": None, "annotator_1": 1}, "as places .* or as votes",
    ),
    "columns from zero and one number beyond": (
        two(lambda _: {"winner": 1}, ("response_0", "response_1")), {"winner": 2}, "as places .* or as votes",
    ),
    "three columns from zero and one number beyond": (
        lambda n: {f"response_{place}": f"{place}" for place in range(3)} | {"best": 1 + n % 2}, {"best": 3},
        "'best' goes up to 3, and 'response_0', .* count from 0",
    ),
    "names that are places of two columns": (
        lambda n: sides(n % 2) | {"chosen": str(n % 2), "rejected": str(1 - n % 2)}, {"chosen": "A text."},
        "hold names such as '[01]' and '[01]'",
    ),
    "names that are places of three columns": (
        lambda n: sides(0) | {"response_c": BETWEEN, "chosen": "0", "rejected": str(1 + n % 2)}, {}, "hold names such",
    ),
}  # fmt: skip


@pytest.mark.parametrize("at", [0, ODD])
@pytest.mark.parametrize(("make", "odd", "words"), ASKED.values(), ids=ASKED)
def test_they_are_asked_about(saved, make, odd, words, at):
    with pytest.raises(DataError, match=words):
        read_pairs(saved(make, odd, at))


def signed(n):
    return sides(n % 10 == 9) | {"preference_strength": 2 if n % 10 == 9 else -1}


READ = {
    "strengths seldom above zero": (signed, {}),
    "strengths seldom below zero": (
        lambda n: sides(n % 10 != 9) | {"preference_strength": -2 if n % 10 == 9 else 1}, {},
    ),
    "a winner beside strengths without a sign, but for one": (
        two(lambda t: {"preference_strength": 2, "winner": "ab"[t]}), {"preference_strength": -1},
    ),
    "a winner that is left out once": (
        two(lambda t: {"preference_strength": 2, "winner": "ab"[t]}), {"winner": None},
    ),
    "numbers of votes": (
        two(lambda t: {"preference": {"a": 3 * (not t), "b": 3 * t}}), {"preference": {"a": 1, "b": 2}},
    ),
    "judges of whom each row has others": (
        lambda n: sides(n % 2) | {"preference": dict.fromkeys(("ann", "ben", "cy")[n % 3:], "ab"[n % 2])}, {},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("make", "odd"), READ.values(), ids=READ)
def test_what_is_sure_is_read(saved, make, odd):
    found = [pair for pair in read_pairs(saved(make, odd)).pairs if pair.source.line != ODD + 1]
    assert [pair.chosen.content for pair in found] == [GOOD] * (NUM - 1)


CONTEXT = {"context": "What is told of it, at some length."}


@pytest.mark.parametrize(
    ("word", "others", "reasons"),
    [
        ("tie", "chosen", {"tie": 10}),
        ("rejected", "chosen", {}),
        ("tie", "rejected", {"tie": 10}),
        ("", "chosen", {}),
    ],
)
def test_a_mapping_to_sides_makes_no_pairs_of_ties_and_believes_the_sides(saved, word, others, reasons):
    path = saved(lambda n: {"chosen": GOOD, "rejected": BAD, "winner": others if n % 4 else word, **CONTEXT}, {})
    mapping = {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected", "input": "context"}
    found = read_pairs(path, columns=mapping)
    assert (len(found.pairs), found.reasons) == (NUM - sum(reasons.values()), reasons)


def test_one_word_against_a_mapping_to_sides_drops_its_row(saved):
    path = saved(lambda _: {"good": GOOD, "bad": BAD, "winner": "chosen"}, {"winner": "rejected"})
    found = read_pairs(path, columns={"prompt": "prompt", "chosen": "good", "rejected": "bad"})
    assert (len(found.pairs), found.reasons) == (NUM - 1, {"wrong_type": 1})


def test_a_column_that_is_mapped_is_no_word_beside_itself(saved):
    path = saved(lambda _: {"preferred": "Both", "other": "Neither", "start": "1. "}, {})
    columns = {"prompt": "prompt", "chosen": "preferred", "rejected": "other", "prefix": "start"}
    assert len(read_pairs(path, columns=columns).pairs) == NUM


# ------------------------------------------------------------------------------------------- columns named backwards

BACKWARDS = {"prompt": "prompt", "completion_a": "response_b", "completion_b": "response_a", "winner": "who"}


@pytest.mark.parametrize(
    "verdict",
    [
        lambda t: {"who": ("response_a", "response_b")[t]},
        lambda t: {"who": ("x1", "x2")[t], "model_a": "x1", "model_b": "x2"},
        lambda t: {"who": "tie" if t is None else GOOD},
    ],
)
def test_names_of_columns_named_backwards_are_those_of_the_columns(saved, verdict):
    found = read_pairs(saved(two(verdict), {"who": "tie"}), columns=BACKWARDS)
    assert {pair.chosen.content for pair in found.pairs} == {GOOD}
    assert (len(found.pairs), found.reasons) == (NUM - 1, {"tie": 1})


@pytest.mark.parametrize("words", ["AB", (1, 2), ("left", "right")])
def test_letters_and_numbers_of_columns_named_backwards_are_asked_about(saved, words):
    path = saved(two(lambda t: {"who": words[t]}), {})
    with pytest.raises(DataError, match="for a column by its name, or for 'response_b'") as asked:
        read_pairs(path, columns=BACKWARDS)
    by_name, by_place = answers(asked.value)
    assert {pair.chosen.content for pair in read_pairs(path, columns=by_name).pairs} == {GOOD}
    assert {pair.chosen.content for pair in read_pairs(path, columns=by_place).pairs} == {BAD}


@pytest.mark.parametrize("words", [("response_0", "response_1"), ("Response 0", "Response 1"), ("0", "1")])
def test_names_of_columns_from_zero_are_those_of_the_columns(saved, words):
    path = saved(two(lambda t: {"winner": words[t]}, ("response_0", "response_1")), {})
    assert [pair.chosen.content for pair in read_pairs(path).pairs] == [GOOD] * NUM


@pytest.mark.parametrize("names", [("response_0", "response_1"), ("response_1", "response_2"), ("x", "y")])
@pytest.mark.parametrize("told", ["column", "number"])
def test_the_worse_one_is_told_in_the_words_of_the_columns(saved, names, told):
    words = names if told == "column" else (0, 1) if names[0][-1] == "0" else (1, 2)
    path = saved(two(lambda t: {"worse": words[not t]}, names), {})
    columns = {"prompt": "prompt", "completion_a": names[0], "completion_b": names[1], "winner": "worse"}
    with pytest.raises(DataError, match="asks for the worse side") as asked:
        read_pairs(path, columns=columns)
    worse, better = answers(asked.value)
    assert {pair.chosen.content for pair in read_pairs(path, columns=worse).pairs} == {GOOD}
    assert {pair.chosen.content for pair in read_pairs(path, columns=better).pairs} == {BAD}


def test_one_cell_of_another_kind_leaves_the_others_messages(saved):
    def said(text):
        return json.dumps([{"role": "assistant", "content": text}])

    path = saved(lambda _: {"chosen": said(GOOD), "rejected": said(BAD)}, {"chosen": ["A text."]})
    found = [pair for pair in read_pairs(path).pairs if pair.source.line != ODD + 1]
    assert [pair.chosen.content for pair in found] == [GOOD] * (NUM - 1)
