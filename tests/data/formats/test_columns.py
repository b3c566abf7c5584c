"""Columns of other names: as the user says them, and as they are guessed."""

from __future__ import annotations

import pickle

import pytest

from tiebreak.data.formats import FORMATS, Pairing, RowError, detect, read_row
from tiebreak.data.formats.columns import KEYS, columns_form
from tiebreak.data.formats.guesses import guessed_columns
from tiebreak.records import Message, Origin, Preference, Source

HERE = Source("rows.csv", 3)
PAIR = {"prompt": "q", "chosen": "good", "rejected": "bad"}


def read(row, columns=None, pairing=None):
    form = detect(row, columns)
    assert form is not None, "the row has no known form"
    return read_row(row, form, HERE, pairing or Pairing())


def only(row, columns=None):
    (pair,) = read(row, columns).pairs
    return pair.prompt[-1].content, pair.chosen.content, pair.rejected.content


MAPPED = {
    "names": ({"q": "Why?", "good": "Because.", "bad": "No."}, PAIR),
    "names that are a form of their own": (
        {"prompt": "x", "chosen": "y", "rejected": "z", "q": "Why?", "good": "Because.", "bad": "No."}, PAIR,
    ),
    "inside objects and lists": (
        {"item": {"ask": "Why?"}, "answers": ["No.", "Because."]},
        {"prompt": "item.ask", "chosen": "answers.1", "rejected": "answers.0"},
    ),
    "a dot in a name": (
        {"q.text": "Why?", "q": {"text": "?"}, "good": "Because.", "bad": "No."}, PAIR | {"prompt": "q.text"},
    ),
    "messages": (
        {"q": [{"from": "human", "value": "Why?"}], "good": [{"role": "assistant", "content": "Because."}],
         "bad": [{"role": "assistant", "content": "No."}]}, PAIR,
    ),
    "a winner": (
        {"q": "Why?", "x": "No.", "y": "Because.", "who": "model_b"},
        {"prompt": "q", "completion_a": "x", "completion_b": "y", "winner": "who"},
    ),
    "whether the first is better": (
        {"q": "Why?", "x": "No.", "y": "Because.", "first": "0"},
        {"prompt": "q", "completion_a": "x", "completion_b": "y", "a_is_better": "first"},
    ),
    "votes": (
        {"q": "Why?", "x": "No.", "y": "Because.", "who": [2, 2, 1]},
        {"prompt": "q", "completion_a": "x", "completion_b": "y", "votes": "who"},
    ),
    "scores": (
        {"q": "Why?", "texts": ["No.", "Because."], "marks": [1, 5]},
        {"prompt": "q", "completions": "texts", "scores": "marks"},
    ),
    "ranks": (
        {"q": "Why?", "texts": ["No.", "Because."], "places": [2, 1]},
        {"prompt": "q", "completions": "texts", "ranking": "places"},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("row", "columns"), MAPPED.values(), ids=MAPPED)
def test_a_mapping_reads_columns_of_any_name(row, columns):
    assert detect(row, columns).name == "columns"
    assert only(row, columns) == ("Why?", "Because.", "No.")


NULLS = {"completions": "ratings", "scores": "ratings", "ranking": "ranks", "completion": "thumb", "label": "thumb"}


@pytest.mark.parametrize(("key", "of"), NULLS.items(), ids=NULLS)
def test_null_in_a_mapped_column_costs_its_row_with_a_reason(key, of):
    rows = {
        "ratings": {"prompt": "Why?", "completions": ["No.", "Because."], "scores": [1, 2]},
        "ranks": {"prompt": "Why?", "completions": ["No.", "Because."], "ranking": [2, 1]},
        "thumb": {"prompt": "Why?", "completion": "Because.", "label": True},
    }
    columns = {name: name for name in rows[of]}
    assert read(rows[of], columns)
    with pytest.raises(RowError) as refusal:
        read(rows[of] | {key: None}, columns)
    assert refusal.value.reason in ("wrong_type", "no_completion")
    assert f"'{key}'" in refusal.value.detail


def test_a_mapping_of_one_verdict_gives_thumbs():
    columns = {"prompt": "q", "completion": "a", "label": "ok"}
    verdicts = [read({"q": "Why?", "a": "Because.", "ok": ok}, columns).thumbs[0].liked for ok in (True, 1, 0, "up")]
    assert verdicts == [True, True, False, True]


def test_system_tools_and_more_of_the_prompt_are_mapped_too():
    row = {"q": "Translate.", "more": "Guten Tag", "sys": "Be brief.", "t": [{"name": "look_up"}]}
    columns = PAIR | {"input": "more", "system": "sys", "tools": "t"}
    (pair,) = read(row | {"good": "Hello", "bad": "Bye"}, columns).pairs
    assert pair.prompt == (Message("system", "Be brief."), Message("user", "Translate.\nGuten Tag"))
    assert pair.tools == ({"name": "look_up"},)


def test_mapped_side_columns_come_before_those_of_telling_names():
    row = {"q": "Why?", "good": "Because.", "bad": "No.", "weight": 70, "meta": {"w": 0.5}, "doc": 12, "group": "x"}
    columns = PAIR | {"weight": "meta.w", "group": "doc", "margin": "absent"}
    (pair,) = read(row, columns).pairs
    assert (pair.preference, pair.origin) == (Preference(weight=0.5), Origin(group="12"))
    assert pair.source == HERE


def test_a_group_is_mapped_for_thumbs():
    columns = {"prompt": "q", "completion": "a", "label": "ok", "group": "doc"}
    assert read({"q": "Why?", "a": "Because.", "ok": True, "doc": 3}, columns).thumbs[0].origin.group == "3"


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"prompts": "q", "chosen": "a", "rejected": "b"}, r"'prompts' is not known; .*Did you mean 'prompt'\?"),
        ({"prompt": "q", "chosen": "a"}, "'chosen' need 'rejected' to make a pair"),
        ({"prompt": "q", "completions": "a"}, "'completions' need 'scores' or 'ranking' or 'order' to make a pair"),
        ({"prompt": "q", "completion_a": "a", "winner": "w"}, "'completion_a' and 'winner' need 'completion_b'"),
        ({"prompt": "q"}, "no pair in prompt; one of these is needed: chosen [+] rejected; "),
        ({"margin": "m"}, "no pair in margin"),
        ({"chosen": "a", "rejected": "b", "winner": "w"}, "'winner' has no place beside 'chosen' and 'rejected'"),
        ({"completions": "a", "scores": "s"}, "'prompt' is missing"),
        ({"chosen": "", "rejected": "b"}, "'chosen' is the name of a column, found nothing"),
    ],
)
def test_a_mapping_that_makes_no_pair_is_refused_in_one_line(columns, message):
    with pytest.raises(ValueError, match=message) as refusal:
        columns_form(columns)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("changes", "reason", "detail"),
    [
        ({"good": None}, "wrong_type", "'chosen'"),
        ({"good": ""}, "empty_completion", "'chosen'"),
        ({"q": None}, "no_prompt", "'prompt'"),
        ({"q": 3}, "wrong_type", "'prompt'"),
    ],
)
def test_a_mapped_row_is_refused_like_any_other(changes, reason, detail):
    row = {"q": "Why?", "good": "Because.", "bad": "No."} | changes
    with pytest.raises(RowError, match=detail) as refusal:
        read(row, PAIR)
    assert refusal.value.reason == reason


