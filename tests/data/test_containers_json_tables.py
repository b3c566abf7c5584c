"""JSON as pandas and `datasets` write tables: whichever way it is turned, the same records come out."""

from __future__ import annotations

import gzip
import json

import pytest

from tiebreak.data.containers import MAX_LINE_BYTES, blocks, rows
from tiebreak.data.formats import RowError
from tiebreak.data.whole import read_pairs
from tiebreak.errors import DataError

ROWS = [
    {"prompt": f'p {n} {{"[', "chosen": [{"role": "user", "content": "x"}, {"role": "assistant", "content": f"é{n}"}],
     "rejected": "no" if n else None, "score": n / 2}
    for n in range(3)
]  # fmt: skip
NAMES = list(ROWS[0])
TABLES = {
    "columns": {name: {str(n): row[name] for n, row in enumerate(ROWS)} for name in NAMES},
    "list": {name: [row[name] for row in ROWS] for name in NAMES},
    "index": {str(n): row for n, row in enumerate(ROWS)},
    "labels": {f"id-{n}": row for n, row in enumerate(ROWS)},
    "split": {"columns": NAMES, "index": [0, 1, 2], "data": [list(row.values()) for row in ROWS]},
    "split without an index": {"columns": NAMES, "data": [list(row.values()) for row in ROWS]},
    "under a name of one's own": {"my pairs": ROWS},
}
RECORDS = {
    "messages": {"prompt": [{"role": "user", "content": "x"}], "chosen": [{"role": "assistant", "content": "a"}],
                 "rejected": [{"content": "b", "role": "assistant"}]},
    "turns": {"conversations": [{"from": "human", "value": "x"}]},
    "two objects": {"response_a": {"text": "a", "answer": "b"}, "response_b": {"text": "a", "answer": "b"}},
    "message objects": {"chosen": {"role": "assistant", "content": "a"}, "rejected": {"role": "x", "content": "b"}},
    "lists of unlike length": {"completions": ["a", "b"], "ranks": [1]},
    "one list": {"prompt": [{"text": "a", "answer": "b"}]},
    "nothing": {},
    "a text and a list": {"prompt": "a", "completions": ["b", "c"]},
}  # fmt: skip


def read(path) -> list:
    found = [(source.line, row) for block in blocks(path, path.name) for source, row in rows(block)]
    return [(number, row.reason if isinstance(row, RowError) else row) for number, row in found]


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("made", TABLES.values(), ids=TABLES)
def test_a_table_gives_its_rows_whichever_way_it_is_turned(saved, made, indent, pack):
    content = json.dumps(made, indent=indent, ensure_ascii=False).encode()
    assert read(saved(pack(content), "pairs.json")) == list(enumerate(ROWS, 1))


@pytest.mark.parametrize("name", ["columns", "list", "index", "split"])
def test_a_table_larger_than_a_line_is_read(saved, name):
    text = "x" * (MAX_LINE_BYTES // 3)
    padded = json.loads(json.dumps(TABLES[name]).replace('"no"', json.dumps(text)).replace("null", json.dumps(text)))
    found = read(saved(json.dumps(padded).encode(), "pairs.json"))
    assert [row["rejected"] for _, row in found] == [text] * 3


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("made", RECORDS.values(), ids=RECORDS)
def test_one_record_alone_is_no_table(saved, made, indent):
    assert read(saved(json.dumps(made, indent=indent).encode(), "pairs.json")) == [(1, made)]


@pytest.mark.parametrize(
    ("made", "table"),
    [
        ({"prompt": ["a"], "chosen": ["b"]}, [{"prompt": "a", "chosen": "b"}]),
        ({"prompt": ["a", "b"], "votes": [[1], [2]]}, [{"prompt": "a", "votes": [1]}, {"prompt": "b", "votes": [2]}]),
        ({"prompt": {"0": "a"}, "chosen": {"0": "b"}}, [{"prompt": "a", "chosen": "b"}]),
    ],
)
def test_lists_or_objects_are_columns_where_they_stand_alone_and_cells_where_a_line_follows(saved, made, table):
    line = json.dumps(made).encode() + b"\n"
    assert read(saved(line)) == list(enumerate(table, 1))
    assert read(saved(line * 2)) == [(1, made), (2, made)]


@pytest.mark.parametrize(
    ("made", "told"),
    [
        ([["a", "b"], ["c", "d"]], r"a list of lists: their columns have no names; in pandas, write to_json\('pairs"),
        ({"data": [["a", "b"]]}, "lists of cells: their columns have no names; in pandas, write to_json"),
        ({"prompt": {"0": "a", "1": "b"}, "chosen": {"0": "a"}}, ".*its columns are of different lengths"),
        ({"prompt": {"0": "a", "1": "b"}, "chosen": {"1": "a", "0": "b"}}, ".*its columns name different rows"),
    ],
)
def test_a_table_of_which_nobody_can_say_what_is_what_is_refused(saved, made, told):
    with pytest.raises(DataError, match=rf"^pairs\.json: {told}"):
        read(saved(json.dumps(made).encode(), "pairs.json"))


def test_a_bad_cell_costs_its_row_only(saved):
    content = b'{\n"prompt": {\n"0": "a",\n"1": nul,\n"2": "c"}, "chosen": {"0": 1, "1": 2, "2": 3}}'
    assert read(saved(content)) == [
        (1, {"prompt": "a", "chosen": 1}),
        (2, "bad_json"),
        (3, {"prompt": "c", "chosen": 3}),
    ]


def test_rows_of_the_hubs_viewer_are_read_and_one_with_a_cut_cell_is_told(tmp_path):
    rows = [{"row_idx": n, "row": {"prompt": f"Why {n}?", "chosen": "a", "rejected": "b"}, "truncated_cells": []}
            for n in range(3)]  # fmt: skip
    rows[1]["truncated_cells"] = ["chosen"]
    path = tmp_path / "rows.json"
    for indent in (None, 2):
        path.write_text(
            json.dumps({"features": [{"name": "prompt"}], "rows": rows, "num_rows_total": 3}, indent=indent)
        )
        found = read_pairs(path)
        assert [pair.prompt[0].content for pair in found.pairs] == ["Why 0?", "Why 2?"]
        (lost,) = found.dropped
        assert (lost.reason, lost.source.line) == ("bad_row", 2)
        assert 'has cut cells of this row ("chosen")' in lost.detail


@pytest.mark.parametrize("second", ["test", "validation"])
def test_two_lists_of_records_in_one_file_are_never_trained_on_together(tmp_path, second):
    path = tmp_path / "splits.json"
    pairs = [{"prompt": "Why?", "chosen": "a", "rejected": "b"}]
    path.write_text(json.dumps({"train": pairs, second: pairs}))
    with pytest.raises(DataError, match=f"lists records under both 'train' and '{second}'; save each .* data.heldout"):
        read_pairs(path)
