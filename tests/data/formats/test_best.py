"""Three completions or more in columns that count on: all of them are read, or the row is refused with their names."""

from __future__ import annotations

import json

import pytest

from tiebreak.data.formats import Pairing
from tiebreak.data.whole import read_pairs
from tiebreak.errors import DataError

TEXTS = ("A bad one.", "One between.", "The good one.", "Another between.")


@pytest.fixture
def saved(tmp_path):
    def save(names, more, num=12):
        """Rows of so many completions; the place of the good one goes round, and `more` says the rest of a row."""
        path = tmp_path / "rows.jsonl"
        rows = []
        for number in range(num):
            best = (2 + number) % len(names)
            texts = [TEXTS[(place - number) % len(names)] for place in range(len(names))]
            rows.append({"prompt": f"Is it {number}?", **dict(zip(names, texts, strict=True)), **more(best)})
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return save


NUMBERED = tuple(f"response_{number}" for number in range(1, 5))
LETTERED = tuple(f"response_{letter}" for letter in "abcd")
FROM_ZERO = tuple(f"answer{number}" for number in range(4))
BEST = {
    "numbers": (NUMBERED, lambda best: {"best": best + 1}),
    "numbers as text": (NUMBERED, lambda best: {"choice": str(best + 1)}),
    "numbers from zero": (FROM_ZERO, lambda best: {"label": best}),
    "letters": (LETTERED, lambda best: {"best": "ABCD"[best]}),
    "letters of numbered columns": (NUMBERED, lambda best: {"best": "ABCD"[best]}),
    "columns": (LETTERED, lambda best: {"preferred": LETTERED[best]}),
    "words": (LETTERED, lambda best: {"verdict": f"Response {'ABCD'[best]} is the best"}),
    "ordinals": (NUMBERED, lambda best: {"choice": ("first", "second", "third", "fourth")[best]}),
    "models": (LETTERED, lambda best: {"best": "klmn"[best]} | {f"model_{n}": "klmn"[n] for n in range(4)}),
    "the text": (NUMBERED, lambda _: {"winner": "The good one."}),
    "three": (LETTERED[:3], lambda best: {"best": "ABC"[best]}),
    "most votes": (NUMBERED, lambda best: {"votes": [best + 1, best + 1, (best + 1) % 4 + 1]}),
    "a verdict beside how sure": (LETTERED, lambda best: {"judgment": {"verdict": "ABCD"[best], "confidence": 3}}),
    "scores": (NUMBERED, lambda best: {f"score_{n + 1}": 5 if n == best else 2 for n in range(4)}),
    "ratings by letter": (LETTERED, lambda best: {f"rating_{'abcd'[n]}": 5 if n == best else n % 2 for n in range(4)}),
    "a score behind each name": (FROM_ZERO, lambda best: {f"answer{n}_score": float(n == best) for n in range(4)}),
}  # fmt: skip


@pytest.mark.parametrize(("names", "more"), BEST.values(), ids=BEST)
def test_the_best_of_all_is_chosen(saved, names, more):
    found = read_pairs(saved(names, more))
    assert [pair.chosen.content for pair in found.pairs] == ["The good one."] * 12


def test_the_best_is_better_than_each_of_the_others(saved):
    found = read_pairs(saved(NUMBERED, lambda best: {"best": best + 1}, num=1), pairing=Pairing("all"))
    assert {(pair.chosen.content, pair.rejected.content) for pair in found.pairs} == {
        ("The good one.", other) for other in TEXTS if other != "The good one."
    }


def test_scores_of_all_make_the_pair(saved):
    (pair,) = read_pairs(saved(NUMBERED, lambda _: {f"score_{n}": n for n in (1, 2, 4)} | {"score_3": 9}, num=1)).pairs
    assert (pair.chosen.content, pair.rejected.content) == ("The good one.", "A bad one.")
    assert (pair.preference.chosen_score, pair.preference.rejected_score) == (9, 1)


def test_votes_that_nobody_has_most_of_are_a_tie(saved):
    with pytest.raises(DataError, match="no completion has the most of 2 votes"):
        read_pairs(saved(NUMBERED, lambda best: {"votes": [best + 1, (best + 1) % 4 + 1]}))


def test_a_third_column_without_text_is_none(saved):
    path = saved(NUMBERED[:2], lambda best: {"response_3": None, "response_4": "", "winner": best + 1})
    assert len(read_pairs(path).pairs) == 12


REFUSED = {
    "numbers from zero for columns from one": (NUMBERED, lambda best: {"best": best}, "counts from 0"),
    "numbers for letters": (LETTERED, lambda best: {"best": best + 1}, r"^rows.jsonl: what 'best' holds \(3, 4, 1"),
    "models that count otherwise": (
        LETTERED, lambda best: {"best": f"model_{best}", "model_0": "x"}, "^rows.jsonl: .*names none of 'response_a'"
    ),
    "models called by the letters of others": (
        LETTERED,
        lambda best: {"best": "ABCD"[best]} | {f"model_{n}": "BCDA"[n] for n in range(4)},
        "names none of 'response_a'",
    ),
    "counts": (LETTERED, lambda best: {"votes": {"A": 1, "B": 3, "C": 2}}, r"'votes' holds \(an object\)"),
    "two columns that disagree": (NUMBERED, lambda best: {"best": best + 1, "choice": 1}, "different completions"),
}  # fmt: skip


@pytest.mark.parametrize(("names", "more", "words"), REFUSED.values(), ids=REFUSED)
def test_what_names_none_for_sure_is_refused(saved, names, more, words):
    with pytest.raises(DataError, match=words):
        read_pairs(saved(names, more))


@pytest.mark.parametrize("more", [{"preference_strength": -1}, {"a_is_better": True}])
def test_a_verdict_on_two_of_more_is_not_read(saved, more):
    with pytest.raises(DataError, match="response_4"):
        read_pairs(saved(NUMBERED, lambda _: more))


def test_a_selection_among_more_than_two_names_them_all(tmp_path):
    data = {"prompt": "Why?", "answer1": "a", "answer2": "b", "answer3": "c"}
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([{"data": data, "annotations": [{"result": [{"value": {"selected": "left"}}]}]}]))
    with pytest.raises(DataError, match="'answer1', 'answer2', 'answer3' are 3 completions"):
        read_pairs(path)


def test_numbers_for_one_side_alone_are_asked_about_without_an_empty_option(saved):
    with pytest.raises(DataError, match=r"for each of them: .* -c winner.first=NUMBER") as asked:
        read_pairs(saved(NUMBERED[:2], lambda best: {"best": 3 + best}))
    assert "first= " not in str(asked.value)