def test_a_column_that_is_not_there_is_named():
    with pytest.raises(RowError, match="no column 'bad' for 'rejected'; keys 'q', 'good'") as refusal:
        read({"q": "Why?", "good": "Because."}, PAIR)
    assert refusal.value.reason == "wrong_format"
    assert detect([1], PAIR) is None


@pytest.mark.parametrize("path", ["a.5", "a.x", "a.0.b", "b.c", "a.-1", "a." + "9" * 5000, "a.²", "."])
def test_a_path_that_leads_nowhere_is_a_missing_column(path):
    row = {"q": "Why?", "good": "Because.", "a": ["x"], "b": "text"}
    with pytest.raises(RowError, match="no column"):
        read(row, PAIR | {"rejected": path})


def test_a_mapped_form_travels_to_worker_processes():
    form = pickle.loads(pickle.dumps(columns_form(PAIR)))
    (pair,) = read_row({"q": "Why?", "good": "Because.", "bad": "No."}, form, HERE).pairs
    assert pair.chosen.content == "Because."
    assert all(pickle.loads(pickle.dumps(form)).name == name for name, form in FORMATS.items())


def test_the_names_of_a_mapping_are_those_of_the_documents():
    assert set(KEYS) == {
        "prompt", "input", "system", "tools", "chosen", "rejected", "completions", "scores", "ranking", "completion_a",
        "completion_b", "votes", "winner", "a_is_better", "completion", "label", "chosen_score", "rejected_score",
        "margin", "weight", "soft_label", "annotator", "group", "split", "dataset", "licence", "history", "prefix",
        "chosen_win_rate", "rejected_win_rate",
        "strength", "score", "score_a", "score_b", "order",
    }  # fmt: skip


