"""Files whose chosen and rejected are names: what they name is learned, or it is asked; never the names."""

from __future__ import annotations

import pytest

from tiebreak.config import SourceConfig
from tiebreak.data.reader import open_files
from tiebreak.data.whole import read_pairs
from tiebreak.errors import DataError

GOOD, BAD, OTHER = "The good one.", "The bad one.", "One between."


def two(turned):
    return (BAD, GOOD) if turned else (GOOD, BAD)


def columns(asked, turned, names=("response_a", "response_b")):
    return {"prompt": asked, **dict(zip(names, two(turned), strict=True))}


def named(turned, *words, keys=("chosen", "rejected")):
    better, worse = reversed(words) if turned else words
    return dict(zip(keys, (better, worse), strict=True))


MODELS = {"model_a": "one-7b", "model_b": "two-7b"}
NAMED = {
    "letters in other columns": lambda q, t: columns(q, t) | named(t, "A", "B", keys=("preferred", "rejected")),
    "letters that win and lose": lambda q, t: columns(q, t) | named(t, "a", "b", keys=("win", "lose")),
    "columns": lambda q, t: columns(q, t) | named(
        t, "response_a", "response_b", keys=("chosen_response", "rejected_response")
    ),
    "models": lambda q, t: columns(q, t) | MODELS | named(t, "one-7b", "two-7b", keys=("good", "bad")),
    "letters below an instruction": lambda q, t: {
        "instruction": q, "input": "", "output_1": two(t)[0], "output_2": two(t)[1], **named(t, "1", "2"),
    },
    "letters beside a conversation": lambda q, t: {
        "messages": [{"role": "user", "content": q}], "response_a": two(t)[0], "response_b": two(t)[1],
        **named(t, "A", "B"),
    },
    "keys of an object": lambda q, t: {
        "prompt": q, "responses": {"one-7b": two(t)[0], "two-7b": two(t)[1]}, **named(t, "one-7b", "two-7b"),
    },
    "letters of an object": lambda q, t: {
        "prompt": q, "candidates": {"response_a": two(t)[0], "response_b": two(t)[1]}, **named(t, "A", "B"),
    },
    "places as text": lambda q, t: {"prompt": q, "responses": list(two(t)), **named(t, "0", "1")},
    "places from one": lambda q, t: {"prompt": q, "answers": list(two(t)), **named(t, 1, 2)},
    "places of three": lambda q, t: {"prompt": q, "completions": [OTHER, *two(t)], **named(t, 2, 3)},
    "letters of a list": lambda q, t: {"prompt": q, "outputs": [OTHER, *two(t)], **named(t, "B", "C")},
    "places in columns of other names": lambda q, t: {
        "prompt": q, "responses": list(two(t)), **named(t, "0", "1", keys=("good", "bad")),
    },
    "names that the items of a list have": lambda q, t: {
        "prompt": q,
        "responses": [{"model": "one-7b", "text": two(t)[0]}, {"model": "two-7b", "text": two(t)[1]}],
        **named(t, "one-7b", "two-7b"),
    },
    "the third of three columns": lambda q, t: {
        "prompt": q, "response_a": OTHER, "response_b": two(t)[0], "response_c": two(t)[1], **named(t, "B", "C"),
    },
}  # fmt: skip


@pytest.mark.parametrize("make", NAMED.values(), ids=NAMED)
def test_what_is_named_is_learned(alternating, make):
    found = read_pairs(alternating(make))
    assert [(pair.chosen.content, pair.rejected.content) for pair in found.pairs] == [(GOOD, BAD)] * 12
    assert [pair.prompt[-1].content for pair in found.pairs] == [f"Is it {n}?" for n in range(12)]


@pytest.mark.parametrize("make", NAMED.values(), ids=NAMED)
def test_the_first_record_tells_what_was_named(alternating, make):
    (file,) = open_files(SourceConfig(path=str(alternating(make))))
    assert file.look.first is not None
    assert "names" in file.look.first.why
    assert not file.look.missed


