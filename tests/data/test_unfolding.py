"""Lists and objects that are written as text: one rule for every container."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tiebreak.data.formats import RowError
from tiebreak.data.unfolding import columns_read_as_lists, columns_to_unfold, unfolded
from tiebreak.data.whole import read_pairs
from tiebreak.errors import DataError

SAID = [[{"role": "user", "content": 'It\'s\n"x"'}, {"role": "assistant", "content": f"a {n}"}] for n in range(3)]


def read_as(rows, named=None):
    """What a column of a file becomes that is all there is."""
    columns = columns_to_unfold(rows, "x.csv", named)
    found = []
    for row in rows:
        try:
            found.append(unfolded(row, columns))
        except RowError as bad:
            found.append(bad.reason)
    return found


def column(name, values, write=json.dumps):
    return [{name: write(value)} for value in values]


TEXTS = (
    "prompt", "chosen", "rejected", "completion", "response", "question", "answer", "instruction", "input", "output",
    "system", "response_a", "response-1", "answer2", "Completion B", "chosen_response", "preferred_output", "gx",
    "better", "worse", "best", "preferred", "meta", "json_reply",
)  # fmt: skip


@pytest.mark.parametrize("values", [[{"n": 0}, {"n": 1}], [[1], []], [[], []], [["a", "b"], [{"role": "x"}]]])
@pytest.mark.parametrize("name", TEXTS)
def test_json_stays_text_in_a_column_of_any_name_that_no_form_reads_otherwise(name, values):
    assert read_as(column(name, values)) == column(name, values)


@pytest.mark.parametrize(
    "values",
    [
        [[{"role": "user", "content": "x"}], [], [{"role": "assistant", "content": None, "tool_calls": []}]],
        [{"from": "gpt", "value": "x"}] * 3,
        [{"messages": [{"role": "user", "content": "x"}], "tools": []}] * 3,
    ],
)
@pytest.mark.parametrize("name", TEXTS)
def test_messages_are_unfolded_in_any_column(name, values):
    assert read_as(column(name, values)) == [{name: value} for value in values]


@pytest.mark.parametrize("show", [repr, lambda value: str(np.array(value, dtype=object)), json.dumps])
def test_messages_are_unfolded_as_python_numpy_and_json_print_them(show):
    assert read_as(column("chosen", SAID, show)) == [{"chosen": said} for said in SAID]


@pytest.mark.parametrize(
    "name",
    ["completions", "responses", "answers", "ratings", "scores", "tools", "conversations", "conversation_a", "votes",
     "Ranking", "label", "annotations", "fields", "data", "history", "best.responses", "best.responses.users"],
)  # fmt: skip
def test_columns_that_forms_read_as_lists_are_unfolded(name):
    assert read_as(column(name, [["a"], []])) == [{name: ["a"]}, {name: []}]
    assert read_as(column(name, [["a", None], []], repr)) == [{name: ["a", None]}, {name: []}]


def test_what_annotators_answered_is_unfolded_in_a_column_of_any_name_but_one_of_texts():
    for value in ({"selected": "left"}, [{"value": 3, "status": "submitted", "user_id": "a"}]):
        assert read_as(column("how good", [value, value])) == [{"how good": value}] * 2
        assert read_as(column("answer", [value])) == column("answer", [value])
    other = {"value": 3, "status": "shipped"}
    assert read_as(column("order", [other])) == column("order", [other])


def test_a_column_is_asked_whole_and_text_among_its_cells_keeps_all_of_it_text():
    rows = [*column("completions", [["a"]]), {"completions": "b"}]
    assert read_as(rows) == rows
    rows = [*column("chosen", SAID), {"chosen": "Plain."}]
    assert read_as(rows) == rows
    assert read_as([{"tools": ""}, {"tools": None}, {"tools": "[]"}, {"tools": [{}]}]) == [
        {"tools": ""}, {"tools": None}, {"tools": []}, {"tools": [{}]},
    ]  # fmt: skip


def test_messages_that_cannot_be_read_back_are_refused_with_the_column_and_the_remedy():
    cut = ["[{'role': 'user', 'content': 'x'} ... {'role': 'assistant', 'content': 'y'}]", "[{'role': Role.user}]"]
    with pytest.raises(DataError, match=r"^x\.csv: the column 'chosen' holds messages as a program prints .*to_json\("):
        read_as(column("chosen", cut, str))


def test_a_cell_of_messages_that_is_cut_off_costs_its_row_only():
    cells = [repr(SAID[0]), repr(SAID[1])[:-9], repr(SAID[2])]
    assert read_as(column("chosen", cells, str)) == [{"chosen": SAID[0]}, "bad_row", {"chosen": SAID[2]}]


def test_a_mapping_says_which_of_its_columns_are_lists():
    mapping = {"prompt": "q", "completions": "said.*.text", "scores": "marks", "system": "=[1].", "label.yes": "a.b"}
    assert columns_read_as_lists(mapping) == {"said", "said.*.text", "marks"}
    rows = [{"marks": "[1]", "completions": "[2]"}]
    assert read_as(rows, columns_read_as_lists(mapping)) == [{"marks": [1], "completions": "[2]"}]


@pytest.fixture(params=["csv", "jsonl", "json", "parquet"])
def saved(request, tmp_path):
    """Write rows of texts in each container."""

    def save(rows):
        path = tmp_path / f"pairs.{request.param}"
        if request.param == "csv":
            file = io.StringIO(newline="")
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
            path.write_text(file.getvalue(), newline="")
        elif request.param == "parquet":
            pq.write_table(pa.Table.from_pylist(rows), path)
        else:
            path.write_text(json.dumps(rows) if request.param == "json" else "\n".join(map(json.dumps, rows)))
        return path

    return save


WRITTEN = {
    "scores": {"prompt": "Why?", "completions": ["good", "bad"], "scores": [3, 1]},
    "a ranking": {"prompt": "Why?", "answers": ["good", "bad"], "ranking": [1, 2]},
    "votes": {"prompt": "Why?", "response_a": "good", "response_b": "bad", "votes": [1, 1, 2]},
    "two dialogues": {"conversation_a": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "good"}],
                      "conversation_b": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "bad"}],
                      "winner": "model_a"},
    "earlier rounds": {"prompt": "Why?", "chosen": "good", "rejected": "bad", "history": [["Hi", "Hello"]]},
    "tools": {"prompt": "Why?", "chosen": "good", "rejected": "bad", "tools": [{"type": "function"}]},
    "OpenAI's": {"input": {"messages": [{"role": "user", "content": "Why?"}]},
                 "preferred_output": [{"role": "assistant", "content": "good"}],
                 "non_preferred_output": [{"role": "assistant", "content": "bad"}]},
    "Label Studio": {"data": {"prompt": "Why?", "answer1": "good", "answer2": "bad"},
                     "annotations": [{"result": [{"value": {"selected": "left"}}]}]},
    "Argilla": {"fields": {"prompt": "Why?", "response-1": "good", "response-2": "bad"},
                "responses": {"best": [{"value": ["response-1", "response-2"]}]}},
}  # fmt: skip


@pytest.mark.parametrize("write", [json.dumps, repr], ids=["JSON", "Python"])
@pytest.mark.parametrize("row", WRITTEN.values(), ids=WRITTEN)
def test_lists_written_as_text_read_the_same_in_every_container(saved, row, write):
    rows = [{name: value if isinstance(value, str) else write(value) for name, value in row.items()}] * 2
    (pair, _) = read_pairs(saved(rows)).pairs
    assert (pair.prompt[-1].content, pair.chosen.content, pair.rejected.content) == ("Why?", "good", "bad")
    assert len(pair.prompt) == (3 if "history" in row else 1)
    assert len(pair.tools) == ("tools" in row)


@pytest.mark.parametrize("value", [["good", "second item"], {"tool": "good"}, "good"])
def test_answers_that_are_json_are_the_same_texts_in_every_container(saved, value):
    good, bad = json.dumps(value), json.dumps([value, 0])
    found = read_pairs(saved([{"q": "Why?", "gx": good, "bx": bad}]), columns={"prompt": "q", "chosen": "gx",
                                                                             "rejected": "bx"})  # fmt: skip
    assert [(pair.chosen.content, pair.rejected.content) for pair in found.pairs] == [(good, bad)]


def test_a_cell_of_messages_that_is_cut_off_is_a_dropped_record_in_every_container(saved):
    rows = [{"chosen": json.dumps(said), "rejected": json.dumps([*said[:-1], SAID[0][-1]])} for said in SAID[1:]]
    found = read_pairs(saved([rows[0], rows[1] | {"chosen": rows[1]["chosen"][:-9]}]))
    assert (len(found.pairs), found.reasons) == (1, {"bad_row": 1})


@pytest.mark.parametrize("write", [json.dumps, repr], ids=["JSON", "Python"])
def test_a_mapping_reaches_into_text_in_every_container(saved, write):
    said = [{"text": "bad", "marks": 1}, {"text": "good", "marks": 4}]
    columns = {"prompt": "q", "completions": "said.*.text", "scores": "said.*.marks"}
    (pair,) = read_pairs(saved([{"q": "Why?", "said": write(said)}]), columns=columns).pairs
    assert (pair.chosen.content, pair.rejected.content) == ("good", "bad")