SIDES = {"good": "Because.", "bad": "No."}
GUESSED = {
    "SummEdits": (
        {"group": 0, "document": "Why?", "chosen": "Because.", "rejected": "No."},
        "columns: prompt=document, chosen=chosen, rejected=rejected",
    ),
    "Intel Orca": (
        {"system": "Be brief.", "question": "Why?", "chosen": "Because.", "rejected": "No."},
        "columns: prompt=question, system=system, chosen=chosen, rejected=rejected",
    ),
    "argilla": (
        {"instruction": "Why?", "chosen_response": "Because.", "rejected_response": "No."},
        "columns: prompt=instruction, chosen=chosen_response, rejected=rejected_response",
    ),
    "SHP": (
        {"history": "Why?", "human_ref_A": "No.", "human_ref_B": "Because.", "labels": 0, "score_A": 3},
        "columns: prompt=history, completion_a=human_ref_A, completion_b=human_ref_B, a_is_better=labels",
    ),
    "better and worse": (
        {"query": "Why?", "better": "Because.", "worse": "No."},
        "columns: prompt=query, chosen=better, rejected=worse",
    ),
    "an instruction with its input": (
        {"instruction": "", "input": "Why?", "accepted": "Because.", "rejected": "No."},
        "columns: prompt=instruction, input=input, chosen=accepted, rejected=rejected",
    ),
}


@pytest.mark.parametrize(("row", "title"), GUESSED.values(), ids=GUESSED)
def test_columns_of_telling_names_are_guessed_and_said(row, title):
    assert detect(row).title == title
    prompt, chosen, rejected = only(row)
    assert (prompt.strip(), chosen, rejected) == ("Why?", "Because.", "No.")


def test_solutions_with_a_verdict_are_guessed_as_thumbs():
    row = {"question": "1 + 1?", "solution": "2", "is_correct": True, "model": "6b"}
    assert detect(row).title == "columns: prompt=question, completion=solution, label=is_correct"
    assert read(row).thumbs[0].liked


@pytest.mark.parametrize(
    "row",
    [
        {"context": "A text.", "question": "Why?", "chosen": "Because.", "rejected": "No."},
        {"chosen": "Because.", "rejected": "No."},
        {"human": "Why?", "ai": "Because."},
        {"query": "Why?", "pos": ["Because."], "neg": ["No."]},
        {"question": "Why?", "answer": "Because.", "label": 3},
        {"question": None, "chosen": "Because.", "rejected": "No."},
        {},
    ],
)
def test_what_could_mean_two_things_is_not_guessed(row):
    assert guessed_columns(row) is None


def test_real_files_of_other_names_are_read(shared):
    import gzip
    import json

    for name, title, counts in (
        ("prefs/summedits_pairs", "columns: prompt=document, chosen=chosen, rejected=rejected", (1350, 0)),
        (
            "unpaired/gsm8k_model_solutions",
            "columns: prompt=question, completion=solution, label=is_correct",
            (0, 5276),
        ),
    ):
        with gzip.open(shared / "data" / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
            rows = [json.loads(line) for line in lines]
        form = detect(rows[0])
        readings = [read_row(row, form, HERE) for row in rows]
        assert form.title == title
        assert (sum(len(r.pairs) for r in readings), sum(len(r.thumbs) for r in readings)) == counts
        if counts[0]:
            assert len({reading.pairs[0].origin.group for reading in readings}) == 71