@pytest.mark.parametrize("words", [("x1", "x2"), ("one-7b", "two-7b")])
def test_a_mapping_to_columns_of_names_learns_what_they_name(alternating, words):
    def make(asked, turned):
        texts = dict(zip(words, two(turned), strict=True))
        return {"q": asked, **texts, **named(turned, *words, keys=("best", "worst"))}

    found = read_pairs(alternating(make), columns={"prompt": "q", "chosen": "best", "rejected": "worst"})
    assert {(pair.chosen.content, pair.rejected.content) for pair in found.pairs} == {(GOOD, BAD)}


ASKED = {
    "places of which no row tells where they begin": lambda q, t: {
        "prompt": q, "responses": [OTHER, *two(t), OTHER], **named(t, "1", "2"),
    },
    "models whose completions are not there": lambda q, t: {"prompt": q, **MODELS, **named(t, "one-7b", "two-7b")},
    "keys of an object that may hold something else": lambda q, t: {
        "prompt": q, "meta": {"one": "x y z", "two": "z y x"}, **named(t, "one", "two"),
    },
}  # fmt: skip


@pytest.mark.parametrize("make", ASKED.values(), ids=ASKED)
def test_names_that_name_nothing_for_sure_are_asked_about(alternating, make):
    with pytest.raises(DataError, match=r"'chosen' and 'rejected' hold names such as"):
        read_pairs(alternating(make))


def test_letters_of_columns_that_only_a_mapping_knows_are_asked_about_with_one_that_reads_them(alternating):
    path = alternating(lambda q, t: columns(q, t, ("a1", "a2")) | named(t, "A", "B", keys=("best", "worst")))
    with pytest.raises(DataError, match=r"-c completion_a=a1 -c completion_b=a2 -c winner=best"):
        read_pairs(path)
    mapping = {"prompt": "prompt", "completion_a": "a1", "completion_b": "a2", "winner": "best"}
    assert {pair.chosen.content for pair in read_pairs(path, columns=mapping).pairs} == {GOOD}


TEXTS = {
    "numbers that are the answers": lambda q, t: {
        "prompt": q, "chosen": "2" if t else "3", "rejected": "1", "generations": ["2" if t else "3", "1"],
    },
    "numbers that are the answers of two columns": lambda q, t: {
        "prompt": q, "response_a": "2", "response_b": "1", "chosen": "2", "rejected": "1",
    },
    "letters of a test": lambda q, t: {
        "prompt": f"{q} A) It is so. B) It is not.", "answers": ["It is so.", "It is not."], **named(t, "A", "B"),
    },
    "letters of nothing": lambda q, t: {"prompt": q, **named(t, "A", "B")},
    "words that are keys of something counted": lambda q, t: {
        "prompt": q, "votes_by_word": {"yes": 3, "no": 1}, **named(t, "yes", "no"),
    },
}  # fmt: skip


@pytest.mark.parametrize("make", TEXTS.values(), ids=TEXTS)
def test_short_answers_stay_what_they_are(alternating, make):
    rows = [make(f"Is it {n}?", bool(n % 2)) for n in range(12)]
    found = read_pairs(alternating(make))
    assert [(pair.chosen.content, pair.rejected.content) for pair in found.pairs] == [
        (row["chosen"], row["rejected"]) for row in rows
    ]


@pytest.mark.parametrize("names", [("model_a", "model_b"), ("generator_1", "generator_2")])
def test_columns_called_as_models_are_that_hold_completions_can_be_mapped(alternating, names):
    path = alternating(lambda q, t: columns(q, t, names) | {"winner": "b" if t else "a"})
    found = read_pairs(path, columns={"prompt": "prompt", "chosen": names[0], "rejected": names[1]})
    assert {(pair.chosen.content, pair.rejected.content) for pair in found.pairs} == {(GOOD, BAD), (BAD, GOOD)}
    sides = {"completion_a": names[0], "completion_b": names[1]}
    found = read_pairs(path, columns={"prompt": "prompt", **sides, "winner": "winner"})
    assert {(pair.chosen.content, pair.rejected.content) for pair in found.pairs} == {(GOOD, BAD)}


def test_a_row_that_names_nothing_among_those_that_do_is_refused_for_itself(alternating):
    path = alternating(
        lambda q, t: columns(q, t) | named(t, "A", "B" if q != "Is it 4?" else "C", keys=("win", "lose"))
    )
    found = read_pairs(path)
    assert (len(found.pairs), found.reasons) == (11, {"wrong_type": 1})
